// A workload that checks itself, for tests of snapshots of Linux guests: processes that rewrite
// memory, append to a log on the disk, talk to each other and watch the clock, all of it in a way
// that lets them see at any later time whether something was lost, doubled or set back.
//
//   workload [dir=DIR] [mem=BYTES] [rate=N] [late=MS]   until "stop" comes on stdin
//   workload verify-log FILE                            looks at a log taken from the disk
//
// Prints a line a second (protocol: guest-images/README.md):
//   workload: beat=7 ok mem=4410 disk=512,508 pipe=1290 tcp=1288 ticks=350 late_ms=3 mono=… real=…
//   workload: beat=8 FAIL …                 from the first broken invariant on
// On stdin: "check" verifies everything at once ("workload: verified …"), "!COMMAND" runs a shell
// command ("workload: command exit=N" behind it), "stop" ends.
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "shared.h"

enum Role { kMemory0, kMemory1, kTimer, kPipe, kPipeServer, kTcp, kTcpServer, kDisk0, kDisk1 };
static const char* const kNames[] = {"memory0", "memory1",    "timer", "pipe", "pipe-server",
                                     "tcp",     "tcp-server", "disk0", "disk1"};

static unsigned workers;
static pid_t pids[kMaxWorkers];
static struct Worker coordinator = {.name = "coordinator"};
static int pipes[2][2];  // to the server, from it
static int sockets[2];   // the client's and the server's end of a connection

