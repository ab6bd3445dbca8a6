// File descriptors that close themselves, and the event descriptors built on them.
#pragma once

#include <cstdint>
#include <string>
#include <utility>

#include "vmm/base/result.h"

namespace base {

// Owns one descriptor. Movable; -1 means none.
class Fd {
 public:
  Fd() = default;
  explicit Fd(int fd) : fd_(fd) {}
  Fd(Fd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Fd& operator=(Fd&& other) noexcept {
    if (this != &other) reset(std::exchange(other.fd_, -1));
    return *this;
  }
  ~Fd() { reset(); }

  int get() const { return fd_; }
  explicit operator bool() const { return fd_ >= 0; }
  int release() { return std::exchange(fd_, -1); }
  void reset(int fd = -1);

 private:
  int fd_ = -1;
};

// open(2) with O_CLOEXEC; the error names the path.
Result<Fd> open_file(const std::string& path, int flags, unsigned mode = 0600);

// Reads or writes all `size` bytes at `offset`, retrying short transfers and EINTR. A read that
// meets the end of the file is an error.
Result<void> read_exact(int fd, void* data, uint64_t size, uint64_t offset);
Result<void> write_exact(int fd, const void* data, uint64_t size, uint64_t offset);

// eventfd(2), non-blocking. signal() may be called from any thread and never blocks.
class EventFd {
 public:
  static Result<EventFd> create();
  int fd() const { return fd_.get(); }
  void signal() const;
  // Clears the count; true where it was not zero.
  bool consume() const;

 private:
  explicit EventFd(Fd fd) : fd_(std::move(fd)) {}
  Fd fd_;
};

}  // namespace base
