#include "tests/linux/vm_process.h"

#include <fcntl.h>
#include <poll.h>
#include <pty.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include <cstdlib>
#include <stdexcept>

namespace linux_tests {

VmProcess::VmProcess(const std::vector<std::string>& arguments, Input input, unsigned descriptors) {
  int in[2], out[2];  // [0] the child's end of the input, [1] ours
  bool made = input == Input::kPipe ? ::pipe2(in, O_CLOEXEC) == 0
                                    : ::openpty(&in[1], &in[0], nullptr, nullptr, nullptr) == 0;
  if (!made || ::pipe2(out, O_CLOEXEC) < 0) throw std::runtime_error("pipe or terminal");
  // The child's copy of the master would keep the terminal alive after us.
  ::fcntl(in[1], F_SETFD, FD_CLOEXEC);
  std::vector<char*> argv = {const_cast<char*>(MINIVMM_PROGRAM)};
  for (const std::string& argument : arguments) argv.push_back(const_cast<char*>(argument.c_str()));
  argv.push_back(nullptr);
  pid_ = ::fork();
  if (pid_ == 0) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);  // a test that dies leaves no machine behind
    if (input == Input::kTerminal) {
      ::setsid();
      ::ioctl(in[0], TIOCSCTTY, 0);
    }
    ::dup2(in[0], 0);
    ::dup2(out[1], 1);
    ::dup2(out[1], 2);
    const rlimit limit{descriptors, descriptors};
    if (descriptors > 0 && ::setrlimit(RLIMIT_NOFILE, &limit) < 0) ::_exit(127);
    ::execv(argv[0], argv.data());
    ::_exit(127);
  }
  ::close(in[0]);
  ::close(out[1]);
  input_ = base::Fd(in[1]);
  out_ = base::Fd(out[0]);
}

VmProcess::~VmProcess() {
  if (pid_ <= 0) return;
  ::kill(pid_, SIGKILL);
  ::waitpid(pid_, nullptr, 0);
}

bool VmProcess::read_more(std::chrono::steady_clock::time_point deadline) {
  auto left = std::chrono::duration_cast<std::chrono::milliseconds>(
      deadline - std::chrono::steady_clock::now());
  pollfd ready{out_.get(), POLLIN, 0};
  if (left.count() <= 0 || ::poll(&ready, 1, static_cast<int>(left.count())) <= 0) return false;
  char buffer[4096];
  ssize_t n = ::read(out_.get(), buffer, sizeof buffer);
  if (n <= 0) return false;
  output_.append(buffer, static_cast<size_t>(n));
  return true;
}

bool VmProcess::expect(std::string_view text, std::string_view unless) {
  auto deadline = std::chrono::steady_clock::now() + kPatience;
  for (;;) {
    size_t found = output_.find(text, seen_);
    if (!unless.empty() && output_.find(unless, seen_) < found) return false;
    if (found != std::string::npos) {
      seen_ = found + text.size();
      return true;
    }
    if (!read_more(deadline)) return false;
  }
}

void VmProcess::read_available() {
  pollfd ready{out_.get(), POLLIN, 0};
  while (::poll(&ready, 1, 0) > 0 &&
         read_more(std::chrono::steady_clock::now() + std::chrono::seconds(1))) {
  }
}

void VmProcess::send(std::string_view input) const {
  if (::write(input_.get(), input.data(), input.size()) != static_cast<ssize_t>(input.size())) {
    throw std::runtime_error("the machine takes no input");
  }
}

bool VmProcess::raw() const {
  termios settings{};
  if (::tcgetattr(input_.get(), &settings) < 0) throw std::runtime_error("no terminal");
  return (settings.c_lflag & (ICANON | ECHO | ISIG)) == 0;
}

void VmProcess::signal(int number) const { ::kill(pid_, number); }

std::optional<int> VmProcess::wait() {
  auto deadline = std::chrono::steady_clock::now() + kPatience;
  while (read_more(deadline)) {
  }
  if (std::chrono::steady_clock::now() >= deadline) return std::nullopt;
  int status = 0;
  ::waitpid(pid_, &status, 0);
  pid_ = -1;
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

Finished run_minivmm(const std::vector<std::string>& arguments) {
  VmProcess process(arguments);
  auto status = process.wait();
  return {status.value_or(-1), process.output()};
}

}  // namespace linux_tests
