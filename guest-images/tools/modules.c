#include "modules.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <unistd.h>

static char* ReadText(const char* path) {
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return NULL;
  size_t size = 0, capacity = 16384;
  char* text = malloc(capacity + 1);
  ssize_t n;
  while (text && (n = read(fd, text + size, capacity - size)) > 0) {
    size += (size_t)n;
    if (size == capacity) text = realloc(text, (capacity *= 2) + 1);
  }
  close(fd);
  if (text) text[size] = 0;
  return text;
}

static void ModulesFile(char* path, size_t size, const char* name) {
  struct utsname kernel;
  uname(&kernel);
  snprintf(path, size, "/lib/modules/%s/%s", kernel.release, name);
}

// modules.dep, read once; lines "path: dependency dependency".
static const char* Dependencies(void) {
  static char* text;
  if (!text) {
    char path[256];
    ModulesFile(path, sizeof path, "modules.dep");
    text = ReadText(path);
    if (!text) text = strdup("");
  }
  return text;
}

// The module's name of a file: no directory, no ".ko", '-' and '_' are the same.
static void NameOfFile(const char* file, size_t length, char* name, size_t size) {
  const char* end = file + length;
  const char* start = end;
  while (start > file && start[-1] != '/') start--;
  size_t n = 0;
  for (; start < end && *start != '.' && n + 1 < size; start++) {
    name[n++] = *start == '-' ? '_' : *start;
  }
  name[n] = 0;
}

static void LoadFile(const char* file, size_t length) {
  char name[64], relative[200], path[320], loaded[96];
  NameOfFile(file, length, name, sizeof name);
  snprintf(loaded, sizeof loaded, "/sys/module/%s", name);
  if (access(loaded, F_OK) == 0) return;
  snprintf(relative, sizeof relative, "%.*s", (int)length, file);
  ModulesFile(path, sizeof path, relative);
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0 || (syscall(SYS_finit_module, fd, "", 0) != 0 && errno != EEXIST)) {
    printf("minivmm-init: module %s: %s\n", name, strerror(errno));
  }
  if (fd >= 0) close(fd);
}

void LoadModule(const char* name) {
  char wanted[64], found[64];
  NameOfFile(name, strlen(name), wanted, sizeof wanted);
  for (const char* line = Dependencies(); *line;) {
    const char* end = strchrnul(line, '\n');
    const char* colon = memchr(line, ':', (size_t)(end - line));
    if (colon) {
      NameOfFile(line, (size_t)(colon - line), found, sizeof found);
      if (strcmp(found, wanted) == 0) {
        // depmod lists a module before what that module needs: load from the right.
        for (const char* word_end = end; word_end > colon + 1;) {
          const char* word = word_end;
          while (word > colon + 1 && word[-1] != ' ') word--;
          if (word < word_end) LoadFile(word, (size_t)(word_end - word));
          word_end = word > colon + 1 ? word - 1 : word;
        }
        LoadFile(line, (size_t)(colon - line));
        return;
      }
    }
    line = *end ? end + 1 : end;
  }
}

// Loads what modules.alias ("alias PATTERN MODULE") names for one modalias.
static void LoadForAlias(const char* aliases, const char* modalias) {
  for (const char* line = aliases; *line;) {
    const char* end = strchrnul(line, '\n');
    char pattern[512], module[64];
    if (sscanf(line, "alias %511s %63s", pattern, module) == 2 &&
        fnmatch(pattern, modalias, 0) == 0) {
      LoadModule(module);
    }
    line = *end ? end + 1 : end;
  }
}

void LoadModulesForDevices(void) {
  char path[256];
  ModulesFile(path, sizeof path, "modules.alias");
  char* aliases = ReadText(path);
  if (!aliases) return;
  // The devices behind a transport appear once its driver is loaded: virtio comes last.
  static const char* const kBuses[] = {"pci", "acpi", "platform", "virtio"};
  for (size_t bus = 0; bus < sizeof kBuses / sizeof *kBuses; bus++) {
    snprintf(path, sizeof path, "/sys/bus/%s/devices", kBuses[bus]);
    DIR* devices = opendir(path);
    if (!devices) continue;
    for (struct dirent* device; (device = readdir(devices));) {
      char file[600];
      snprintf(file, sizeof file, "%s/%s/modalias", path, device->d_name);
      char* modalias = ReadText(file);
      if (!modalias) continue;
      modalias[strcspn(modalias, "\n")] = 0;
      LoadForAlias(aliases, modalias);
      free(modalias);
    }
    closedir(devices);
  }
  free(aliases);
}
