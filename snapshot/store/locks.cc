#include "snapshot/store/locks.h"

#include <chrono>
#include <thread>

#include "snapshot/store/format.h"

namespace snapshot {

base::Result<void> wait_for_lock(File& file, File::Lock mode) {
  using Clock = std::chrono::steady_clock;
  constexpr auto kPatience = std::chrono::minutes(1);
  constexpr auto kInterval = std::chrono::microseconds(500);
  const auto end = Clock::now() + kPatience;
  while (true) {
    TRY_ASSIGN(const bool locked, file.try_lock(mode));
    if (locked) return {};
    if (Clock::now() >= end) {
      return base::fail(file.name() + " is locked by another command for a minute now");
    }
    std::this_thread::sleep_for(kInterval);
  }
}

base::Result<bool> branch_is_alive(Storage& storage, const Id& branch) {
  const std::string name = branch_lock_name(branch);
  TRY_ASSIGN(const bool there, storage.exists(name));
  if (!there) return false;
  // A shared lock: two that look at once do not take each other for the machine.
  TRY_ASSIGN(auto file, storage.open(name, Storage::Access::kRead, Storage::Caching::kCached));
  TRY_ASSIGN(const bool free, file->try_lock(File::Lock::kShared));
  return !free;
}

}  // namespace snapshot
