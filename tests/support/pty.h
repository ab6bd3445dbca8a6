// A pseudo terminal and a child process that has it as its controlling terminal and stdin.
#pragma once

#include <sys/types.h>
#include <termios.h>

#include <functional>
#include <string>

#include "vmm/base/fd.h"

namespace test {

class Pty {
 public:
  Pty();

  // Runs `body` in a child whose stdin is the terminal; the child ends with what it returns.
  pid_t spawn(const std::function<int()>& body);

  void type(const std::string& keys) const;
  // The settings of the terminal, seen from the other side.
  termios settings() const;
  bool raw() const { return (settings().c_lflag & (ICANON | ECHO | ISIG)) == 0; }
  // Waits until raw() is `wanted`.
  void wait_raw(bool wanted) const;

 private:
  base::Fd master_;
  base::Fd slave_;
};

// The status of a child that has ended, as waitpid gives it.
int wait_for(pid_t child);

}  // namespace test
