#include "supervise.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/input.h>
#include <mntent.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

enum { kMaxButtons = 8, kMaxMounts = 64 };

// Opens the input devices that have a power key, at most kMaxButtons; returns how many.
static int OpenButtons(struct pollfd* buttons) {
  int count = 0;
  for (int i = 0; i < 16 && count < kMaxButtons; i++) {
    char path[32];
    snprintf(path, sizeof path, "/dev/input/event%d", i);
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) continue;
    unsigned char keys[KEY_MAX / 8 + 1] = {0};
    ioctl(fd, EVIOCGBIT(EV_KEY, sizeof keys), keys);
    if (keys[KEY_POWER / 8] & (1 << KEY_POWER % 8)) {
      buttons[count++] = (struct pollfd){.fd = fd, .events = POLLIN};
    } else {
      close(fd);
    }
  }
  return count;
}

static bool PowerPressed(int fd) {
  struct input_event event;
  bool pressed = false;
  while (read(fd, &event, sizeof event) == sizeof event) {
    pressed |= event.type == EV_KEY && event.code == KEY_POWER && event.value == 1;
  }
  return pressed;
}

// Job control needs the tty behind /dev/console as the controlling terminal.
static void TakeConsole(void) {
  char names[128], path[160] = "/dev/console";
  FILE* active = fopen("/sys/class/tty/console/active", "re");
  if (active && fgets(names, sizeof names, active)) {
    names[strcspn(names, "\n")] = 0;
    const char* last = strrchr(names, ' ');
    snprintf(path, sizeof path, "/dev/%s", last ? last + 1 : names);
  }
  if (active) fclose(active);
  int fd = open(path, O_RDWR);
  if (fd < 0) return;
  ioctl(fd, TIOCSCTTY, 1);
  for (int standard = 0; standard < 3; standard++) dup2(fd, standard);
  if (fd > 2) close(fd);
}

static pid_t Start(const char* script) {
  pid_t child = fork();
  if (child != 0) return child;
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, NULL);
  setsid();
  if (script) {
    execl(script, script, (char*)NULL);
    if (errno == ENOEXEC) execl("/bin/sh", "sh", script, (char*)NULL);
  } else {
    TakeConsole();
    execl("/bin/sh", "-sh", (char*)NULL);
  }
  fprintf(stderr, "minivmm-init: run %s: %s\n", script ? script : "/bin/sh", strerror(errno));
  _exit(127);
}

_Noreturn void Supervise(const char* script) {
  sigset_t signals;
  sigemptyset(&signals);
  const int kSignals[] = {SIGCHLD, SIGUSR1, SIGUSR2, SIGTERM};
  for (size_t i = 0; i < sizeof kSignals / sizeof *kSignals; i++) sigaddset(&signals, kSignals[i]);
  sigprocmask(SIG_BLOCK, &signals, NULL);

  struct pollfd events[kMaxButtons + 1] = {
      {.fd = signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK), .events = POLLIN}};
  int buttons = OpenButtons(events + 1);
  pid_t child = Start(script);
  if (child < 0) printf("minivmm-init: fork: %s\n", strerror(errno));

  for (;;) {
    poll(events, (nfds_t)buttons + 1, -1);
    for (int i = 1; i <= buttons; i++) {
      if (PowerPressed(events[i].fd)) {
        printf("minivmm-init: power button\n");
        Shutdown(RB_POWER_OFF);
      }
    }
    struct signalfd_siginfo signal;
    while (read(events[0].fd, &signal, sizeof signal) == sizeof signal) {
      // The meaning that busybox's commands give to signals to process 1.
      if (signal.ssi_signo == SIGUSR1) Shutdown(RB_HALT_SYSTEM);
      if (signal.ssi_signo == SIGUSR2) Shutdown(RB_POWER_OFF);
      if (signal.ssi_signo == SIGTERM) Shutdown(RB_AUTOBOOT);
    }
    int status;
    for (pid_t pid; (pid = waitpid(-1, &status, WNOHANG)) > 0;) {
      if (pid != child) continue;
      printf("minivmm-init: %s exit=%d\n", script ? "script" : "shell",
             WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
      Shutdown(RB_POWER_OFF);
    }
  }
}

// Waits for children to end, at most LIMIT_MS.
static void Reap(int limit_ms) {
  for (int waited_ms = 0; waited_ms < limit_ms; waited_ms += 10) {
    pid_t pid;
    while ((pid = waitpid(-1, NULL, WNOHANG)) > 0) {
    }
    if (pid < 0) return;
    nanosleep(&(struct timespec){.tv_nsec = 10 * 1000 * 1000}, NULL);
  }
}

// Last mounted first; what cannot be unmounted (the root) becomes read-only, which leaves a
// clean file system on the disk.
static void UnmountDisks(void) {
  char* mounts[kMaxMounts];
  int count = 0;
  FILE* table = setmntent("/proc/mounts", "re");
  if (!table) return;
  for (struct mntent* entry; count < kMaxMounts && (entry = getmntent(table));) {
    if (strncmp(entry->mnt_fsname, "/dev/", 5) == 0) mounts[count++] = strdup(entry->mnt_dir);
  }
  endmntent(table);
  while (count-- > 0) {
    if (umount(mounts[count]) != 0) {
      mount(NULL, mounts[count], NULL, MS_REMOUNT | MS_RDONLY, NULL);
    }
  }
}

_Noreturn void Shutdown(int action) {
  if (kill(-1, SIGTERM) == 0) {
    kill(-1, SIGCONT);
    Reap(1000);
    kill(-1, SIGKILL);
    Reap(1000);
  }
  sync();
  UnmountDisks();
  tcdrain(STDOUT_FILENO);
  reboot(action);
  for (;;) pause();
}
