// Runs a program and tells it when it was executed: the start of everything that is measured from
// exec on, and not with what it takes somebody to get there.
//
//   launch PROGRAM ARGUMENT…
//
// The program ends when this one is killed. EXEC_NS in its environment is CLOCK_MONOTONIC right
// before execve(2), in nanoseconds; of a program with bench/kvm_times.cc in it, KVM_TIMES tells it
// again. Ends when the program does, with its status.
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <vector>

int main(int argc, char** argv) {
  if (argc < 2) {
    std::fputs("usage: launch PROGRAM ARGUMENT...\n", stderr);
    return 2;
  }
  char exec_ns[64] = "";
  std::vector<char*> environment{exec_ns};
  for (char** entry = environ; *entry != nullptr; ++entry) environment.push_back(*entry);
  environment.push_back(nullptr);
  // As posix_spawn(3) does it: a copy of this process's memory would be the program's to throw
  // away.
  const pid_t child = ::vfork();
  if (child == 0) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    timespec now{};
    ::clock_gettime(CLOCK_MONOTONIC, &now);
    std::snprintf(exec_ns, sizeof exec_ns, "EXEC_NS=%ld%09ld", now.tv_sec, now.tv_nsec);
    ::execve(argv[1], argv + 1, environment.data());
    std::perror(argv[1]);
    ::_exit(127);
  }
  int status = 0;
  if (child < 0 || ::waitpid(child, &status, 0) < 0) {
    std::fprintf(stderr, "launch: %s: %s\n", argv[1], std::strerror(errno));
    return 1;
  }
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
