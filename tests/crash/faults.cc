#include "tests/crash/faults.h"

#include <cerrno>

namespace test {
namespace {

bool any(Call) { return true; }
bool takes_space(Call call) {
  return call == Call::kCreate || call == Call::kWrite || call == Call::kAllocate ||
         call == Call::kRename || call == Call::kMakeDirectory || call == Call::kTruncate;
}
bool is_write(Call call) { return call == Call::kWrite; }
bool is_sync(Call call) { return call == Call::kSync; }

}  // namespace

const std::vector<Way>& ways() {
  static const std::vector<Way> kWays = {
      {"EIO", {.error = EIO}, any},
      {"ENOSPC", {.error = ENOSPC}, takes_space},
      {"short write", {.error = ENOSPC, .short_write = true}, is_write},
      {"sync that drops", {.error = EIO, .drop_unsynced = true}, is_sync},
      // Where space is only found when the data goes to the disk.
      {"sync without space", {.error = ENOSPC, .drop_unsynced = true}, is_sync},
  };
  return kWays;
}

std::string way_name(const Way& way) {
  std::string name = way.name;
  std::erase(name, ' ');
  return name;
}

std::optional<Fault> FaultAt::at(const CallSite& site, uint64_t wanted, const Way& way) {
  bool here = site.number == wanted;
  if (here) {
    hit_ = site;
    failed_ = way.applies(site.call);
  }
  bool later = way.all_later && site.number > wanted;
  return (here && failed_) || later ? std::optional(way.fault) : std::nullopt;
}

}  // namespace test
