#include "snapshot/userfault.h"

#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>

#include "snapshot/types.h"

namespace snapshot {

using base::fail;
using base::fail_errno;
using base::Result;

namespace {

// Not in every <linux/userfaultfd.h>: since 6.1.
#ifndef USERFAULTFD_IOC_NEW
#define USERFAULTFD_IOC_NEW _IO(0xAA, 0x00)
#endif

base::Fd open_userfault() {
  base::Fd device(::open("/dev/userfaultfd", O_RDWR | O_CLOEXEC));
  if (device) {
    base::Fd fd(::ioctl(device.get(), USERFAULTFD_IOC_NEW, O_CLOEXEC | O_NONBLOCK));
    if (fd) return fd;
  }
  return base::Fd(static_cast<int>(::syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK)));
}

}  // namespace

Result<Userfault> Userfault::create() {
  base::Fd fd = open_userfault();
  if (!fd) {
    if (errno == EPERM || errno == EACCES) {
      return fail(
          "userfaultfd is not permitted: give access to /dev/userfaultfd, or set sysctl "
          "vm.unprivileged_userfaultfd to 1, or restore with --eager");
    }
    return fail_errno("userfaultfd");
  }
  uffdio_api api{};
  api.api = UFFD_API;
  api.features = UFFD_FEATURE_EVENT_REMOVE;
  if (::ioctl(fd.get(), UFFDIO_API, &api) < 0) return fail_errno("UFFDIO_API");
  return Userfault(std::move(fd));
}

Result<void> Userfault::watch(std::byte* start, uint64_t bytes) {
  // Where huge pages are wanted the kernel (6.18) first makes and zeroes one, and then finds that
  // somebody is to be asked: 0.2 ms for the first wait in each 2 MiB.
  ::madvise(start, bytes, MADV_NOHUGEPAGE);
  uffdio_register range{};
  range.range = {reinterpret_cast<uint64_t>(start), bytes};
  range.mode = UFFDIO_REGISTER_MODE_MISSING;
  if (::ioctl(fd_.get(), UFFDIO_REGISTER, &range) < 0) return fail_errno("UFFDIO_REGISTER");
  return {};
}

Result<void> Userfault::unwatch(std::byte* start, uint64_t bytes) {
  uffdio_range range{reinterpret_cast<uint64_t>(start), bytes};
  if (::ioctl(fd_.get(), UFFDIO_UNREGISTER, &range) < 0) return fail_errno("UFFDIO_UNREGISTER");
  ::madvise(start, bytes, MADV_HUGEPAGE);
  return {};
}

Result<Userfault::Event> Userfault::next() const {
  uffd_msg message;
  ssize_t size = ::read(fd_.get(), &message, sizeof message);
  if (size < 0) {
    if (errno == EAGAIN || errno == EINTR) return Event{};
    return fail_errno("read of userfaultfd");
  }
  if (size != sizeof message) return fail("userfaultfd gives half a message");
  switch (message.event) {
    case UFFD_EVENT_PAGEFAULT: {
      uint64_t page = message.arg.pagefault.address & ~(kPageBytes - 1);
      return Event{Event::Kind::kMissing, reinterpret_cast<std::byte*>(page), kPageBytes};
    }
    case UFFD_EVENT_REMOVE:
      return Event{Event::Kind::kRemoved, reinterpret_cast<std::byte*>(message.arg.remove.start),
                   message.arg.remove.end - message.arg.remove.start};
    default:
      return fail("userfaultfd gives an event that nobody asked for");
  }
}

Result<void> Userfault::wake(std::byte* start, uint64_t bytes) const {
  uffdio_range range{reinterpret_cast<uint64_t>(start), bytes};
  if (::ioctl(fd_.get(), UFFDIO_WAKE, &range) < 0) return fail_errno("UFFDIO_WAKE");
  return {};
}

Result<uint64_t> Userfault::copy(std::byte* to, const std::byte* from, uint64_t bytes) const {
  uint64_t done = 0;
  while (done < bytes) {
    uffdio_copy request{};
    request.dst = reinterpret_cast<uint64_t>(to + done);
    request.src = reinterpret_cast<uint64_t>(from + done);
    request.len = bytes - done;
    if (::ioctl(fd_.get(), UFFDIO_COPY, &request) == 0) return bytes;
    int error = errno;
    if (request.copy > 0) {
      done += static_cast<uint64_t>(request.copy);
    } else if (error == EAGAIN) {
      break;
    } else if (error == EEXIST) {
      TRY(wake(to + done, kPageBytes));
      done += kPageBytes;
    } else {
      return fail("UFFDIO_COPY", error);
    }
  }
  return done;
}

}  // namespace snapshot
