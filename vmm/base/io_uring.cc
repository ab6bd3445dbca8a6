#include "vmm/base/io_uring.h"

#include <cerrno>
#include <iterator>
#include <string>

namespace base {
namespace {

struct NeededOperation {
  int code;
  const char* name;
};
constexpr NeededOperation kNeeded[] = {
    {IORING_OP_READV, "readv"},
    {IORING_OP_WRITEV, "writev"},
    {IORING_OP_FSYNC, "fsync"},
    {IORING_OP_FALLOCATE, "fallocate"},
};

std::unexpected<Error> not_available(int os_error) {
  std::string what = "io_uring is not available";
  switch (os_error) {
    case EPERM:
      what += " (set sysctl kernel.io_uring_disabled to 0, and let no seccomp filter forbid it)";
      break;
    case ENOSYS:
      what += " (Linux 5.6 or newer with CONFIG_IO_URING is needed, and no seccomp filter)";
      break;
    case ENOMEM:
      what += " (raise the limit of locked memory, ulimit -l)";
      break;
    case EMFILE:
      what += " (raise the limit of open files, ulimit -n)";
      break;
  }
  return fail(what, os_error);
}

}  // namespace

Result<std::unique_ptr<IoUring>> IoUring::create(unsigned entries) {
  TRY_ASSIGN(EventFd event, EventFd::create());
  std::unique_ptr<IoUring> ring(new IoUring(std::move(event)));
  if (int error = io_uring_queue_init(entries, &ring->ring_, 0); error < 0) {
    return not_available(-error);
  }
  ring->created_ = true;
  TRY(ring->check_features());
  if (int error = io_uring_register_eventfd(&ring->ring_, ring->event_.fd()); error < 0) {
    return fail("io_uring: register event descriptor", -error);
  }
  return ring;
}

Result<void> IoUring::check_features() {
  // Without NODROP (5.5) a full completion ring loses completions.
  if (!(ring_.features & IORING_FEAT_NODROP)) return not_available(ENOSYS);
  io_uring_probe* probe = io_uring_get_probe_ring(&ring_);
  if (!probe) return not_available(ENOSYS);
  const char* missing = nullptr;
  for (const NeededOperation& needed : kNeeded) {
    if (!io_uring_opcode_supported(probe, needed.code)) missing = needed.name;
  }
  io_uring_free_probe(probe);
  if (missing) {
    return fail(std::string("io_uring of this kernel has no ") + missing +
                ": Linux 5.6 or newer is needed");
  }
  return {};
}

IoUring::~IoUring() {
  if (!created_) return;
  while (wait_completion()) {
  }
  io_uring_queue_exit(&ring_);
}

Result<io_uring_sqe*> IoUring::free_entry() {
  io_uring_sqe* entry = io_uring_get_sqe(&ring_);
  if (!entry) {
    TRY(submit());
    entry = io_uring_get_sqe(&ring_);
  }
  if (!entry) return fail("io_uring is full", EBUSY);
  return entry;
}

void IoUring::take(Operation& operation, io_uring_sqe* entry) {
  assert(!operation.pending_);
  operation.pending_ = true;
  io_uring_sqe_set_data(entry, &operation);
  ++in_flight_;
}

Result<void> IoUring::prepare_readv(Operation& operation, int fd, std::span<const iovec> into,
                                    uint64_t offset) {
  TRY_ASSIGN(io_uring_sqe * entry, free_entry());
  io_uring_prep_readv(entry, fd, into.data(), static_cast<unsigned>(into.size()), offset);
  take(operation, entry);
  return {};
}

Result<void> IoUring::prepare_writev(Operation& operation, int fd, std::span<const iovec> from,
                                     uint64_t offset) {
  TRY_ASSIGN(io_uring_sqe * entry, free_entry());
  io_uring_prep_writev(entry, fd, from.data(), static_cast<unsigned>(from.size()), offset);
  take(operation, entry);
  return {};
}

Result<void> IoUring::prepare_fdatasync(Operation& operation, int fd) {
  TRY_ASSIGN(io_uring_sqe * entry, free_entry());
  io_uring_prep_fsync(entry, fd, IORING_FSYNC_DATASYNC);
  take(operation, entry);
  return {};
}

Result<void> IoUring::prepare_fallocate(Operation& operation, int fd, int mode, uint64_t offset,
                                        uint64_t length) {
  TRY_ASSIGN(io_uring_sqe * entry, free_entry());
  // By hand: liburing before 2.4 takes signed lengths of another type.
  io_uring_prep_rw(IORING_OP_FALLOCATE, entry, fd, nullptr, static_cast<unsigned>(mode), offset);
  entry->addr = length;
  take(operation, entry);
  return {};
}

Result<void> IoUring::submit() {
  while (io_uring_sq_ready(&ring_) > 0) {
    int result = io_uring_submit(&ring_);
    if (result > 0 || result == -EINTR) continue;
    if (result == 0 || result == -EAGAIN || result == -EBUSY) {
      event_.signal();
      return {};
    }
    return fail("io_uring: submit", -result);
  }
  return {};
}

IoUring::Operation* IoUring::next_completion() {
  io_uring_cqe* completion = nullptr;
  // Also fetches completions that found the ring full.
  if (io_uring_peek_cqe(&ring_, &completion) != 0 || !completion) return nullptr;
  auto* operation = static_cast<Operation*>(io_uring_cqe_get_data(completion));
  operation->result_ = completion->res;
  operation->pending_ = false;
  --in_flight_;
  io_uring_cqe_seen(&ring_, completion);
  return operation;
}

IoUring::Operation* IoUring::wait_completion() {
  while (in_flight_ > 0) {
    if (Operation* operation = next_completion()) return operation;
    // EAGAIN, EBUSY and EINTR go away by themselves; nothing else can be waited for.
    int result = io_uring_submit_and_wait(&ring_, 1);
    if (result < 0 && result != -EAGAIN && result != -EBUSY && result != -EINTR) break;
  }
  return nullptr;
}

}  // namespace base
