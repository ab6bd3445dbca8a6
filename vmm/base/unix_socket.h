// Unix stream sockets by path, non-blocking: the listening side with its file, and connecting.
// Used by devices and the control server, each on its own thread.
#pragma once

#include <sys/types.h>

#include <string>

#include "vmm/base/fd.h"
#include "vmm/base/result.h"

namespace base {

// The longest path a socket address holds (unix(7)), without the terminating zero.
inline constexpr size_t kMaxUnixPath = 107;

// A socket and its file, mode 0600, which goes when the listener does.
class UnixListener {
 public:
  // Bound, and listening. A file left behind by a process that is gone is replaced. Refused: one
  // that somebody listens on, and anything that is not a socket.
  static Result<UnixListener> create(const std::string& path);
  // Until listen() nobody can connect: ECONNREFUSED, as from one that is left behind.
  static Result<UnixListener> bind(const std::string& path);

  UnixListener(UnixListener&& other) noexcept = default;
  UnixListener& operator=(UnixListener&&) = delete;
  ~UnixListener();

  int fd() const { return socket_.get(); }
  const std::string& path() const { return path_; }
  // An error where somebody took the file for one that is left behind.
  Result<void> listen();
  // The next client, non-blocking; os_error() EAGAIN where none waits.
  Result<Fd> accept();

 private:
  UnixListener(Fd socket, Fd spare, std::string path, dev_t device, ino_t inode)
      : socket_(std::move(socket)),
        spare_(std::move(spare)),
        path_(std::move(path)),
        device_(device),
        inode_(inode) {}
  bool file_is_ours() const;

  Fd socket_;
  // Held for the moment when no descriptor is left: given up to accept a client and turn it away,
  // who would otherwise keep the socket readable for ever.
  Fd spare_;
  std::string path_;
  dev_t device_;  // of our file: another one at the same path is not ours to remove
  ino_t inode_;
};

// Connects to `path`, never waiting: os_error() is EAGAIN where the listener's queue is full,
// ECONNREFUSED or ENOENT where nobody listens.
Result<Fd> connect_unix(const std::string& path);

}  // namespace base
