#include "snapshot/store/locks.h"

#include <cerrno>
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
  // A machine that ends takes it away.
  auto file =
      storage.open(branch_lock_name(branch), Storage::Access::kRead, Storage::Caching::kCached);
  if (!file && file.error().os_error() == ENOENT) return false;
  if (!file) return std::unexpected(file.error());
  // A shared lock: two that look at once do not take each other for the machine.
  TRY_ASSIGN(const bool free, (*file)->try_lock(File::Lock::kShared));
  return !free;
}

}  // namespace snapshot
