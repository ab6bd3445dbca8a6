#include "tests/support/model_storage.h"

#include <algorithm>
#include <cerrno>

#include "tests/support/model_file.h"

namespace test {

using base::fail;
using base::Result;

const char* call_name(Call call) {
  switch (call) {
    case Call::kCreate:
      return "create";
    case Call::kOpen:
      return "open";
    case Call::kRead:
      return "read";
    case Call::kWrite:
      return "write";
    case Call::kTruncate:
      return "truncate";
    case Call::kAllocate:
      return "allocate";
    case Call::kPunch:
      return "punch";
    case Call::kSync:
      return "sync";
    case Call::kRename:
      return "rename";
    case Call::kRemove:
      return "remove";
    case Call::kMakeDirectory:
      return "make directory";
    case Call::kList:
      return "list";
    case Call::kSyncDirectory:
      return "sync directory";
  }
  return "?";
}

DiskImage ModelFileSystem::image() const {
  std::lock_guard lock(mutex_);
  DiskImage image = image_;
  image.drop_unreachable();
  return image;
}

Recording ModelFileSystem::recording() const {
  std::lock_guard lock(mutex_);
  return recording_;
}

void ModelFileSystem::mark(std::string text) {
  std::lock_guard lock(mutex_);
  record(Event::Kind::kMark, text);
}

void ModelFileSystem::set_faults(FaultPlan plan) {
  std::lock_guard lock(mutex_);
  plan_ = std::move(plan);
}

uint64_t ModelFileSystem::calls() const {
  std::lock_guard lock(mutex_);
  return calls_;
}

void ModelFileSystem::set_schedule(uint64_t seed) {
  std::lock_guard lock(mutex_);
  seed_ = seed;
}

void ModelFileSystem::set_alignment(uint32_t bytes) {
  std::lock_guard lock(mutex_);
  alignment_ = bytes;
}

void ModelFileSystem::set_capacity(uint64_t bytes) {
  std::lock_guard lock(mutex_);
  capacity_ = bytes;
}

std::string ModelFileSystem::misuse() const {
  std::lock_guard lock(mutex_);
  return misuse_;
}

std::optional<Fault> ModelFileSystem::fault(Call call, const std::string& name) {
  CallSite site{calls_++, call, name};
  return plan_ ? plan_(site) : std::nullopt;
}

Event& ModelFileSystem::record(Event::Kind kind, const std::string& text) {
  Event& event = recording_.emplace_back();
  event.kind = kind;
  event.serial = next_serial_++;
  event.text = text;
  return event;
}

Result<void> ModelFileSystem::reserve(Inode inode, const std::string& name, uint64_t offset,
                                      uint64_t length) {
  uint64_t missing = contents(inode).missing_bytes(offset, length);
  if (missing == 0 || image_.allocated_bytes() + missing <= capacity_) return {};
  return fail("cannot write " + name, ENOSPC);
}

// Changes what readers see; the event is the caller's.
Result<void> ModelFileSystem::write(Inode inode, const std::string& name, uint64_t offset,
                                    std::span<const std::byte> from) {
  TRY(reserve(inode, name, offset, from.size()));
  Contents& content = contents(inode);
  content.write(offset, from);
  if (offset + from.size() > content.size()) content.resize(offset + from.size());
  return {};
}

Result<void> ModelFileSystem::allocate(Inode inode, const std::string& name, uint64_t offset,
                                       uint64_t length) {
  if (auto fault = this->fault(Call::kAllocate, name)) {
    return fail("cannot allocate " + name, fault->error);
  }
  TRY(reserve(inode, name, offset, length));
  contents(inode).allocate(offset, length);
  return {};
}

Result<void> ModelFileSystem::punch(Inode inode, const std::string& name, uint64_t offset,
                                    uint64_t length) {
  if (auto fault = this->fault(Call::kPunch, name)) {
    return fail("cannot punch " + name, fault->error);
  }
  contents(inode).punch(offset, length);
  Event& event = record(Event::Kind::kPunch, name);
  event.inode = inode;
  event.offset = offset;
  event.length = length;
  return {};
}

Result<void> ModelFileSystem::add_entry(Event::Kind kind, const std::string& name) {
  auto place = image_.place(name);
  std::string what = std::string("cannot ") + kind_name(kind) + " " + name;
  if (!place) return fail(what, ENOENT);
  if (image_.find(name)) return fail(what, EEXIST);
  Inode inode = image_.nodes.rbegin()->first + 1;
  Event& event = record(kind, name);
  event.inode = inode;
  event.directory = place->first;
  event.entry = place->second;
  image_.nodes[inode].directory = kind == Event::Kind::kMakeDirectory;
  image_.nodes[place->first].entries[place->second] = inode;
  return {};
}

Result<void> ModelFileSystem::remove_entry(const std::string& name) {
  auto place = image_.place(name);
  auto inode = image_.find(name);
  std::string what = "cannot remove " + name;
  if (!place || !inode) return fail(what, ENOENT);
  if (image_.nodes.at(*inode).directory) return fail(what, EISDIR);
  Event& event = record(Event::Kind::kRemove, name);
  event.inode = *inode;
  event.directory = place->first;
  event.entry = place->second;
  image_.nodes[place->first].entries.erase(place->second);
  unlinked(*inode);
  return {};
}

// A name of it is gone. A power cut in a rename may have left it another one.
void ModelFileSystem::unlinked(Inode inode) {
  for (const auto& [number, node] : image_.nodes) {
    for (const auto& [name, child] : node.entries) {
      if (child == inode) return;
    }
  }
  unlinked_.insert(inode);
  if (!open_files_.contains(inode)) contents(inode) = {};
}

void ModelFileSystem::closed(Inode inode) {
  if (--open_files_[inode] > 0) return;
  open_files_.erase(inode);
  if (unlinked_.contains(inode)) contents(inode) = {};
}

Event& ModelFileSystem::event(uint64_t serial) {
  return *std::ranges::find(recording_, serial, &Event::serial);
}

std::unique_ptr<snapshot::Storage> ModelFileSystem::storage() {
  return std::make_unique<ModelStorage>(*this);
}

ModelStorage::ModelStorage(ModelFileSystem& system) : system_(system) {}

Result<std::unique_ptr<snapshot::File>> ModelStorage::create(const std::string& name,
                                                             Caching caching) {
  std::lock_guard lock(system_.mutex_);
  if (auto fault = system_.fault(Call::kCreate, name)) {
    return fail("cannot create " + name, fault->error);
  }
  TRY(system_.add_entry(Event::Kind::kCreate, name));
  return std::make_unique<ModelFile>(system_, *system_.image_.find(name), name, Access::kWrite,
                                     caching);
}

Result<std::unique_ptr<snapshot::File>> ModelStorage::open(const std::string& name, Access access,
                                                           Caching caching) {
  std::lock_guard lock(system_.mutex_);
  if (auto fault = system_.fault(Call::kOpen, name)) {
    return fail("cannot open " + name, fault->error);
  }
  auto inode = system_.image_.find(name);
  if (!inode) return fail("cannot open " + name, ENOENT);
  if (system_.image_.nodes.at(*inode).directory) return fail("cannot open " + name, EISDIR);
  return std::make_unique<ModelFile>(system_, *inode, name, access, caching);
}

Result<void> ModelStorage::rename(const std::string& from, const std::string& to) {
  std::lock_guard lock(system_.mutex_);
  std::string what = "cannot rename " + from + " to " + to;
  if (auto fault = system_.fault(Call::kRename, from)) return fail(what, fault->error);
  DiskImage& image = system_.image_;
  auto inode = image.find(from);
  auto old_place = image.place(from), new_place = image.place(to);
  if (!inode || !old_place || !new_place) return fail(what, ENOENT);
  auto replaced = image.find(to);
  if (replaced && image.nodes.at(*replaced).directory) return fail(what, EISDIR);
  Event& event = system_.record(Event::Kind::kRename, from + " to " + to);
  event.inode = *inode;
  event.directory = old_place->first;
  event.entry = old_place->second;
  event.to_directory = new_place->first;
  event.to_entry = new_place->second;
  image.nodes[old_place->first].entries.erase(old_place->second);
  image.nodes[new_place->first].entries[new_place->second] = *inode;
  if (replaced && *replaced != *inode) system_.unlinked(*replaced);
  return {};
}

Result<void> ModelStorage::remove(const std::string& name) {
  std::lock_guard lock(system_.mutex_);
  if (auto fault = system_.fault(Call::kRemove, name)) {
    return fail("cannot remove " + name, fault->error);
  }
  return system_.remove_entry(name);
}

Result<void> ModelStorage::make_directory(const std::string& name) {
  std::lock_guard lock(system_.mutex_);
  if (auto fault = system_.fault(Call::kMakeDirectory, name)) {
    return fail("cannot make directory " + name, fault->error);
  }
  auto inode = system_.image_.find(name);
  if (inode && system_.image_.nodes.at(*inode).directory) return {};
  return system_.add_entry(Event::Kind::kMakeDirectory, name);
}

Result<std::vector<std::string>> ModelStorage::list(const std::string& directory) {
  std::lock_guard lock(system_.mutex_);
  if (auto fault = system_.fault(Call::kList, directory)) {
    return fail("cannot list " + directory, fault->error);
  }
  auto inode = system_.image_.find(directory);
  if (!inode) return fail("cannot list " + directory, ENOENT);
  if (!system_.image_.nodes.at(*inode).directory) return fail("cannot list " + directory, ENOTDIR);
  std::vector<std::string> names;
  for (const auto& [name, child] : system_.image_.nodes.at(*inode).entries) names.push_back(name);
  return names;
}

Result<bool> ModelStorage::exists(const std::string& name) {
  std::lock_guard lock(system_.mutex_);
  return system_.image_.find(name).has_value();
}

Result<void> ModelStorage::sync_directory(const std::string& name) {
  std::lock_guard lock(system_.mutex_);
  auto fault = system_.fault(Call::kSyncDirectory, name);
  auto inode = system_.image_.find(name);
  if (!inode || !system_.image_.nodes.at(*inode).directory) {
    return fail("cannot sync directory " + name, ENOENT);
  }
  if (fault && fault->not_made) return fail("cannot sync directory " + name, fault->error);
  Event& event = system_.record(Event::Kind::kSyncDirectory, name);
  event.inode = *inode;
  event.failed = fault.has_value();
  if (fault) return fail("cannot sync directory " + name, fault->error);
  return {};
}

Result<uint64_t> ModelStorage::free_bytes() {
  std::lock_guard lock(system_.mutex_);
  uint64_t used = system_.image_.allocated_bytes();
  return used < system_.capacity_ ? system_.capacity_ - used : 0;
}

Result<std::unique_ptr<snapshot::IoQueue>> ModelStorage::make_queue(unsigned entries) {
  TRY_ASSIGN(auto event, base::EventFd::create());
  return std::make_unique<ModelQueue>(system_, entries, std::move(event));
}

}  // namespace test
