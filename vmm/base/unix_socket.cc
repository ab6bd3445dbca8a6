#include "vmm/base/unix_socket.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

namespace base {
namespace {

Result<sockaddr_un> address_of(const std::string& path) {
  if (path.empty() || path.size() > kMaxUnixPath) {
    return fail("socket path '" + path + "' must have 1 to " + std::to_string(kMaxUnixPath) +
                " characters: choose a shorter one");
  }
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, path.data(), path.size());
  return address;
}

Result<Fd> stream_socket() {
  Fd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!fd) return fail_errno("create a Unix socket");
  return fd;
}

// Makes room at `path` for a socket of ours.
Result<void> remove_stale(const std::string& path) {
  struct stat info{};
  if (::lstat(path.c_str(), &info) < 0) {
    if (errno == ENOENT) return {};
    return fail_errno("stat " + path);
  }
  if (!S_ISSOCK(info.st_mode)) {
    return fail(path + " exists and is not a socket: remove it or choose another path");
  }
  auto live = connect_unix(path);
  if (live || live.error().os_error() == EAGAIN) {
    return fail("another process listens on " + path + ": stop it or choose another path");
  }
  if (live.error().os_error() != ECONNREFUSED) return std::unexpected(std::move(live).error());
  if (::unlink(path.c_str()) < 0 && errno != ENOENT) return fail_errno("remove stale " + path);
  return {};
}

Result<Fd> spare_descriptor() { return open_file("/dev/null", O_RDONLY); }

}  // namespace

Result<UnixListener> UnixListener::create(const std::string& path) {
  TRY_ASSIGN(UnixListener listener, bind(path));
  TRY(listener.listen());
  return listener;
}

Result<UnixListener> UnixListener::bind(const std::string& path) {
  TRY_ASSIGN(sockaddr_un address, address_of(path));
  TRY_ASSIGN(Fd spare, spare_descriptor());
  TRY(remove_stale(path));
  TRY_ASSIGN(Fd fd, stream_socket());
  // The mode of the socket becomes the file's: nobody else gets in between bind and a chmod.
  if (::fchmod(fd.get(), 0600) < 0) return fail_errno("set the mode of " + path);
  if (::bind(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) < 0) {
    return fail_errno("create socket " + path);
  }
  struct stat info{};
  if (::lstat(path.c_str(), &info) < 0) return fail_errno("stat " + path);
  return UnixListener(std::move(fd), std::move(spare), path, info.st_dev, info.st_ino);
}

UnixListener::~UnixListener() {
  if (socket_ && file_is_ours()) ::unlink(path_.c_str());  // else moved from, or replaced
}

bool UnixListener::file_is_ours() const {
  struct stat info{};
  return ::lstat(path_.c_str(), &info) == 0 && info.st_dev == device_ && info.st_ino == inode_;
}

Result<void> UnixListener::listen() {
  if (::listen(socket_.get(), SOMAXCONN) < 0) return fail_errno("listen on " + path_);
  // From here on nobody takes it for a dead one.
  if (!file_is_ours()) return fail(path_ + " was removed or replaced by another process");
  return {};
}

Result<Fd> UnixListener::accept() {
  int fd = ::accept4(socket_.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
  if (fd >= 0) return Fd(fd);
  auto error = fail_errno("accept on " + path_);
  if ((error.error().os_error() == EMFILE || error.error().os_error() == ENFILE) && spare_) {
    spare_.reset();
    ::close(::accept4(socket_.get(), nullptr, nullptr, SOCK_CLOEXEC));
    if (auto spare = spare_descriptor()) spare_ = std::move(*spare);
  }
  return error;
}

Result<Fd> connect_unix(const std::string& path) {
  TRY_ASSIGN(sockaddr_un address, address_of(path));
  TRY_ASSIGN(Fd fd, stream_socket());
  // A Unix stream socket never answers EINPROGRESS: it connects, or not, at once.
  if (::connect(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) < 0) {
    return fail_errno("connect to " + path);
  }
  return fd;
}

}  // namespace base
