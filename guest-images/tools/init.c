// Process 1 of the Linux guests: mounts, loads modules, reports readiness over the console,
// runs a script (or a shell) and powers off. The same program is /init of the initramfs and
// /sbin/init of the root disk. Written in C because every fork and every read of a shell
// script would be part of each cold boot. Protocol: guest-images/README.md.
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/sysinfo.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

#include "modules.h"
#include "supervise.h"

static void Mount(const char* what, const char* where, const char* type, const char* options) {
  mkdir(where, 0755);
  if (mount(what, where, type, MS_NOSUID, options) != 0 && errno != EBUSY) {
    printf("minivmm-init: mount %s on %s: %s\n", what, where, strerror(errno));
  }
}

// The kernel gives /init the console of its built-in initramfs, if any; after devtmpfs is
// there it can always be opened.
static void OpenConsole(void) {
  int fd = open("/dev/console", O_RDWR);
  if (fd < 0) return;
  for (int standard = 0; standard < 3; standard++) dup2(fd, standard);
  if (fd > 2) close(fd);
  setvbuf(stdout, NULL, _IOLBF, 0);
}

// Finds NAME=VALUE (or NAME alone, value "") on the kernel's command line.
static bool KernelArgument(const char* name, char* value, size_t size) {
  char line[4096];
  int fd = open("/proc/cmdline", O_RDONLY | O_CLOEXEC);
  ssize_t n = fd < 0 ? 0 : read(fd, line, sizeof line - 1);
  if (fd >= 0) close(fd);
  line[n > 0 ? n : 0] = 0;
  char* rest = NULL;
  for (char* word = strtok_r(line, " \n", &rest); word; word = strtok_r(NULL, " \n", &rest)) {
    size_t length = strcspn(word, "=");
    if (strlen(name) == length && strncmp(word, name, length) == 0) {
      snprintf(value, size, "%s", word[length] ? word + length + 1 : "");
      return true;
    }
  }
  return false;
}

static void LoopbackUp(void) {
  int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  struct ifreq request = {.ifr_name = "lo", .ifr_flags = IFF_UP | IFF_RUNNING};
  if (fd < 0) return;
  ioctl(fd, SIOCSIFFLAGS, &request);
  close(fd);
}

static bool CopyFile(const char* from, const char* to) {
  char buffer[4096];
  int in = open(from, O_RDONLY | O_CLOEXEC);
  if (in < 0) return false;
  int out = open(to, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0755);
  ssize_t n = out < 0 ? -1 : 0;
  while (out >= 0 && (n = read(in, buffer, sizeof buffer)) > 0) {
    if (write(out, buffer, (size_t)n) != n) {
      n = -1;
      break;
    }
  }
  close(in);
  if (out >= 0) close(out);
  return n == 0;
}

// Makes the disk the root and runs its init. The initramfs stays below, because its modules
// are wanted on the disk as well (the disk does not know which kernel it is started with).
static void SwitchRoot(const char* device, char** arguments) {
  char type[32] = "ext4", program[128] = "/sbin/init", ignored[8];
  KernelArgument("rootfstype", type, sizeof type);
  KernelArgument("init", program, sizeof program);
  unsigned long flags = KernelArgument("ro", ignored, sizeof ignored) ? MS_RDONLY : 0;
  if (strcmp(type, "ext4") == 0) LoadModule("crc32c_generic");
  LoadModule(type);
  mkdir("/newroot", 0755);
  if (mount(device, "/newroot", type, flags, NULL) != 0) {
    printf("minivmm-init: mount root %s (%s): %s\n", device, type, strerror(errno));
    return;
  }
  CopyFile("/script", "/run/script");
  mount("/lib/modules", "/newroot/lib/modules", NULL, MS_BIND, NULL);
  static const char* const kMoved[] = {"/proc", "/sys", "/dev", "/run"};
  for (size_t i = 0; i < sizeof kMoved / sizeof *kMoved; i++) {
    char target[32];
    snprintf(target, sizeof target, "/newroot%s", kMoved[i]);
    if (mount(kMoved[i], target, NULL, MS_MOVE, NULL) != 0) {
      printf("minivmm-init: root %s has no directory %s\n", device, kMoved[i]);
      return;
    }
  }
  if (chdir("/newroot") != 0 || mount(".", "/", NULL, MS_MOVE, NULL) != 0 || chroot(".") != 0) {
    printf("minivmm-init: switch to root %s: %s\n", device, strerror(errno));
    return;
  }
  arguments[0] = program;
  execv(program, arguments);
  printf("minivmm-init: root %s: %s: %s\n", device, program, strerror(errno));
}

static void Report(const char* root) {
  struct utsname kernel;
  struct sysinfo memory;
  struct timespec now;
  uname(&kernel);
  sysinfo(&memory);
  clock_gettime(CLOCK_BOOTTIME, &now);
  printf("minivmm-init: ready kernel=%s cpus=%ld mem=%lluK root=%s uptime_ms=%lld\n",
         kernel.release, sysconf(_SC_NPROCESSORS_ONLN),
         (unsigned long long)memory.totalram * memory.mem_unit / 1024, root,
         (long long)now.tv_sec * 1000 + now.tv_nsec / 1000000);
}

int main(int argc, char** argv) {
  (void)argc;
  if (getpid() != 1) {
    fprintf(stderr, "init: runs as process 1 only\n");
    return 1;
  }
  bool first = access("/proc/version", F_OK) != 0;
  if (first) {
    Mount("proc", "/proc", "proc", NULL);
    Mount("sysfs", "/sys", "sysfs", NULL);
    Mount("devtmpfs", "/dev", "devtmpfs", NULL);
    OpenConsole();
    Mount("devpts", "/dev/pts", "devpts", "ptmxmode=666");
    Mount("tmpfs", "/dev/shm", "tmpfs", NULL);
    Mount("tmpfs", "/run", "tmpfs", NULL);
  }
  setenv("PATH", "/bin:/sbin:/usr/bin:/usr/sbin", 1);
  setenv("HOME", "/root", 1);

  if (first) {
    LoadModulesForDevices();
    // The console may be one that a module has just brought (console=hvc0).
    OpenConsole();
  }
  char root[64] = "initramfs";
  bool disk_root = KernelArgument("root", root, sizeof root);
  if (disk_root && first) {
    SwitchRoot(root, argv);
    Shutdown(RB_POWER_OFF);
  }
  // Only for the power button; the input device itself comes with the button's driver.
  LoadModule("evdev");
  LoopbackUp();
  Report(root);
  const char* script = access("/run/script", F_OK) == 0 ? "/run/script" : "/script";
  Supervise(access(script, F_OK) == 0 ? script : NULL);
}
