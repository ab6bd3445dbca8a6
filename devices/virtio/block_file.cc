#include "devices/virtio/block_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <string_view>
#include <thread>

namespace virtio {

using base::fail;
using base::fail_errno;
using base::Result;

namespace {

constexpr std::chrono::seconds kLockPatience{1};

Result<bool> is_block_device(const std::string& path, const struct stat& status) {
  if (S_ISREG(status.st_mode)) return false;
  if (S_ISBLK(status.st_mode)) return true;
  if (S_ISDIR(status.st_mode)) {
    return fail(fmt::format("disk {} is a directory: give an image file or a block device", path));
  }
  return fail(fmt::format("disk {} is neither a regular file nor a block device", path));
}

Result<base::Fd> open_disk(const std::string& path, bool read_only, bool block_device) {
  int flags = read_only ? O_RDONLY : O_RDWR;
  // On a block device O_EXCL keeps us off one that the host has mounted, and finds another machine
  // before the lock does.
  if (!read_only && block_device) flags |= O_EXCL;
  auto fd = base::open_file(path, flags);
  if (fd) return fd;
  int os_error = fd.error().os_error();
  if (os_error == EBUSY) {
    return fail(
        fmt::format("disk {} is in use, mounted on this host or by another machine: unmount it or "
                    "stop that machine",
                    path));
  }
  if (!read_only && (os_error == EROFS || os_error == EACCES || os_error == EPERM) &&
      ::access(path.c_str(), R_OK) == 0) {
    return fail(fmt::format("disk {} is read-only: add ,ro", path));
  }
  return std::unexpected(fd.error().with("disk"));
}

// How files begin that are easily taken for raw images, and hold something else.
struct Format {
  std::string_view name;
  size_t offset;
  std::string_view magic;
  bool compressed;
};
constexpr std::array kFormats{
    Format{"qcow2", 0, "QFI\xfb", false},
    Format{"VMDK", 0, "KDMV", false},
    Format{"VMDK", 0, "# Disk Descriptor", false},
    Format{"VDI", 64, "\x7f\x10\xda\xbe", false},
    Format{"VHDX", 0, "vhdxfile", false},
    Format{"VHD", 0, "conectix", false},
    Format{"gzip", 0, "\x1f\x8b\x08", true},
    Format{"xz", 0,
           "\xfd"
           "7zXZ",
           true},
    Format{"zstd", 0, "\x28\xb5\x2f\xfd", true},
    Format{"bzip2", 0, "BZh", true},
};

}  // namespace

Result<BlockFile> BlockFile::open(const Options& options) {
  const std::string& path = options.path;
  struct stat status;
  // Looked at before it is opened: opening a FIFO would wait for its other end.
  if (::stat(path.c_str(), &status) < 0) return fail_errno("disk " + path);
  TRY_ASSIGN(bool block_device, is_block_device(path, status));

  BlockFile file;
  file.read_only_ = options.read_only;
  TRY_ASSIGN(file.fd_, open_disk(path, options.read_only, block_device));
  TRY(file.lock(path));

  if (::fstat(file.fd(), &status) < 0) return fail_errno("disk " + path);
  file.size_ = static_cast<uint64_t>(status.st_size);
  if (block_device) {
    int read_only = 0;
    if (::ioctl(file.fd(), BLKGETSIZE64, &file.size_) < 0) return fail_errno("size of " + path);
    if (::ioctl(file.fd(), BLKROGET, &read_only) == 0 && read_only && !options.read_only) {
      return fail(fmt::format("disk {} is read-only: add ,ro", path));
    }
  }
  TRY(file.check_content(path, block_device || options.raw));
  file.choose_access(options.access);
  if (!file.read_only_) {
    // Asked past the end, where there is nothing to give back. On a block device the kernel
    // refuses that; there the first request tells.
    uint64_t end = (file.size_ + 4095) / 4096 * 4096;
    file.can_punch_ =
        block_device || ::fallocate(file.fd(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                                    static_cast<off_t>(end), 4096) == 0;
  }
  return file;
}

BlockFile BlockFile::adopt(base::Fd fd, uint64_t size, bool read_only, bool direct) {
  BlockFile file;
  file.fd_ = std::move(fd);
  file.size_ = size / kSectorBytes * kSectorBytes;
  file.read_only_ = read_only;
  file.direct_ = direct;
  file.can_punch_ = !read_only;
  return file;
}

Result<void> BlockFile::lock(const std::string& path) {
  // Of the open file description: it ends with the last descriptor, however the process ends, and
  // two disks of one process exclude each other as well.
  struct flock lock{};
  lock.l_type = read_only_ ? F_RDLCK : F_WRLCK;
  lock.l_whence = SEEK_SET;
  // A process that was killed leaves its files open a moment longer than it lives: until the kernel
  // has taken its io_uring apart.
  const auto end = std::chrono::steady_clock::now() + kLockPatience;
  do {
    if (::fcntl(fd(), F_OFD_SETLK, &lock) == 0) return {};
    if (errno != EAGAIN && errno != EACCES) return fail_errno("lock disk " + path);
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  } while (std::chrono::steady_clock::now() < end);
  return fail(fmt::format(
      "disk {} is in use by another machine (stop it, or copy the disk), or given twice{}", path,
      read_only_ ? "" : ", or add ,ro to every use of it"));
}

Result<void> BlockFile::share() {
  struct flock lock{};
  lock.l_type = F_RDLCK;
  lock.l_whence = SEEK_SET;
  if (::fcntl(fd(), F_OFD_SETLK, &lock) < 0) return fail_errno("share the lock of a disk");
  return {};
}

Result<void> BlockFile::check_content(const std::string& path, bool surely_raw) {
  if (size_ == 0) {
    return fail(fmt::format("disk {} is empty: truncate -s 1G {} makes it 1 GiB", path, path));
  }
  if (!surely_raw) TRY(check_format(path));
  if (size_ % kSectorBytes != 0) {
    return fail(
        fmt::format("disk {} has {} bytes, not a multiple of {}: is it a raw image? "
                    "(truncate -s %{} {} pads it)",
                    path, size_, kSectorBytes, kSectorBytes, path));
  }
  return {};
}

Result<void> BlockFile::check_format(const std::string& path) {
  char start[kSectorBytes] = {};
  ssize_t count = ::pread(fd(), start, sizeof start, 0);
  if (count < 0) return fail_errno("read disk " + path);
  for (const Format& format : kFormats) {
    if (!std::string_view(start, sizeof start).substr(format.offset).starts_with(format.magic))
      continue;
    if (format.compressed) {
      return fail(fmt::format(
          "disk {} is compressed with {}: unpack it first, or add ,raw where it only begins so",
          path, format.name));
    }
    return fail(
        fmt::format("disk {} is a {} image, not a raw one: qemu-img convert -O raw makes one; or "
                    "add ,raw where it only begins so",
                    path, format.name));
  }
  return {};
}

// Direct access pays for a disk that is written: fio on ext4, io_uring, buffered against direct,
// fsync at the end: 1 MiB writes 280 against 2443 MB/s, 1 MiB reads 788 against 1040 MB/s with a
// sixth of the CPU time, 4 KiB random reads 43,000 against 48,000 a second, 4 KiB random writes
// 44,000 against 33,000 (the page cache merges them). A read-only disk is likely to be shared by
// many machines, and then one copy in the page cache serves them all.
void BlockFile::choose_access(Access wanted) {
  if (wanted == Access::kBuffered || (wanted == Access::kAutomatic && read_only_)) return;
  int flags = ::fcntl(fd(), F_GETFL);
  if (flags < 0 || ::fcntl(fd(), F_SETFL, flags | O_DIRECT) < 0) return;
  // Direct access to single sectors or none at all: with larger blocks some requests would have to
  // go through the page cache, and a buffered write beside a direct one to the same page can bring
  // old data back.
  alignas(2 * kSectorBytes) std::byte sectors[2 * kSectorBytes];
  direct_ = ::pread(fd(), sectors + kSectorBytes, kSectorBytes, 0) == kSectorBytes;
  if (!direct_) ::fcntl(fd(), F_SETFL, flags);
}

}  // namespace virtio
