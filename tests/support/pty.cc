#include "tests/support/pty.h"

#include <pty.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>

namespace test {

Pty::Pty() {
  int master = -1;
  int slave = -1;
  if (::openpty(&master, &slave, nullptr, nullptr, nullptr) < 0) {
    std::perror("openpty");
    std::abort();
  }
  master_.reset(master);
  slave_.reset(slave);
}

pid_t Pty::spawn(const std::function<int()>& body) {
  pid_t child = ::fork();
  if (child != 0) return child;
  ::setsid();
  ::ioctl(slave_.get(), TIOCSCTTY, 0);
  ::dup2(slave_.get(), STDIN_FILENO);
  slave_.reset();
  master_.reset();
  std::exit(body());
}

void Pty::type(const std::string& keys) const {
  [[maybe_unused]] ssize_t written = ::write(master_.get(), keys.data(), keys.size());
}

termios Pty::settings() const {
  termios settings{};
  ::tcgetattr(master_.get(), &settings);
  return settings;
}

void Pty::wait_raw(bool wanted) const {
  while (raw() != wanted) ::usleep(1000);
}

int wait_for(pid_t child) {
  int status = 0;
  ::waitpid(child, &status, WUNTRACED);
  return status;
}

}  // namespace test
