// A layered disk on a base image in memory and a store in the model file system, and the two ends
// it stands between: a driver that makes requests, and a store that commits its layers.
#pragma once

#include <gtest/gtest.h>
#include <poll.h>
#include <sys/mman.h>

#include <deque>
#include <map>
#include <string>

#include "snapshot/disk/layered_disk.h"
#include "tests/support/model_storage.h"

namespace test {

using snapshot::kPageBytes;

// What was committed, from the entries of any number of snapshots.
class FakeCommitted : public snapshot::CommittedBlocks {
 public:
  explicit FakeCommitted(const snapshot::Format& format) : format_(format) {}

  // The next snapshot of the chain.
  std::shared_ptr<FakeCommitted> with(const snapshot::LayeredDisk::Sealed& sealed,
                                      snapshot::Storage& storage) const {
    auto next = std::make_shared<FakeCommitted>(*this);
    auto first = static_cast<snapshot::Slot>(next->files_.size());
    for (const auto& layer : sealed.layers) {
      auto file = storage.open(layer->data().name(), snapshot::Storage::Access::kRead,
                               snapshot::Storage::Caching::kCached);
      EXPECT_TRUE(file);
      next->files_.push_back(std::move(*file));
    }
    uint64_t before = 0;
    for (snapshot::PageEntry entry : sealed.entries) {
      EXPECT_TRUE(before == 0 || entry.page > before);
      before = entry.page;
      if (entry.slot != snapshot::kSlotZero) entry.slot += first;
      next->entries_[entry.page] = entry;
    }
    return next;
  }

  base::Result<snapshot::PageEntry> find(uint64_t block) const override {
    auto found = entries_.find(block);
    if (found != entries_.end()) return found->second;
    return snapshot::PageEntry{block, 0, snapshot::kSlotBase, 0};
  }
  base::Result<void> find_range(uint64_t first,
                                std::span<snapshot::PageEntry> into) const override {
    for (auto& entry : into) entry = *find(first++);
    return {};
  }
  base::Result<std::shared_ptr<snapshot::File>> file(snapshot::Slot slot) const override {
    return files_.at(slot);
  }
  base::Result<void> check(const snapshot::PageEntry& entry,
                           std::span<const std::byte> content) const override {
    if (format_.hash(content) == entry.hash) return {};
    return base::fail("page " + std::to_string(entry.page) + " is damaged");
  }

 private:
  snapshot::Format format_;
  std::vector<std::shared_ptr<snapshot::File>> files_;
  std::map<uint64_t, snapshot::PageEntry> entries_;
};

class LayeredDiskFixture : public ::testing::Test {
 protected:
  using Disk = snapshot::LayeredDisk;
  using Type = virtio::Disk::Request::Type;

  // A request of the driver, with its memory.
  struct Job : virtio::Disk::Request {
    std::string data;
    bool done = false;
  };

  LayeredDiskFixture() {
    EXPECT_TRUE(storage_->make_directory("layers"));
    EXPECT_TRUE(storage_->sync_directory(snapshot::kRoot));
  }

  static std::string content(uint64_t bytes, unsigned seed) {
    std::string text(bytes, 0);
    for (size_t i = 0; i < bytes; ++i) {
      text[i] = static_cast<char>((i * 7 + i / 512 * 13 + seed * 29) & 0xFF);
    }
    return text;
  }

  // Makes the base image; what is read from then on is compared with `expected_`.
  void make_base(uint64_t bytes, unsigned seed = 1) {
    image_ = base::Fd(::memfd_create("base", MFD_CLOEXEC));
    expected_ = content(bytes, seed);
    ASSERT_TRUE(base::write_exact(image_.get(), expected_.data(), bytes, 0));
  }
  std::string on_base() const {
    std::string bytes(expected_.size(), 0);
    EXPECT_TRUE(base::read_exact(image_.get(), bytes.data(), bytes.size(), 0));
    return bytes;
  }

  Disk::Options options(bool read_only) {
    auto base = virtio::FileDisk::create(
        virtio::BlockFile::adopt(base::Fd(::dup(image_.get())), expected_.size(), read_only));
    EXPECT_TRUE(base);
    auto queue = storage_->make_queue(64);
    EXPECT_TRUE(queue);
    return {.name = "disk0",
            .base = std::move(*base),
            .format = format_,
            .queue = std::move(*queue),
            .flush = flush_,
            .on_full = [this](const std::string& message) { full_.push_back(message); }};
  }
  void start_on_image() {
    disk_.reset();
    disk_ = std::move(*Disk::on_image(options(false)));
  }
  void start_on_snapshot() {
    disk_.reset();
    disk_ = std::move(*Disk::on_snapshot(options(true), committed_, {}, new_layer()));
  }

