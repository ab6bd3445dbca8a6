// The store on a real file system: every name is opened below the store's directory, never through
// a symbolic link (openat2(2), Linux 5.6, as io_uring's operations need it too).
#include <fcntl.h>
#include <fmt/format.h>
#include <linux/openat2.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cassert>
#include <cerrno>
#include <deque>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "snapshot/storage.h"
#include "vmm/base/io_uring.h"
#include "vmm/base/path.h"

namespace snapshot {
namespace {

constexpr uint32_t kDirectAlignment = 4096;

base::Result<base::Fd> open_below(int directory, const std::string& name, uint64_t flags,
                                  uint64_t mode) {
  open_how how{};
  how.flags = flags | O_CLOEXEC;
  how.mode = mode;
  how.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS;
  long fd = -1;
  do {
    fd = syscall(SYS_openat2, directory, name.c_str(), &how, sizeof how);
  } while (fd < 0 && (errno == EINTR || errno == EAGAIN));  // EAGAIN: a rename got in between
  if (fd < 0) return base::fail_errno(name);
  return base::Fd(static_cast<int>(fd));
}

class PosixFile : public File {
 public:
  PosixFile(base::Fd fd, std::string name, std::string path, uint32_t alignment)
      : fd_(std::move(fd)), name_(std::move(name)), path_(std::move(path)), alignment_(alignment) {}

  int fd() const { return fd_.get(); }
  const std::string& name() const override { return name_; }
  uint32_t alignment() const override { return alignment_; }

  base::Result<uint64_t> size() const override {
    struct stat status;
    if (fstat(fd(), &status) != 0) return error("size");
    return static_cast<uint64_t>(status.st_size);
  }

  base::Result<uint64_t> disk_bytes() const override {
    constexpr uint64_t kUnit = 512;  // stat(2)
    struct stat status;
    if (fstat(fd(), &status) != 0) return error("size");
    return static_cast<uint64_t>(status.st_blocks) * kUnit;
  }

  base::Result<uint64_t> modified_ns() const override {
    struct stat status;
    if (fstat(fd(), &status) != 0) return error("time of modification");
    return static_cast<uint64_t>(status.st_mtim.tv_sec) * 1'000'000'000 +
           static_cast<uint64_t>(status.st_mtim.tv_nsec);
  }

  base::Result<void> read(uint64_t offset, std::span<std::byte> into) const override {
    return named(base::read_exact(fd(), into.data(), into.size(), offset));
  }
  void will_need(uint64_t offset, uint64_t length) const override {
    ::posix_fadvise(fd_.get(), static_cast<off_t>(offset), static_cast<off_t>(length),
                    POSIX_FADV_WILLNEED);
  }
  base::Result<void> write(uint64_t offset, std::span<const std::byte> from) override {
    return named(base::write_exact(fd(), from.data(), from.size(), offset));
  }
  base::Result<void> truncate(uint64_t size) override {
    if (ftruncate(fd(), static_cast<off_t>(size)) != 0) return error("set length");
    return {};
  }

  base::Result<void> allocate(uint64_t offset, uint64_t length) override {
    // Without fallocate (NFS) a full disk is met by the writes.
    if (int code = fallocate_here(FALLOC_FL_KEEP_SIZE, offset, length);
        code != 0 && code != EOPNOTSUPP) {
      return base::fail(path_ + ": allocate space", code);
    }
    return {};
  }
  base::Result<void> punch(uint64_t offset, uint64_t length) override {
    if (int code = fallocate_here(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, length);
        code != 0) {
      return base::fail(path_ + ": punch a hole", code);
    }
    return {};
  }

  base::Result<void> sync() override {
    if (fdatasync(fd()) != 0) return error("fdatasync");
    return {};
  }

  base::Result<bool> try_lock(Lock mode) override {
    return set_lock(mode == Lock::kShared ? F_RDLCK : F_WRLCK);
  }
  base::Result<void> unlock() override {
    TRY(set_lock(F_UNLCK));
    return {};
  }

 private:
  std::unexpected<base::Error> error(const char* what) const {
    return base::fail_errno(path_ + ": " + what);
  }
  base::Result<void> named(base::Result<void> result) const {
    if (!result) return std::unexpected(result.error().with(path_));
    return {};
  }
  // 0 or errno.
  int fallocate_here(int mode, uint64_t offset, uint64_t length) const {
    int result = -1;
    do {
      result = fallocate(fd(), mode, static_cast<off_t>(offset), static_cast<off_t>(length));
    } while (result != 0 && errno == EINTR);
    return result == 0 ? 0 : errno;
  }
  base::Result<bool> set_lock(short type) {
    struct flock lock{};
    lock.l_type = type;
    lock.l_whence = SEEK_SET;
    if (fcntl(fd(), F_OFD_SETLK, &lock) == 0) return true;
    if (errno == EAGAIN || errno == EACCES) return false;
    return error("lock");
  }

