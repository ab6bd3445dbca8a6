#include "tests/support/small_store.h"

#include <fcntl.h>

#include <cstring>
#include <fstream>
#include <stdexcept>

#include "snapshot/disk/base_identity.h"
#include "snapshot/disk/layer.h"
#include "vmm/base/fd.h"
#include "vmm/base/mapping.h"

namespace snapshot_test {
namespace {

using snapshot::kPageBytes;
using snapshot::PageEntry;

template <typename T>
T must(base::Result<T> result) {
  if (!result) throw std::runtime_error(result.error().text());
  if constexpr (!std::is_void_v<T>) return std::move(*result);
}

// Of the base image, where nobody wrote; every fourth block is zero.
std::string base_content(uint64_t page) {
  if (page % 4 == 3) return std::string(kPageBytes, '\0');
  return std::string(kPageBytes, static_cast<char>('A' + page % 26));
}

}  // namespace

std::string SmallStore::content(snapshot::Space space, uint64_t page, uint32_t version) {
  if (version == 0) return std::string(kPageBytes, '\0');
  std::string text;
  std::string word = "space " + std::to_string(space) + " page " + std::to_string(page) +
                     " version " + std::to_string(version) + "; ";
  while (text.size() < kPageBytes) text += word;
  text.resize(kPageBytes);
  return text;
}

SmallStore::SmallStore() {
  {
    std::ofstream base(base_path(), std::ios::binary);
    std::string all;
    for (uint64_t page = 0; page < kDiskPages; ++page) all += base_content(page);
    base << all.substr(0, kDiskBytes);
  }
  base::Fd fd = must(base::open_file(base_path(), O_RDONLY));
  auto identity =
      snapshot::encode_base(must(snapshot::identify_base(fd.get(), kDiskBytes, base_path())));
  base_identity_.assign(reinterpret_cast<const char*>(identity.data()), identity.size());
  store_ = must(snapshot::Store::open_or_create(path()));
  branch_ = must(store_->create_branch(std::nullopt, "job1"));
}

void SmallStore::set_vm_name(std::string_view name) {
  branch_.reset();
  branch_ = must(store_->create_branch(std::nullopt, name));
  now_ = {};
}

std::shared_ptr<const snapshot::Snapshot> SmallStore::load(const snapshot::Id& id) {
  return must(store_->load(id));
}

void SmallStore::add_ram(snapshot::Commit& commit, const Writes& writes) {
  auto slot = must(commit.create_pack((writes.size() + 1) * kPageBytes));
  // Aligned: packs are written past the page cache.
  base::Mapping buffer = must(base::Mapping::anonymous(kPageBytes));
  std::span page_bytes(buffer.data(), kPageBytes);
  std::vector<PageEntry> entries;
  uint64_t offset = snapshot::kPackHeaderBytes;
  for (const auto& [page, version] : writes) {
    PageEntry entry{.page = page};
    if (version != 0) {
      std::memcpy(buffer.data(), content(snapshot::kRamSpace, page, version).data(), kPageBytes);
      must(commit.file(slot).write(offset, page_bytes));
      entry = {.page = page, .hash = store_->hash(page_bytes), .slot = slot, .offset = offset};
      offset += kPageBytes;
    }
    // Of a full snapshot all that is not named is zero.
    if (version != 0 || commit.kind() == snapshot::Kind::kIncremental) entries.push_back(entry);
  }
  must(commit.set_pages(snapshot::kRamSpace, kRamPages, std::move(entries)));
}

void SmallStore::add_disk(snapshot::Commit& commit, const Writes& writes) {
  if (writes.empty()) {
    must(commit.set_pages(snapshot::disk_space(0), kDiskPages, {}));
    return;
  }
  layers_.push_back(must(branch_->create_layer(0)));
  snapshot::LayerFiles& layer = layers_.back();
  must(layer.data->truncate(kDiskPages * kPageBytes));
  base::Mapping buffer = must(base::Mapping::anonymous(kPageBytes));
  std::span page_bytes(buffer.data(), kPageBytes);
  auto slot = commit.add_layer(0, layer.id, *layer.data);
  std::vector<PageEntry> entries;
  for (const auto& [page, version] : writes) {
    PageEntry entry{.page = page};
    if (version != 0) {
      std::memcpy(buffer.data(), content(1, page, version).data(), kPageBytes);
      must(layer.data->write(page * kPageBytes, page_bytes));
      entry = {.page = page,
               .hash = store_->hash(page_bytes),
               .slot = slot,
               .offset = page * kPageBytes};
    }
    entries.push_back(entry);
  }
  must(commit.set_pages(snapshot::disk_space(0), kDiskPages, std::move(entries)));
}

snapshot::Id SmallStore::take(snapshot::Kind kind, const Writes& ram, const Writes& disk) {
  for (const auto& [page, version] : ram) now_.ram[page] = version;
  for (const auto& [page, version] : disk) now_.disk[page] = version;
  auto commit = must(branch_->begin(kind));
  add_ram(*commit, kind == snapshot::Kind::kFull ? now_.ram : ram);
  add_disk(*commit, disk);
  base::SectionWriter sections;
  sections.begin("clock", 1).u64(5);
  sections.begin("serial", 2).u32(7);
  snapshot::SnapshotNotes notes;
  notes.memory = {{0, kLowPages * kPageBytes}, {kHighStart, kHighPages * kPageBytes}};
  notes.disks = {{"disk0", kDiskBytes, false, base_identity_}};
  notes.config = config_;
  notes.pause_ns = 187'000;
  auto taken = must(commit->finish(sections, notes));
  then_[taken->id()] = now_;
  return taken->id();
}

std::string SmallStore::ram(const snapshot::Id& id, uint64_t page) const {
  const Writes& writes = then_.at(id).ram;
  auto found = writes.find(page);
  return content(snapshot::kRamSpace, page, found == writes.end() ? 0 : found->second);
}

std::string SmallStore::disk(const snapshot::Id& id) const { return disk_of(then_.at(id)); }
std::string SmallStore::disk_now() const { return disk_of(now_); }

std::string SmallStore::disk_of(const State& state) {
  std::string all;
  for (uint64_t page = 0; page < kDiskPages; ++page) {
    auto found = state.disk.find(page);
    all += found == state.disk.end() ? base_content(page) : content(1, page, found->second);
  }
  return all.substr(0, kDiskBytes);
}

void SmallStore::write_disk(const Writes& writes) {
  snapshot::Layer layer(store_->format(), must(branch_->create_layer(0)), kDiskPages, true);
  must(layer.data().truncate(kDiskPages * kPageBytes));
  base::Mapping buffer = must(base::Mapping::anonymous(kPageBytes));
  std::span page_bytes(buffer.data(), kPageBytes);
  for (const auto& [page, version] : writes) {
    now_.disk[page] = version;
    if (version == 0) {
      layer.set_zero(page, 1);
      continue;
    }
    std::memcpy(buffer.data(), content(1, page, version).data(), kPageBytes);
    must(layer.data().write(page * kPageBytes, page_bytes));
    layer.set_data(page, store_->hash(page_bytes));
  }
  auto append = layer.begin_sync();
  must(layer.data().sync());
  must(layer.log().write(append.offset, append.records));
  must(layer.log().sync());
}

}  // namespace snapshot_test