  snapshot::LayerFiles new_layer() {
    snapshot::LayerFiles files;
    files.id = {1, ++layers_};
    auto make = [&](const std::string& name, snapshot::Storage::Caching caching) {
      auto file = storage_->create(name, caching);
      EXPECT_TRUE(file);
      return std::move(*file);
    };
    std::string name = snapshot::layer_name(0, files.id);
    files.data = make(name, snapshot::Storage::Caching::kDirect);
    files.commit_data = std::move(*storage_->open(name, snapshot::Storage::Access::kRead,
                                                  snapshot::Storage::Caching::kDirect));
    files.log = make(name + ".log", snapshot::Storage::Caching::kCached);
    EXPECT_TRUE(storage_->sync_directory("layers"));
    return files;
  }

  // --- the driver ---
  Job& start(Type type, uint64_t offset, std::string data) {
    Job& job = jobs_.emplace_back();
    job.type = type;
    job.offset = offset;
    job.data = std::move(data);
    // Odd pieces at odd addresses, as a driver may give them.
    for (size_t at = 0; at < job.data.size();) {
      size_t piece = std::min<size_t>(job.data.size() - at, 4096 + 1000 * (at % 3));
      job.memory.push_back({job.data.data() + at, piece});
      at += piece;
    }
    disk_->start(job);
    return job;
  }
  Job& start_read(uint64_t offset, uint64_t bytes) {
    return start(Type::kRead, offset, std::string(bytes, '?'));
  }
  Job& start_write(uint64_t offset, std::string data) {
    return start(Type::kWrite, offset, std::move(data));
  }
  Job& start_ranges(Type type, std::vector<virtio::DiskRange> ranges) {
    Job& job = jobs_.emplace_back();
    job.type = type;
    job.ranges = std::move(ranges);
    disk_->start(job);
    return job;
  }
  Job& start_flush() { return start(Type::kFlush, 0, ""); }

  // What is complete now, without waiting for the rest.
  void turn() {
    disk_->acknowledge();
    while (auto* request = disk_->next_completion()) static_cast<Job*>(request)->done = true;
    EXPECT_TRUE(disk_->submit());
  }
  void wait(const Job& job) {
    for (int turns = 0; !job.done && turns < 100000; ++turns) {
      turn();
      if (job.done) return;
      pollfd entry{disk_->event_fd(), POLLIN, 0};
      ASSERT_EQ(::poll(&entry, 1, 10000), 1) << "nothing completes";
    }
    ASSERT_TRUE(job.done);
  }
  void wait_all() {
    for (const Job& job : jobs_) {
      wait(job);
      EXPECT_EQ(job.error, 0);
    }
    EXPECT_EQ(disk_->in_flight(), 0u);
    jobs_.clear();
  }
  // One request from start to end: its error.
  int finish(Job& job) {
    wait(job);
    return job.error;
  }
  std::string read(uint64_t offset, uint64_t bytes) {
    Job& job = start_read(offset, bytes);
    EXPECT_EQ(finish(job), 0);
    return job.data;
  }
  void write(uint64_t offset, const std::string& data) {
    EXPECT_EQ(finish(start_write(offset, data)), 0);
    expected_.replace(offset, data.size(), data);
  }
  void zero(Type type, uint64_t offset, uint64_t bytes) {
    EXPECT_EQ(finish(start_ranges(type, {{offset, bytes, true}})), 0);
    expected_.replace(offset, bytes, bytes, '\0');
  }
  void flush() { EXPECT_EQ(finish(start_flush()), 0); }
  bool reads_as_expected() { return read(0, expected_.size()) == expected_; }

  // --- the store ---
  void prepare() { ASSERT_TRUE(disk_->prepare_freeze(new_layer())); }
  void freeze() {
    prepare();
    disk_->freeze();
  }
  // The whole of a snapshot's disk part, as a commit that succeeds.
  void commit() {
    auto complete = disk_->wait_frozen(std::chrono::seconds(10));
    ASSERT_TRUE(complete) << complete.error().text();
    ASSERT_TRUE(*complete);
    auto sealed = disk_->sealed();
    ASSERT_TRUE(sealed) << sealed.error().text();
    committed_ = committed_->with(*sealed, *storage_);
    disk_->committed(committed_);
  }

  ModelFileSystem system_;
  std::unique_ptr<snapshot::Storage> storage_ = system_.storage();
  const snapshot::Format format_{{}, 42};
  bool flush_ = true;
  uint64_t layers_ = 0;
  base::Fd image_;
  std::string expected_;
  std::vector<std::string> full_;
  std::shared_ptr<FakeCommitted> committed_ = std::make_shared<FakeCommitted>(format_);
  std::deque<Job> jobs_;
  std::unique_ptr<Disk> disk_;
};

}  // namespace test