  const base::Fd fd_;
  const std::string name_, path_;
  const uint32_t alignment_;
};

// Rings that a queue leaves to the next one (capture.h says why): all but large ones have the same
// size, so that each will do for the next. They are of one process: one that was forked has none.
class IdleRings {
 public:
  struct Ring {
    unsigned entries = 0;
    pid_t process = 0;
    std::unique_ptr<base::IoUring> ring;
  };
  base::Result<Ring> take(unsigned entries) {
    if (entries <= kEntries) {
      entries = kEntries;
      std::lock_guard lock(mutex_);
      std::erase_if(rings_, [](const Ring& ring) { return ring.process != ::getpid(); });
      if (!rings_.empty()) {
        Ring ring = std::move(rings_.back());
        rings_.pop_back();
        return ring;
      }
    }
    TRY_ASSIGN(auto ring, base::IoUring::create(entries));
    return Ring{entries, ::getpid(), std::move(ring)};
  }
  // Nothing of it may be in flight.
  void leave(Ring ring) {
    std::lock_guard lock(mutex_);
    const bool kept = ring.entries == kEntries && ring.process == ::getpid();
    if (!kept || rings_.size() >= kMost) return;
    ring.ring->event().consume();
    rings_.push_back(std::move(ring));
  }

 private:
  // Of a snapshot: one for its pages, one for what makes it durable.
  static constexpr size_t kMost = 2;
  static constexpr unsigned kEntries = 32;
  std::mutex mutex_;
  std::vector<Ring> rings_;
};

class PosixQueue : public IoQueue {
 public:
  PosixQueue(IdleRings::Ring ring, std::shared_ptr<IdleRings> idle)
      : own_(std::move(ring)), idle_(std::move(idle)), ring_(own_.ring.get()) {}
  ~PosixQueue() override {
    while (wait_completion()) {
    }
    if (ring_->in_flight() == 0) idle_->leave(std::move(own_));
  }

  base::Result<void> readv(Operation& operation, File& file, std::span<const iovec> into,
                           uint64_t offset) override {
    return start(operation, [&](base::IoUring::Operation& own) {
      return ring_->prepare_readv(own, fd_of(file), into, offset);
    });
  }
  base::Result<void> writev(Operation& operation, File& file, std::span<const iovec> from,
                            uint64_t offset) override {
    return start(operation, [&](base::IoUring::Operation& own) {
      return ring_->prepare_writev(own, fd_of(file), from, offset);
    });
  }
  base::Result<void> sync(Operation& operation, File& file) override {
    return start(operation, [&](base::IoUring::Operation& own) {
      return ring_->prepare_fdatasync(own, fd_of(file));
    });
  }
  base::Result<void> allocate(Operation& operation, File& file, uint64_t offset,
                              uint64_t length) override {
    return start(operation, [&](base::IoUring::Operation& own) {
      return ring_->prepare_fallocate(own, fd_of(file), FALLOC_FL_KEEP_SIZE, offset, length);
    });
  }
  base::Result<void> punch(Operation& operation, File& file, uint64_t offset,
                           uint64_t length) override {
    return start(operation, [&](base::IoUring::Operation& own) {
      return ring_->prepare_fallocate(own, fd_of(file), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                                      offset, length);
    });
  }

  base::Result<void> submit() override { return ring_->submit(); }
  Operation* next_completion() override { return complete(ring_->next_completion()); }
  Operation* wait_completion() override { return complete(ring_->wait_completion()); }
  base::EventFd& event() override { return ring_->event(); }
  unsigned in_flight() const override { return ring_->in_flight(); }

 private:
  struct Started : base::IoUring::Operation {
    IoQueue::Operation* operation = nullptr;
  };

  static int fd_of(const File& file) { return static_cast<const PosixFile&>(file).fd(); }

  template <typename Prepare>
  base::Result<void> start(Operation& operation, Prepare prepare) {
    assert(!operation.pending);
    if (free_.empty()) free_.push_back(&all_.emplace_back());
    Started* started = free_.back();
    TRY(prepare(*started));
    free_.pop_back();
    started->operation = &operation;
    operation.pending = true;
    return {};
  }

  Operation* complete(base::IoUring::Operation* done) {
    if (!done) return nullptr;
    auto* started = static_cast<Started*>(done);
    Operation* operation = started->operation;
    operation->result = started->result();
    operation->pending = false;
    free_.push_back(started);
    return operation;
  }

  std::deque<Started> all_;
  std::vector<Started*> free_;
  IdleRings::Ring own_;  // ends before what it works for
  const std::shared_ptr<IdleRings> idle_;
  base::IoUring* const ring_;
};

class PosixStorage : public Storage {
 public:
  PosixStorage(base::Fd directory, std::string path)
      : directory_(std::move(directory)), path_(std::move(path)) {}

  const std::string& path() const override { return path_; }

  base::Result<std::unique_ptr<File>> create(const std::string& name, Caching caching) override {
    return open_file(name, O_RDWR | O_CREAT | O_EXCL, 0600, caching);
  }

  base::Result<std::unique_ptr<File>> open(const std::string& name, Access access,
                                           Caching caching) override {
    return open_file(name, access == Access::kWrite ? O_RDWR : O_RDONLY, 0, caching);
  }

