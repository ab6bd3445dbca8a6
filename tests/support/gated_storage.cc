#include "tests/support/gated_storage.h"

#include <pthread.h>

#include <array>
#include <chrono>

#include "tests/support/forwarding_storage.h"

namespace test {
namespace {

using base::Result;
using snapshot::File;

class GatedFile : public ForwardingFile {
 public:
  GatedFile(std::unique_ptr<File> beneath, Gate& gate)
      : ForwardingFile(std::move(beneath)), gate_(gate) {}
  Result<void> read(uint64_t offset, std::span<std::byte> into) const override {
    gate_.pass();
    return ForwardingFile::read(offset, into);
  }

 private:
  Gate& gate_;
};

class GatedStorage : public ForwardingStorage {
 public:
  GatedStorage(std::unique_ptr<Storage> beneath, Gate& gate)
      : ForwardingStorage(std::move(beneath)), gate_(gate) {}
  Result<std::unique_ptr<File>> open(const std::string& name, Access access,
                                     Caching caching) override {
    TRY_ASSIGN(auto file, ForwardingStorage::open(name, access, caching));
    return std::make_unique<GatedFile>(std::move(file), gate_);
  }

 private:
  Gate& gate_;
};

}  // namespace

void Gate::open() {
  {
    std::lock_guard lock(mutex_);
    open_ = true;
  }
  changed_.notify_all();
}

bool Gate::wait_for_thread() {
  std::unique_lock lock(mutex_);
  return changed_.wait_for(lock, std::chrono::seconds(30), [this] { return waiting_; });
}

void Gate::pass() {
  std::array<char, 16> name{};
  pthread_getname_np(pthread_self(), name.data(), name.size());
  if (thread_ != name.data()) return;
  std::unique_lock lock(mutex_);
  waiting_ = true;
  changed_.notify_all();
  changed_.wait(lock, [this] { return open_; });
}

std::unique_ptr<snapshot::Storage> gate_reads(std::unique_ptr<snapshot::Storage> beneath,
                                              Gate& gate) {
  return std::make_unique<GatedStorage>(std::move(beneath), gate);
}

}  // namespace test
