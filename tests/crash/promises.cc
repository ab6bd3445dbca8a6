#include "tests/crash/promises.h"

#include <algorithm>
#include <set>

#include "snapshot/store/run.h"
#include "snapshot/store/store.h"
#include "tests/crash/disk.h"
#include "tests/support/model_storage.h"

namespace test {

using base::fail;
using base::Result;
using snapshot::Id;
using snapshot::Store;

namespace {

Result<void> check_snapshots(Store& store, const Promises& promises) {
  TRY_ASSIGN(auto listed, store.list());
  std::set<Id> there;
  for (const auto& info : listed) {
    std::string name = "snapshot " + info.id.text();
    if (!info.damage.empty()) return fail(name + " is listed and damaged: " + info.damage);
    there.insert(info.id);
    auto content = read_content(store, info.id);
    if (!content) return std::unexpected(content.error().with(name));
    auto is = [&](const std::map<Id, Content>& known) {
      auto found = known.find(info.id);
      return found != known.end() && found->second == *content;
    };
    bool known = promises.must.contains(info.id) || promises.may.contains(info.id);
    bool right =
        known ? is(promises.must) || is(promises.may)
              : std::ranges::find(promises.may_appear, *content) != promises.may_appear.end();
    if (!right) return fail(name + (known ? " has another content" : " is none that was begun"));
  }
  for (const auto& [id, content] : promises.must) {
    if (!there.contains(id)) return fail("snapshot " + id.text() + " is lost");
  }
  return {};
}

// What guests had flushed is there, though no snapshot has it yet.
Result<void> check_disks(Store& store, const Promises& promises) {
  TRY_ASSIGN(auto heads, store.heads());
  for (const auto& [branch, blocks] : promises.disks) {
    auto head = std::ranges::find(heads, branch, &snapshot::HeadInfo::branch);
    if (head == heads.end()) return fail("branch " + branch.text() + " is lost");
    if (!head->damage.empty()) return fail("HEAD: " + head->damage);
    if (!head->head) return fail("the HEAD of branch " + branch.text() + " is lost");
    auto there = read_disk_of_head(store, *head->head, blocks.size());
    if (!there) return std::unexpected(there.error().with("disk of branch " + branch.text()));
    for (size_t block = 0; block < blocks.size(); ++block) {
      if (!std::ranges::includes(blocks[block], (*there)[block])) {
        return fail("block " + std::to_string(block) + " of the disk has lost what was flushed");
      }
    }
  }
  return {};
}

// Goes on from the newest snapshot, as a restored machine would.
Result<void> check_next(Store& store) {
  constexpr size_t kRamPages = 16;
  TRY_ASSIGN(auto listed, store.list());
  std::optional<Id> parent;
  Content content{Pages(kRamPages, 0), {}};
  if (!listed.empty()) {
    parent = listed.back().id;
    TRY_ASSIGN(content, read_content(store, *parent));
  }
  TRY_ASSIGN(auto branch, store.create_branch(parent, "next"));
  std::unique_ptr<GuestDisk> disk;
  if (!content.disk.empty()) {
    TRY_ASSIGN(disk, GuestDisk::restore(store, *branch, content.disk));
    disk->write(1, 0xDDDD);
  }
  Guest guest(content.ram, disk.get());
  guest.set(0, 0xAAAA);
  guest.set(content.ram.size() - 1, 0xBBBB);
  auto kind = parent ? snapshot::Kind::kIncremental : snapshot::Kind::kFull;
  TRY_ASSIGN(Id id, guest.take(store, *branch, kind));
  TRY_ASSIGN(auto read, read_content(store, id));
  if (read != guest.content()) return fail("it has another content than its guest");
  return {};
}

// What HEADs name is there; what neither they nor a snapshot name is not. (No machine is alive.)
Result<void> check_names(Store& store) {
  std::set<std::string> needed;
  TRY_ASSIGN(auto heads, store.heads());
  TRY_ASSIGN(auto listed, store.list());
  for (const auto& head : heads) {
    std::string branch = "branch " + head.branch.text();
    if (!head.damage.empty()) return fail("HEAD: " + head.damage);
    if (!head.head) return fail(branch + " is left without a HEAD");
    if (head.head->parent && std::ranges::find(listed, *head.head->parent,
                                               &snapshot::SnapshotInfo::id) == listed.end()) {
      return fail(branch + " continues a snapshot that is not there");
    }
    for (const auto& layer : head.head->layers) {
      for (const auto& name : {snapshot::layer_name(layer.disk, layer.id),
                               snapshot::layer_log_name(layer.disk, layer.id)}) {
        TRY_ASSIGN(bool there, store.storage().exists(name));
        if (!there) return fail(branch + " names " + name + ", which is not there");
        needed.insert(name);
      }
    }
  }
  for (const auto& info : listed) {
    TRY_ASSIGN(auto snapshot, store.load(info.id));
    for (const auto& space : snapshot->manifest().spaces) {
      for (const auto& run : space.runs) {
        needed.insert(snapshot::run_name(run.id));
        snapshot::RunReader reader(store.storage(), store.format(), space.space, run);
        TRY_ASSIGN(auto slots, reader.slots());
        for (const auto& slot : slots) needed.insert(slot.name());
      }
    }
  }
  for (const char* directory : {"packs", "runs", "layers", "tmp"}) {
    TRY_ASSIGN(auto names, store.storage().list(directory));
    for (const auto& name : names) {
      std::string path = std::string(directory) + "/" + name;
      if (!needed.contains(path)) return fail(path + " is left, and nothing needs it");
    }
  }
  return {};
}

Result<void> check(ModelFileSystem& system, const Promises& promises) {
  auto opened = Store::open(system.storage());
  if (!opened && promises.store) return std::unexpected(opened.error().with("open"));
  if (!opened) opened = Store::create(system.storage());
  if (!opened) return std::unexpected(opened.error().with("create, after an interrupted one"));
  Store& store = **opened;
  TRY(store.recover());
  TRY(check_names(store));
  TRY(check_snapshots(store, promises));
  TRY(check_disks(store, promises));
  if (auto next = check_next(store); !next) {
    return std::unexpected(next.error().with("next snapshot"));
  }
  TRY(store.recover());
  return check_names(store);
}

}  // namespace

std::string broken_promise(const DiskImage& image, const Promises& promises) {
  ModelFileSystem system(image);
  auto result = check(system, promises);
  return result ? system.misuse() : result.error().text();
}

}  // namespace test
