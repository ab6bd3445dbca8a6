#include "tests/crash/disk.h"

#include <poll.h>
#include <sys/mman.h>

#include <cstring>
#include <stdexcept>

#include "vmm/base/fd.h"

namespace test {

using base::fail;
using base::Result;
using snapshot::kPageBytes;
using snapshot::LayeredDisk;

uint64_t base_value(uint64_t block) { return 0xBA5E'0000 + block; }

namespace {

constexpr auto kPatience = std::chrono::seconds(10);

template <typename T>
T must(Result<T> result) {
  if (!result) throw std::runtime_error("disk: " + result.error().text());
  if constexpr (!std::is_void_v<T>) return std::move(*result);
}

base::Fd make_image(uint64_t blocks) {
  base::Fd fd(::memfd_create("image", MFD_CLOEXEC));
  for (uint64_t block = 0; block < blocks; ++block) {
    PageBytes bytes = page_bytes(base_value(block));
    must(base::write_exact(fd.get(), bytes.bytes.data(), kPageBytes, block * kPageBytes));
  }
  return fd;
}

std::set<uint64_t> words(std::span<const std::byte> bytes) {
  std::set<uint64_t> words;
  for (size_t at = 0; at < bytes.size(); at += sizeof(uint64_t)) {
    uint64_t word;
    std::memcpy(&word, bytes.data() + at, sizeof word);
    words.insert(word);
  }
  return words;
}

}  // namespace

LayeredDisk::Options GuestDisk::options(snapshot::Store& store, uint64_t blocks) {
  LayeredDisk::Options options;
  options.name = "disk";
  options.base = must(virtio::FileDisk::create(
      virtio::BlockFile::adopt(make_image(blocks), blocks * kPageBytes, false)));
  options.format = store.format();
  options.queue = must(store.storage().make_queue(16));
  return options;
}

std::unique_ptr<GuestDisk> GuestDisk::boot(snapshot::Store& store, uint64_t blocks,
                                           const std::string& base) {
  Pages content;
  for (uint64_t block = 0; block < blocks; ++block) content.push_back(base_value(block));
  std::unique_ptr<GuestDisk> disk(new GuestDisk(std::move(content), base));
  disk->disk_ = must(LayeredDisk::on_image(options(store, blocks)));
  return disk;
}

Result<std::unique_ptr<GuestDisk>> GuestDisk::restore(snapshot::Store& store,
                                                      snapshot::Branch& branch, Pages content) {
  const auto parent = branch.parent();
  std::unique_ptr<GuestDisk> disk(
      new GuestDisk(std::move(content), parent->manifest().disks.at(kDisk).base));
  auto committed = snapshot::committed_blocks(parent, snapshot::disk_space(kDisk));
  TRY_ASSIGN(auto layer, branch.create_layer(kDisk));
  TRY_ASSIGN(disk->disk_, LayeredDisk::on_snapshot(options(store, disk->content_.size()),
                                                   std::move(committed), {}, std::move(layer)));
  return disk;
}

int GuestDisk::run(Request& request) {
  disk_->start(request);
  while (true) {
    must(disk_->submit());
    if (auto* done = disk_->next_completion()) return done->error;
    must(disk_->submit());
    pollfd wait{disk_->event_fd(), POLLIN, 0};
    if (::poll(&wait, 1, static_cast<int>(std::chrono::milliseconds(kPatience).count())) != 1) {
      throw std::runtime_error("disk: a request never ends");
    }
    disk_->acknowledge();
  }
}

int GuestDisk::write(uint64_t block, uint64_t value) {
  content_[block] = value;
  PageBytes bytes = page_bytes(value);
  Request request;
  request.type = virtio::Disk::Request::Type::kWrite;
  request.offset = block * kPageBytes;
  request.memory = {{bytes.bytes.data(), kPageBytes}};
  return run(request);
}

int GuestDisk::discard(uint64_t block, uint64_t count) {
  for (uint64_t i = 0; i < count; ++i) content_[block + i] = 0;
  Request request;
  request.type = virtio::Disk::Request::Type::kDiscard;
  request.ranges = {{.offset = block * kPageBytes, .length = count * kPageBytes, .unmap = true}};
  return run(request);
}

int GuestDisk::flush() {
  Request request;
  return run(request);
}

Result<void> GuestDisk::freeze(snapshot::Branch& branch) {
  TRY_ASSIGN(auto layer, branch.create_layer(kDisk));
  TRY(disk_->prepare_freeze(std::move(layer)));
  disk_->freeze();
  return {};
}

Result<void> GuestDisk::add_to(snapshot::Commit& commit, snapshot::SnapshotNotes& notes) {
  TRY_ASSIGN(bool complete, disk_->wait_frozen(kPatience));
  if (!complete) return fail("the frozen layers are not complete");
  notes.disks.push_back(
      {.name = "disk", .size = content_.size() * kPageBytes, .read_only = false, .base = base_});
  return disk_->add_to(commit, kDisk);
}

void GuestDisk::committed(std::shared_ptr<const snapshot::Snapshot> snapshot) {
  disk_->committed(snapshot::committed_blocks(std::move(snapshot), snapshot::disk_space(kDisk)));
}

void GuestDisk::commit_failed(const base::Error& error) { disk_->commit_failed(error); }

Result<Pages> read_disk(const snapshot::Snapshot& snapshot) {
  snapshot::Space space = snapshot::disk_space(GuestDisk::kDisk);
  Pages pages(snapshot.pages(space));
  for (uint64_t block = 0; block < pages.size(); ++block) {
    TRY_ASSIGN(auto entry, snapshot.find(space, block));
    if (entry.slot == snapshot::kSlotBase) {
      pages[block] = base_value(block);
      continue;
    }
    PageBytes bytes;
    TRY(snapshot.read_page(space, block, bytes.bytes));
    TRY_ASSIGN(pages[block], page_value(bytes.bytes));
  }
  return pages;
}

Result<std::vector<std::set<uint64_t>>> read_disk_of_head(snapshot::Store& store,
                                                          const snapshot::Head& head,
                                                          uint64_t blocks) {
  Pages below;
  for (uint64_t block = 0; block < blocks; ++block) below.push_back(base_value(block));
  if (head.parent) {
    TRY_ASSIGN(auto parent, store.load(*head.parent));
    TRY_ASSIGN(below, read_disk(*parent));
  }
  std::vector<std::set<uint64_t>> content;
  for (uint64_t value : below) content.push_back({value});
  auto& storage = store.storage();
  for (const auto& layer : head.layers) {
    auto open = [&](const std::string& name) {
      return storage.open(name, snapshot::Storage::Access::kRead,
                          snapshot::Storage::Caching::kCached);
    };
    TRY_ASSIGN(auto data, open(snapshot::layer_name(layer.disk, layer.id)));
    TRY_ASSIGN(auto log, open(snapshot::layer_log_name(layer.disk, layer.id)));
    TRY_ASSIGN(auto map, snapshot::recover_layer(store.format(), layer.id, blocks, *data, *log));
    Result<void> read;
    map.for_each([&](uint64_t block, snapshot::PresenceMap::Block found) {
      PageBytes bytes{};
      if (found.state == snapshot::Presence::kData && read) {
        read = data->read(block * kPageBytes, bytes.bytes);
      }
      content[block] = words(bytes.bytes);
    });
    TRY(read);
  }
  return content;
}

}  // namespace test