  // rename(2) and unlink(2) do not follow their last part; the directories before it are
  // opened by themselves.
  base::Result<void> rename(const std::string& from, const std::string& to) override {
    TRY_ASSIGN(Place old_place, place(from));
    TRY_ASSIGN(Place new_place, place(to));
    if (renameat(old_place.directory.get(), old_place.name.c_str(), new_place.directory.get(),
                 new_place.name.c_str()) != 0) {
      return base::fail_errno(fmt::format("rename {} to {}", full(from), to));
    }
    return {};
  }
  base::Result<void> remove(const std::string& name) override {
    TRY_ASSIGN(Place where, place(name));
    if (unlinkat(where.directory.get(), where.name.c_str(), 0) != 0) {
      return base::fail_errno("remove " + full(name));
    }
    return {};
  }
  base::Result<void> make_directory(const std::string& name) override {
    TRY_ASSIGN(Place where, place(name));
    if (mkdirat(where.directory.get(), where.name.c_str(), 0700) != 0 && errno != EEXIST) {
      return base::fail_errno("make directory " + full(name));
    }
    return {};
  }

  base::Result<std::vector<std::string>> list(const std::string& directory) override {
    TRY_ASSIGN(base::Fd fd, open_directory(directory));
    auto names = base::names_in(std::move(fd));
    if (!names) return std::unexpected(names.error().with(full(directory)));
    return names;
  }

  base::Result<bool> exists(const std::string& name) override {
    TRY_ASSIGN(Place where, place(name));
    struct stat status;
    if (fstatat(where.directory.get(), where.name.c_str(), &status, AT_SYMLINK_NOFOLLOW) == 0) {
      return true;
    }
    if (errno == ENOENT) return false;
    return base::fail_errno(full(name));
  }

  base::Result<void> sync_directory(const std::string& name) override {
    TRY_ASSIGN(base::Fd fd, open_directory(name));
    if (fsync(fd.get()) != 0) return base::fail_errno("fsync " + full(name));
    return {};
  }

  base::Result<uint64_t> free_bytes() override {
    struct statvfs status;
    if (fstatvfs(directory_.get(), &status) != 0) return base::fail_errno(path_);
    return static_cast<uint64_t>(status.f_bavail) * status.f_frsize;
  }

  base::Result<std::unique_ptr<IoQueue>> make_queue(unsigned entries) override {
    TRY_ASSIGN(auto ring, idle_rings_->take(entries));
    return std::make_unique<PosixQueue>(std::move(ring), idle_rings_);
  }

 private:
  struct Place {
    base::Fd directory;
    std::string name;
  };

  std::string full(const std::string& name) const { return path_ + "/" + name; }

  base::Result<base::Fd> open_directory(const std::string& name) const {
    auto fd = open_below(directory_.get(), name, O_RDONLY | O_DIRECTORY, 0);
    if (!fd) return std::unexpected(fd.error().with(path_));
    return fd;
  }

  base::Result<Place> place(const std::string& name) const {
    size_t slash = name.rfind('/');
    std::string last = slash == std::string::npos ? name : name.substr(slash + 1);
    if (last.empty() || last == "." || last == "..") return base::fail(full(name), EINVAL);
    TRY_ASSIGN(base::Fd directory,
               open_directory(slash == std::string::npos ? "." : name.substr(0, slash)));
    return Place{std::move(directory), std::move(last)};
  }

  base::Result<std::unique_ptr<File>> open_file(const std::string& name, int flags, unsigned mode,
                                                Caching caching) const {
    // O_NONBLOCK: a FIFO in a store from elsewhere does not hold us up.
    const auto plain = static_cast<uint64_t>(flags | O_NOFOLLOW | O_NONBLOCK);
    uint32_t alignment = caching == Caching::kDirect ? kDirectAlignment : 1;
    auto fd = open_below(directory_.get(), name, plain | (alignment > 1 ? O_DIRECT : 0), mode);
    if (!fd && alignment > 1 && fd.error().os_error() == EINVAL) {
      // No direct access on this file system. A file that was to be made may be there by now.
      alignment = 1;
      fd = open_below(directory_.get(), name, plain & ~static_cast<uint64_t>(O_EXCL), mode);
    }
    if (!fd) return std::unexpected(fd.error().with(path_));
    struct stat status;
    if (fstat(fd->get(), &status) != 0) return base::fail_errno(full(name));
    if (!S_ISREG(status.st_mode)) return base::fail(full(name) + " is not a regular file");
    return std::make_unique<PosixFile>(std::move(*fd), name, full(name), alignment);
  }

  const base::Fd directory_;
  const std::string path_;
  const std::shared_ptr<IdleRings> idle_rings_ = std::make_shared<IdleRings>();
};

}  // namespace

base::Result<std::unique_ptr<Storage>> open_storage(const std::string& path) {
  TRY_ASSIGN(base::Fd directory, base::open_file(path, O_RDONLY | O_DIRECTORY));
  return std::make_unique<PosixStorage>(std::move(directory), path);
}

}  // namespace snapshot
