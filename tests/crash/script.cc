#include "tests/crash/script.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>
#include <stdexcept>

#include "snapshot/store/store.h"

namespace test {

using snapshot::Id;
using snapshot::Kind;

namespace {

// What has to work for the script to mean anything.
template <typename T>
T must(base::Result<T> result) {
  if (!result) throw std::runtime_error("script: " + result.error().text());
  if constexpr (!std::is_void_v<T>) return std::move(*result);
}

}  // namespace

Script::Script(uint64_t seed) {
  system_.set_schedule(seed);
  system_.set_alignment(4096);
  promise("nothing yet");
}

void Script::promise(const std::string& what) {
  system_.mark(std::to_string(promises_.size()) + " " + what);
  promises_.push_back(now_);
}

void Script::create_store() {
  store_ = must(snapshot::Store::create(system_.storage()));
  now_.store = true;
  promise("store created");
}

Script::Machine Script::boot(uint64_t ram_pages, uint64_t disk_blocks, const std::string& base) {
  auto branch = must(store_->create_branch({}, "guest"));
  auto disk = disk_blocks > 0 ? GuestDisk::boot(*store_, disk_blocks, base) : nullptr;
  Guest guest(Pages(ram_pages, 0), disk.get());
  promise("machine made");
  return {std::move(branch), std::move(disk), std::move(guest)};
}

Script::Machine Script::restore(const Id& id) { return must(try_restore(id)); }

base::Result<Script::Machine> Script::try_restore(const Id& id) {
  const Content content = now_.must.at(id);
  TRY_ASSIGN(auto branch, store_->create_branch(id, "guest"));
  promise("branch made");
  std::unique_ptr<GuestDisk> disk;
  if (!content.disk.empty()) {
    TRY_ASSIGN(disk, GuestDisk::restore(*store_, *branch, content.disk));
  }
  Guest guest(content.ram, disk.get());
  Machine machine{std::move(branch), std::move(disk), std::move(guest)};
  if (machine.disk) blocks(machine);
  promise("machine restored");
  return machine;
}

// What is owed of the machine's disk; at first what it began with.
std::vector<std::set<uint64_t>>& Script::blocks(const Machine& machine) {
  auto [found, is_new] = now_.disks.try_emplace(machine.branch->id());
  if (is_new) {
    for (uint64_t value : machine.disk->content()) found->second.push_back({value});
  }
  return found->second;
}

void Script::change_blocks(const Machine& machine, uint64_t block, uint64_t count, uint64_t value) {
  auto& blocks = this->blocks(machine);
  for (uint64_t i = 0; i < count; ++i) blocks[block + i].insert(value);
  promise("guest changes a block");
}

void Script::write(Machine& machine, uint64_t block, uint64_t value) {
  change_blocks(machine, block, 1, value);
  if (machine.disk->write(block, value) != 0) throw std::runtime_error("script: a write failed");
}

void Script::discard(Machine& machine, uint64_t block, uint64_t count) {
  change_blocks(machine, block, count, 0);
  if (machine.disk->discard(block, count) != 0) {
    throw std::runtime_error("script: a discard failed");
  }
}

void Script::flush(Machine& machine) {
  if (!try_flush(machine)) throw std::runtime_error("script: a flush failed");
}

bool Script::try_flush(Machine& machine) {
  if (machine.disk->flush() != 0) return false;
  auto& blocks = this->blocks(machine);
  for (uint64_t block = 0; block < blocks.size(); ++block) {
    blocks[block] = {machine.disk->content()[block]};
  }
  promise("flush acknowledged");
  return true;
}

void Script::committed(const Machine& machine, const Id& id, const Content& content) {
  now_.must[id] = content;
  if (machine.disk && machine.disk->content() == content.disk) {
    auto& blocks = this->blocks(machine);
    for (uint64_t block = 0; block < blocks.size(); ++block) blocks[block] = {content.disk[block]};
  }
  promise("committed");
}

Id Script::take(Machine& machine, Kind kind, const std::function<void()>& meanwhile) {
  Content content = machine.guest.content();
  now_.may_appear.push_back(content);
  promise(kind == Kind::kFull ? "full commit" : "commit");
  auto then = [&] {
    meanwhile();
    flush(machine);
    promise("commit");
  };
  Id id = must(machine.guest.take(*store_, *machine.branch, kind,
                                  meanwhile ? std::function<void()>(then) : meanwhile));
  committed(machine, id, content);
  return id;
}

base::Result<Id> Script::try_take(Machine& machine, Kind kind) {
  Content content = machine.guest.content();
  now_.may_appear.push_back(content);
  promise("commit with a fault");
  auto taken = machine.guest.take(*store_, *machine.branch, kind);
  if (taken) {
    committed(machine, *taken, content);
  } else {
    promise("commit failed: " + taken.error().text());
  }
  return taken;
}

void Script::stop(Machine& machine) {
  machine.disk.reset();
  machine.branch.reset();
  promise("machine stopped");
}

void Script::recover() {
  promise("recovery");
  (void)must(store_->recover());
  promise("recovered");
}

void Script::merge(Machine& machine) { must(machine.branch->merge_if_due()); }

void Script::prune(const std::vector<Id>& ids) {
  auto report = must(try_prune(ids));
  if (report.removed != ids) throw std::runtime_error("script: prune left something");
}

base::Result<snapshot::PruneReport> Script::try_prune(const std::vector<Id>& ids) {
  for (const Id& id : ids) now_.may.insert(now_.must.extract(id));
  promise("prune");
  auto report = store_->prune({.keep = {}, .remove = ids, .keep_ids = {}});
  if (!report) {
    promise("prune failed: " + report.error().text());
    return report;
  }
  // Pruned for certain, from now on.
  for (const Id& id : report->removed) now_.may.erase(id);
  promise("pruned");
  return report;
}

CrashFailure find_failing_state(const DiskImage& start, const Recording& recording,
                                const CrashPlan& plan, size_t from, const StateCheck& check) {
  CrashFailure failure;
  CrashReplay replay(start);
  size_t step = 0;
  std::set<std::pair<uint64_t, size_t>> seen;
  for (size_t point = 0; point < recording.size(); ++point) {
    const Event& event = recording[point];
    if (event.kind == Event::Kind::kMark) {
      step = std::stoul(event.text);
    } else {
      replay.apply(event);
    }
    if (point < from) continue;
    auto visit = [&](const DiskImage& image, const std::string& what) {
      if (!seen.emplace(image.fingerprint(), step).second) return true;
      ++failure.states;
      std::string broken = check(image, step);
      if (broken.empty()) return true;
      failure.text =
          "crash after " + text(event) + "\n  " + what + "\n  " + broken + "\n" + image.text();
      return false;
    };
    CrashPlan here = plan;
    here.seed += point;
    if (!visit_crash_states(replay, here, visit)) return failure;
  }
  return failure;
}

CrashFailure find_crash_failure(const Recorded& recorded, const CrashPlan& plan, size_t from) {
  return find_failing_state(recorded.start, recorded.recording, plan, from,
                            [&](const DiskImage& image, size_t step) {
                              return broken_promise(image, recorded.promises[step]);
                            });
}

size_t position_of_mark(const Recording& recording, const std::string& what) {
  auto found = std::ranges::find_if(recording, [&](const Event& event) {
    return event.kind == Event::Kind::kMark && event.text.ends_with(" " + what);
  });
  return static_cast<size_t>(found - recording.begin());
}

}  // namespace test
