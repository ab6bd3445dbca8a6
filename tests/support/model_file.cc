#include "tests/support/model_file.h"

#include <cerrno>

namespace test {

using base::fail;
using base::Result;

ModelFile::ModelFile(ModelFileSystem& system, Inode inode, std::string name,
                     snapshot::Storage::Access access, snapshot::Storage::Caching caching)
    : system_(system),
      inode_(inode),
      name_(std::move(name)),
      writable_(access == snapshot::Storage::Access::kWrite),
      alignment_(caching == snapshot::Storage::Caching::kDirect ? system.alignment_ : 1) {
  ++system_.open_files_[inode_];
  heard_ = system_.failed_syncs_[inode_];
}

ModelFile::~ModelFile() {
  (void)unlock();
  std::lock_guard lock(system_.mutex_);
  system_.closed(inode_);
}

Result<void> ModelFile::check_writable(const char* what) const {
  if (!writable_) return fail(std::string("cannot ") + what + " " + name_, EBADF);
  return {};
}

Result<void> ModelFile::check_aligned(uint64_t offset, const void* memory, uint64_t length) const {
  if ((offset | length | reinterpret_cast<uintptr_t>(memory)) % alignment_ == 0) return {};
  system_.misuse_ = name_ + ": a transfer that is not aligned";
  return fail("cannot transfer " + name_, EINVAL);
}

int ModelFile::sync_error(const std::optional<Fault>& fault) const {
  uint64_t& failed = system_.failed_syncs_[inode_];
  if (fault) {
    ++failed;
    if (fault->drop_unsynced) system_.contents(inode_) = system_.synced_[inode_];
  }
  bool known = std::exchange(heard_, failed) == failed;
  if (fault) return fault->error;
  return known ? 0 : EIO;
}

Result<uint64_t> ModelFile::size() const {
  std::lock_guard lock(system_.mutex_);
  return system_.contents(inode_).size();
}

Result<void> ModelFile::read(uint64_t offset, std::span<std::byte> into) const {
  std::lock_guard lock(system_.mutex_);
  TRY(check_aligned(offset, into.data(), into.size()));
  if (auto fault = system_.fault(Call::kRead, name_)) {
    return fail("cannot read " + name_, fault->error);
  }
  const Contents& contents = system_.contents(inode_);
  if (offset > contents.size() || into.size() > contents.size() - offset) {
    return fail("cannot read " + name_ + ": end of file");
  }
  contents.read(offset, into);
  return {};
}

Result<void> ModelFile::write(uint64_t offset, std::span<const std::byte> from) {
  std::lock_guard lock(system_.mutex_);
  TRY(check_writable("write"));
  TRY(check_aligned(offset, from.data(), from.size()));
  if (from.empty()) return {};
  auto fault = system_.fault(Call::kWrite, name_);
  if (fault && fault->not_made) return fail("cannot write " + name_, fault->error);
  auto written = from;
  if (fault) written = from.first(fault->short_write ? from.size() / 2 : 0);
  if (auto done = system_.write(inode_, name_, offset, written); !done) return done;
  Event& event = system_.record(Event::Kind::kWrite, name_);
  event.inode = inode_;
  event.offset = offset;
  event.length = from.size();
  event.data = std::make_shared<std::vector<std::byte>>(from.begin(), from.end());
  event.failed = fault.has_value();
  if (fault) return fail("cannot write " + name_, fault->error);
  return {};
}

Result<void> ModelFile::truncate(uint64_t size) {
  std::lock_guard lock(system_.mutex_);
  TRY(check_writable("truncate"));
  if (auto fault = system_.fault(Call::kTruncate, name_)) {
    return fail("cannot truncate " + name_, fault->error);
  }
  system_.contents(inode_).resize(size);
  Event& event = system_.record(Event::Kind::kTruncate, name_);
  event.inode = inode_;
  event.offset = size;
  return {};
}

Result<void> ModelFile::allocate(uint64_t offset, uint64_t length) {
  std::lock_guard lock(system_.mutex_);
  TRY(check_writable("allocate"));
  return system_.allocate(inode_, name_, offset, length);
}

Result<void> ModelFile::punch(uint64_t offset, uint64_t length) {
  std::lock_guard lock(system_.mutex_);
  TRY(check_writable("punch"));
  return system_.punch(inode_, name_, offset, length);
}

Result<void> ModelFile::sync() {
  std::lock_guard lock(system_.mutex_);
  auto fault = system_.fault(Call::kSync, name_);
  if (fault && fault->not_made) return fail("cannot sync " + name_, fault->error);
  Event& event = system_.record(Event::Kind::kSync, name_);
  event.inode = inode_;
  if (int error = sync_error(fault); error != 0) {
    event.failed = true;
    return fail("cannot sync " + name_, error);
  }
  system_.synced_[inode_] = system_.contents(inode_);
  return {};
}

Result<bool> ModelFile::try_lock(Lock kind) {
  std::lock_guard lock(system_.mutex_);
  // fcntl(2): a write lock needs a descriptor open for writing.
  if (kind == Lock::kExclusive) TRY(check_writable("lock"));
  auto [first, last] = system_.locks_.equal_range(inode_);
  auto own = system_.locks_.end();
  for (auto held = first; held != last; ++held) {
    if (held->second.first == this) {
      own = held;
    } else if (kind == Lock::kExclusive || held->second.second == Lock::kExclusive) {
      return false;
    }
  }
  if (own != system_.locks_.end()) system_.locks_.erase(own);
  system_.locks_.emplace(inode_, std::pair(this, kind));
  return true;
}

Result<void> ModelFile::unlock() {
  std::lock_guard lock(system_.mutex_);
  std::erase_if(system_.locks_, [&](const auto& held) { return held.second.first == this; });
  return {};
}

}  // namespace test
