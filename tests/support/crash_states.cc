#include "tests/support/crash_states.h"

#include <algorithm>

namespace test {
namespace {

constexpr uint64_t kSectorBytes = 512;

uint64_t first_sector(const Event& event) { return event.offset / kSectorBytes; }
uint64_t end_sector(const Event& event) {
  return (event.offset + event.length + kSectorBytes - 1) / kSectorBytes;
}

}  // namespace

void CrashReplay::add(Change::Kind kind, Inode object, const Event& event) {
  changes_.push_back({kind, event.serial, object, event.complete, event.failed, false, event});
}

void CrashReplay::apply(const Event& event) {
  switch (event.kind) {
    case Event::Kind::kCreate:
    case Event::Kind::kMakeDirectory:
      return add(Change::Kind::kInsert, event.directory, event);
    case Event::Kind::kRemove:
      return add(Change::Kind::kRemove, event.directory, event);
    case Event::Kind::kRename: {
      if (event.directory == event.to_directory) {
        return add(Change::Kind::kMove, event.directory, event);
      }
      add(Change::Kind::kRemove, event.directory, event);
      Event insertion = event;
      insertion.directory = event.to_directory;
      insertion.entry = event.to_entry;
      return add(Change::Kind::kInsert, event.to_directory, insertion);
    }
    case Event::Kind::kWrite:
      add(Change::Kind::kData, event.inode, event);
      return add(Change::Kind::kSize, event.inode, event);
    case Event::Kind::kTruncate:
      return add(Change::Kind::kTruncate, event.inode, event);
    case Event::Kind::kPunch:
      return add(Change::Kind::kPunch, event.inode, event);
    case Event::Kind::kSync:
    case Event::Kind::kSyncDirectory:
      if (event.complete) return finish_sync(start_sync(event));
      syncing_.push_back(start_sync(event));
      return;
    case Event::Kind::kComplete: {
      for (Change& change : changes_) {
        if (change.serial == event.of) change.complete = true;
      }
      auto done = std::ranges::find(syncing_, event.of, &Syncing::serial);
      if (done == syncing_.end()) return;
      finish_sync(*done);
      syncing_.erase(done);
      return;
    }
    case Event::Kind::kMark:
      return;
  }
}

CrashReplay::Syncing CrashReplay::start_sync(const Event& event) const {
  Syncing syncing{event.serial, event.failed, {}, event.inode};
  for (const Change& change : changes_) {
    if (change.object == event.inode && change.complete) syncing.covered.push_back(change.serial);
  }
  return syncing;
}

void CrashReplay::finish_sync(const Syncing& syncing) {
  for (Change& change : changes_) {
    if (change.object != syncing.object || change.durable || change.lost) continue;
    if (std::ranges::find(syncing.covered, change.serial) == syncing.covered.end()) continue;
    (syncing.failed ? change.lost : change.durable) = true;
  }
  fold();
}

// Durable changes that no pending one of the same object precedes are of the durable image.
void CrashReplay::fold() {
  std::vector<Inode> held;
  std::erase_if(changes_, [&](const Change& change) {
    if (std::ranges::find(held, change.object) != held.end()) return false;
    if (!change.durable) {
      held.push_back(change.object);
      return false;
    }
    perform(durable_, change, [](size_t) { return true; });
    return true;
  });
}

size_t CrashReplay::sectors(const Change& change) {
  bool divisible = change.kind == Change::Kind::kData || change.kind == Change::Kind::kPunch;
  return divisible ? end_sector(change.event) - first_sector(change.event) : 1;
}

void CrashReplay::perform(DiskImage& image, const Change& change,
                          const std::function<bool(size_t sector)>& survives) {
  const Event& event = change.event;
  Contents& contents = image.nodes[event.inode].contents;
  auto& entries = image.nodes[change.object].entries;
  auto each_sector = [&](auto&& part) {
    for (uint64_t sector = first_sector(event); sector < end_sector(event); ++sector) {
      if (!survives(sector - first_sector(event))) continue;
      uint64_t from = std::max(event.offset, sector * kSectorBytes);
      uint64_t to = std::min(event.offset + event.length, (sector + 1) * kSectorBytes);
      part(from, to - from);
    }
  };
  switch (change.kind) {
    case Change::Kind::kData:
      return each_sector([&](uint64_t offset, uint64_t bytes) {
        contents.write(offset, std::span(*event.data).subspan(offset - event.offset, bytes));
      });
    case Change::Kind::kPunch:
      return each_sector([&](uint64_t offset, uint64_t bytes) { contents.punch(offset, bytes); });
    default:
      break;
  }
  if (!survives(0)) return;
  switch (change.kind) {
    case Change::Kind::kSize:
      if (event.offset + event.length > contents.size()) {
        contents.resize(event.offset + event.length);
      }
      return;
    case Change::Kind::kTruncate:
      contents.resize(event.offset);
      return contents.drop_hidden();
    case Change::Kind::kInsert:
      if (event.kind == Event::Kind::kMakeDirectory) image.nodes[event.inode].directory = true;
      entries[event.entry] = event.inode;
      return;
    case Change::Kind::kMove:
      entries[event.to_entry] = event.inode;
      [[fallthrough]];
    case Change::Kind::kRemove: {
      // Only what this event removed: the name may have been given anew, and that be durable.
      auto entry = entries.find(event.entry);
      if (entry != entries.end() && entry->second == event.inode) entries.erase(entry);
      return;
    }
    default:
      return;
  }
}

std::vector<CrashReplay::Pending> CrashReplay::pending() const {
  std::vector<Pending> pending;
  for (const Change& change : changes_) {
    if (change.durable) continue;
    bool half = change.event.kind == Event::Kind::kRename;
    const char* part = change.kind == Change::Kind::kSize             ? "size of "
                       : half && change.kind == Change::Kind::kRemove ? "removal of "
                       : half && change.kind == Change::Kind::kInsert ? "insertion of "
                                                                      : "";
    pending.push_back({part + test::text(change.event), sectors(change)});
  }
  return pending;
}

DiskImage CrashReplay::image(const Survives& survives) const {
  DiskImage image = durable_;
  size_t number = 0;
  for (const Change& change : changes_) {
    if (change.durable) {
      perform(image, change, [](size_t) { return true; });
    } else {
      perform(image, change, [&](size_t sector) { return survives(number, sector); });
      ++number;
    }
  }
  for (auto& [inode, node] : image.nodes) node.contents.drop_hidden();
  image.drop_unreachable();
  return image;
}

bool visit_crash_states(const CrashReplay& replay, const CrashPlan& plan, const CrashVisit& visit) {
  auto pending = replay.pending();
  size_t changes = pending.size();
  auto give = [&](const CrashReplay::Survives& survives, const std::string& what) {
    return visit(replay.image(survives), what);
  };
  if (!give([](size_t, size_t) { return false; }, "nothing pending survives")) return false;
  if (changes == 0) return true;
  if (!give([](size_t, size_t) { return true; }, "all survives")) return false;
  const size_t each = plan.each ? changes : 0;
  for (size_t chosen = 0; chosen < each; ++chosen) {
    if (!give([&](size_t change, size_t) { return change == chosen; },
              "alone: " + pending[chosen].text)) {
      return false;
    }
    if (!give([&](size_t change, size_t) { return change != chosen; },
              "missing: " + pending[chosen].text)) {
      return false;
    }
  }
  std::mt19937_64 random(plan.seed);
  for (size_t chosen = 0; chosen < each; ++chosen) {
    if (pending[chosen].sectors == 1) continue;
    size_t cut = 1 + random() % (pending[chosen].sectors - 1);
    bool head = random() % 2 == 0;
    auto torn = [&](size_t change, size_t sector) {
      return change != chosen || (sector < cut) == head;
    };
    if (!give(torn, "torn at sector " + std::to_string(cut) + (head ? ", head of " : ", tail of ") +
                        pending[chosen].text)) {
      return false;
    }
  }
  for (unsigned sample = 0; sample < plan.samples; ++sample) {
    // Each change survives, does not, or in sectors.
    std::vector<std::vector<bool>> fates;
    for (const auto& change : pending) {
      uint64_t fate = random() % 3;
      std::vector<bool> sectors(change.sectors, fate == 1);
      if (fate == 2) {
        for (size_t sector = 0; sector < sectors.size(); ++sector) sectors[sector] = random() % 2;
      }
      fates.push_back(std::move(sectors));
    }
    if (!give(
            [&](size_t change, size_t sector) { return fates[change][sector]; },
            "random sample " + std::to_string(sample) + " of seed " + std::to_string(plan.seed))) {
      return false;
    }
  }
  return true;
}

}  // namespace test