static void MakeLinks(void) {
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t length = sizeof address;
  int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1;
  sockets[0] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (pipe2(pipes[0], O_CLOEXEC) != 0 || pipe2(pipes[1], O_CLOEXEC) != 0 ||
      bind(listener, (struct sockaddr*)&address, length) != 0 || listen(listener, 1) != 0 ||
      getsockname(listener, (struct sockaddr*)&address, &length) != 0 ||
      connect(sockets[0], (struct sockaddr*)&address, length) != 0 ||
      (sockets[1] = accept4(listener, NULL, NULL, SOCK_CLOEXEC)) < 0) {
    fprintf(stderr, "workload: pipe or connection: %s\n", strerror(errno));
    exit(1);
  }
  close(listener);
  for (int i = 0; i < 2; i++) setsockopt(sockets[i], IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

static void CloseExcept(int keep_in, int keep_out) {
  int ends[] = {pipes[0][0], pipes[0][1], pipes[1][0], pipes[1][1], sockets[0], sockets[1]};
  for (size_t i = 0; i < sizeof ends / sizeof *ends; i++) {
    if (ends[i] != keep_in && ends[i] != keep_out) close(ends[i]);
  }
}

static void Work(enum Role role) {
  int in = -1, out = -1;
  if (role == kPipe) in = pipes[1][0], out = pipes[0][1];
  if (role == kPipeServer) in = pipes[0][0], out = pipes[1][1];
  if (role == kTcp) in = out = sockets[0];
  if (role == kTcpServer) in = out = sockets[1];
  CloseExcept(in, out);
  switch (role) {
    case kMemory0:
    case kMemory1:
      return MemoryWorker(role - kMemory0);
    case kTimer:
      return TimerWorker();
    case kPipe:
    case kTcp:
      return LinkClient(in, out);
    case kPipeServer:
    case kTcpServer:
      return LinkServer(in, out);
    case kDisk0:
    case kDisk1:
      return DiskWorker(role - kDisk0);
  }
}

static void Start(void) {
  workers = settings.directory ? kDisk1 + 1 : kDisk0;
  for (unsigned i = 0; i < workers; i++) shared->workers[i].name = kNames[i];
  for (unsigned i = 0; i < workers; i++) {
    pids[i] = fork();
    if (pids[i] < 0) Fail("fork: %s", strerror(errno));
    if (pids[i] > 0) continue;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    signal(SIGPIPE, SIG_IGN);
    self = &shared->workers[i];
    Work(i);
    _exit(0);
  }
  CloseExcept(-1, -1);
}

static unsigned long long Progress(enum Role role) { return shared->workers[role].progress; }

// A worker that ended or rests is a failure of its own; the coordinator must not stop for it.
static void Report(const char* format, const char* name) {
  if (atomic_exchange(&shared->failed, 1) != 0) return;
  snprintf(shared->failure, sizeof shared->failure, format, name);
  shared->failed = 2;
}

static void Watch(void) {
  static uint64_t progress[kMaxWorkers], moved_ns[kMaxWorkers];
  uint64_t now = shared->latest_ns;
  for (unsigned i = 0; i < workers; i++) {
    if (progress[i] != shared->workers[i].progress || moved_ns[i] == 0) {
      progress[i] = shared->workers[i].progress;
      moved_ns[i] = now;
    } else if (now - moved_ns[i] > settings.late_ns) {
      Report("%s makes no progress", kNames[i]);
    }
    if (pids[i] > 0 && waitpid(pids[i], NULL, WNOHANG) == pids[i]) {
      pids[i] = 0;
      Report("%s has ended", kNames[i]);
    }
  }
}

static unsigned long long Milliseconds(clockid_t clock) {
  struct timespec time;
  clock_gettime(clock, &time);
  return (unsigned long long)time.tv_sec * 1000 + (unsigned long long)time.tv_nsec / 1000000;
}

static void Beat(unsigned long beat) {
  Watch();
  if (shared->failed) {
    printf("workload: beat=%lu FAIL %s\n", beat, shared->failed == 2 ? shared->failure : "…");
    return;
  }
  printf(
      "workload: beat=%lu ok mem=%llu disk=%llu,%llu pipe=%llu tcp=%llu ticks=%llu "
      "late_ms=%llu mono=%llu real=%llu\n",
      beat, Progress(kMemory0) + Progress(kMemory1), Progress(kDisk0), Progress(kDisk1),
      Progress(kPipe), Progress(kTcp), Progress(kTimer),
      (unsigned long long)shared->late_ns / 1000000, Milliseconds(CLOCK_MONOTONIC),
      Milliseconds(CLOCK_REALTIME));
}

static bool AllChecked(void) {
  for (unsigned i = 0; i < workers; i++) {
    if (shared->workers[i].checked != shared->check) return false;
  }
  return true;
}

static void Verified(void) {
  printf("workload: verified");
  for (unsigned i = 0; i < workers; i++) {
    printf(" %s=%llu", kNames[i], (unsigned long long)shared->workers[i].checked_units);
  }
  printf("\n");
}

// What was typed; partial lines wait for their rest.
static void Input(bool* checking) {
  static char line[512];
  static size_t length;
  ssize_t n = read(STDIN_FILENO, line + length, sizeof line - 1 - length);
  if (n <= 0) return;
  length += (size_t)n;
  line[length] = 0;
  for (char* end; (end = strpbrk(line, "\r\n"));) {
    *end = 0;
    if (strcmp(line, "check") == 0) {
      shared->check++;
      *checking = true;
    } else if (strcmp(line, "stop") == 0) {
      shared->stop = true;
    } else if (line[0] == '!') {
      int status = system(line + 1);
      printf("workload: command exit=%d\n", WIFEXITED(status) ? WEXITSTATUS(status) : 128);
    } else if (line[0]) {
      printf("workload: no command: %s (check, stop, !COMMAND)\n", line);
    }
    length -= (size_t)(end + 1 - line);
    memmove(line, end + 1, length + 1);
  }
  if (length == sizeof line - 1) length = 0;
}

static void Coordinate(void) {
  int timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC);
  struct itimerspec second = {.it_interval.tv_sec = 1, .it_value.tv_sec = 1};
  if (timer < 0 || timerfd_settime(timer, 0, &second, NULL) != 0) Fail("timerfd");
  struct pollfd events[2] = {{.fd = timer, .events = POLLIN},
                             {.fd = STDIN_FILENO, .events = POLLIN}};
  bool checking = false;
  unsigned long beat = 0;
  while (!shared->stop) {
    if (poll(events, 2, checking ? 20 : -1) < 0) continue;
    uint64_t seconds;
    if (events[0].revents && read(timer, &seconds, sizeof seconds) == sizeof seconds) {
      Beat(++beat);
    }
    if (events[1].revents) Input(&checking);
    if (events[1].revents & POLLHUP) events[1].fd = -1;
    if (checking && AllChecked()) {
      checking = false;
      Verified();
    }
  }
}

static bool Setting(char* argument) {
  char* value = strchr(argument, '=');
  if (!value) return false;
  *value++ = 0;
  char* rest = value;
  uint64_t number = strtoull(value, &rest, 0);
  if (*rest == 'M') number <<= 20, rest++;
  if (strcmp(argument, "dir") == 0) {
    settings.directory = value;
    return true;
  }
  if (*rest || number == 0) return false;
  if (strcmp(argument, "mem") == 0)
    settings.memory_bytes = number;
  else if (strcmp(argument, "rate") == 0)
    settings.rate = number;
  else if (strcmp(argument, "late") == 0)
    settings.late_ns = number * 1000000;
  else
    return false;
  return true;
}

int main(int argc, char** argv) {
  if (argc == 3 && strcmp(argv[1], "verify-log") == 0) return VerifyLog(argv[2]);
  for (int i = 1; i < argc; i++) {
    if (!Setting(argv[i])) {
      fprintf(stderr,
              "usage: workload [dir=DIR] [mem=BYTES] [rate=N] [late=MS] | "
              "workload verify-log FILE\n");
      return 2;
    }
  }
  setvbuf(stdout, NULL, _IOLBF, 0);
  shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (shared == MAP_FAILED) return 1;
  self = &coordinator;
  MakeLinks();
  Start();
  printf("workload: start processes=%u\n", workers);
  Coordinate();
  bool failed = shared->failed;
  for (unsigned i = 0; i < workers; i++) {
    int status;
    if (pids[i] > 0 && (waitpid(pids[i], &status, 0) != pids[i] || status != 0)) failed = true;
  }
  printf("workload: stopped %s\n", failed ? "after a failure" : "ok");
  return failed;
}
