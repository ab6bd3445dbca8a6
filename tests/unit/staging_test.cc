#include "snapshot/staging.h"

#include <gtest/gtest.h>
#include <xxhash.h>

#include <array>
#include <cstring>
#include <deque>
#include <map>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "tests/support/model_storage.h"
#include "tests/support/temporary_directory.h"

namespace snapshot {
namespace {

using Page = std::array<std::byte, kPageBytes>;

Page page_of(uint64_t value) {
  Page page{};
  std::memcpy(page.data(), &value, sizeof value);
  return page;
}

PageHash hash_of(const std::byte* page) { return XXH3_64bits(page, kPageBytes); }

class StagingTest : public testing::Test {
 protected:
  void SetUp() override {
    storage_ = *open_storage(directory_.path());
    pack_ = *storage_->create("pack", Storage::Caching::kDirect);
  }
  StagingPool pool_;
  std::unique_ptr<Staging> make(uint64_t pages, std::unique_ptr<IoQueue> queue = nullptr) {
    if (queue == nullptr) queue = *storage_->make_queue(32);
    return *Staging::create(
        {.ram_pages = pages, .pool_pages = Staging::kSmallestPool}, pool_, hash_of,
        [this](uint64_t page) -> base::Result<PageEntry> {
          auto found = parent_.find(page);
          return found == parent_.end() ? PageEntry{.page = page} : found->second;
        },
        std::move(queue));
  }
  // Copies, makes room where there is none, settles.
  void stage(Staging& staging, uint64_t page, uint64_t value) {
    staging.reserve(1);
    Page content = page_of(value);
    if (!staging.copy(page, content.data())) {
      ASSERT_TRUE(staging.relieve(*pack_, 1));
      ASSERT_TRUE(staging.copy(page, content.data()));
    }
    ASSERT_TRUE(staging.settle());
  }
  uint64_t read_value(const PageEntry& entry) {
    alignas(4096) Page page;
    EXPECT_TRUE(pack_->read(entry.offset, page));
    EXPECT_EQ(hash_of(page.data()), entry.hash);
    uint64_t value;
    std::memcpy(&value, page.data(), sizeof value);
    return value;
  }

  test::TemporaryDirectory directory_;
  std::unique_ptr<Storage> storage_;
  std::unique_ptr<File> pack_;
  std::map<uint64_t, PageEntry> parent_;
};

TEST_F(StagingTest, EntriesNameWhatIsInThePack) {
  auto staging = make(100);
  for (uint64_t page : {7, 3, 90}) stage(*staging, page, page * 11);
  ASSERT_TRUE(staging->flush(*pack_));
  auto entries = staging->take_entries(5);
  ASSERT_EQ(entries.size(), 3u);
  EXPECT_EQ(entries[0].page, 3u);
  EXPECT_EQ(entries[1].page, 7u);
  EXPECT_EQ(entries[2].page, 90u);
  for (const PageEntry& entry : entries) {
    EXPECT_EQ(entry.slot, 5u);
    EXPECT_EQ(read_value(entry), entry.page * 11);
  }
  // Dense, in the order of capture.
  EXPECT_EQ(entries[1].offset, 4096u);
  EXPECT_EQ(staging->pack_pages(), 3u);
}

// The pack has its size before it is written; where there is no space to be generous, what is
// needed is enough.
TEST(StagingSpaceTest, APackGrowsAsFarAsTheDiskGoes) {
  constexpr uint64_t kPages = 300;
  for (bool generous : {true, false}) {
    test::ModelFileSystem files;
    if (!generous) files.set_capacity((kPages + 20) * kPageBytes);
    auto storage = files.storage();
    auto pack = storage->create("pack", Storage::Caching::kDirect).value();
    StagingPool pool;
    auto staging = *Staging::create(
        {.ram_pages = kPages + 100, .pool_pages = Staging::kSmallestPool}, pool, hash_of,
        [](uint64_t page) -> base::Result<PageEntry> { return PageEntry{.page = page}; },
        *storage->make_queue(32));
    for (uint64_t page = 0; page < kPages; ++page) {
      staging->reserve(1);
      ASSERT_TRUE(staging->copy(page, page_of(page + 1).data()));
    }
    auto written = staging->flush(*pack);
    ASSERT_TRUE(written) << written.error().text();
    EXPECT_GE(*pack->size(), (kPages + 1) * kPageBytes);
    EXPECT_EQ(staging->take_entries(0).size(), kPages);
    if (generous) continue;
    for (uint64_t page = kPages; page < kPages + 100; ++page) {
      staging->reserve(1);
      ASSERT_TRUE(staging->copy(page, page_of(page + 1).data()));
    }
    auto full = staging->flush(*pack);
    ASSERT_FALSE(full);
    EXPECT_EQ(full.error().os_error(), ENOSPC);
  }
}

TEST_F(StagingTest, ZeroAndUnchangedPagesTakeNoSpace) {
  Page same = page_of(42);
  parent_[1] = {1, hash_of(same.data()), 0, 4096};
  parent_[2] = {2, 99, 0, 8192};
  auto staging = make(100);
  stage(*staging, 1, 42);  // as before
  stage(*staging, 2, 0);   // zero now
  stage(*staging, 3, 0);   // zero before and now
  ASSERT_TRUE(staging->flush(*pack_));
  auto entries = staging->take_entries(0);
  ASSERT_EQ(entries.size(), 1u);
  EXPECT_EQ(entries[0].page, 2u);
  EXPECT_EQ(entries[0].slot, kSlotZero);
  EXPECT_EQ(*pack_->size(), 0u);
  EXPECT_EQ(staging->counts().unchanged, 2u);
}

TEST_F(StagingTest, ANewerCopyReplacesTheOlderInThePool) {
  auto staging = make(100);
  stage(*staging, 1, 10);
  stage(*staging, 2, 20);
  stage(*staging, 1, 11);
  ASSERT_TRUE(staging->flush(*pack_));
  auto entries = staging->take_entries(0);
  ASSERT_EQ(entries.size(), 2u);
  EXPECT_EQ(read_value(entries[0]), 11u);
  EXPECT_EQ(staging->counts().written, 2u);
}

TEST_F(StagingTest, ANewerCopyIsWrittenOverTheOlderInThePack) {
  parent_[2] = {2, 99, 0, 8192};
  auto staging = make(100);
  stage(*staging, 1, 10);
  stage(*staging, 2, 20);
  ASSERT_TRUE(staging->flush(*pack_));
  stage(*staging, 1, 11);
  stage(*staging, 3, 30);
  stage(*staging, 2, 0);
  ASSERT_TRUE(staging->flush(*pack_));
  auto entries = staging->take_entries(0);
  ASSERT_EQ(entries.size(), 3u);
  EXPECT_EQ(read_value(entries[0]), 11u);
  EXPECT_EQ(entries[0].offset, 4096u);
  EXPECT_EQ(entries[1].slot, kSlotZero);
  EXPECT_EQ(read_value(entries[2]), 30u);
  EXPECT_EQ(staging->counts().rewritten, 1u);
}

TEST_F(StagingTest, APageThatIsAsBeforeAgainIsNoChange) {
  Page before = page_of(42);
  parent_[1] = {1, hash_of(before.data()), 0, 4096};
  auto staging = make(100);
  stage(*staging, 1, 43);
  ASSERT_TRUE(staging->flush(*pack_));
  stage(*staging, 1, 42);
  ASSERT_TRUE(staging->flush(*pack_));
  EXPECT_TRUE(staging->take_entries(0).empty());
}

TEST_F(StagingTest, AFullPoolTakesNothingUntilItIsRelieved) {
  auto staging = make(5000);
  staging->reserve(Staging::kSmallestPool + 1);
  Page content = page_of(1);
  for (uint64_t page = 0; page < Staging::kSmallestPool; ++page) {
    ASSERT_TRUE(staging->copy(page, content.data()));
  }
  EXPECT_FALSE(staging->copy(4000, content.data()));
  EXPECT_TRUE(staging->copy(5, content.data()));
  ASSERT_TRUE(staging->settle());
  ASSERT_TRUE(staging->relieve(*pack_, 100));
  EXPECT_GE(staging->free_pages(), 100u);
  EXPECT_TRUE(staging->copy(4000, content.data()));
}

// A disk that writes what it was given only when somebody waits for it.
class LateQueue : public IoQueue {
 public:
  base::Result<void> readv(Operation&, File&, std::span<const iovec>, uint64_t) override {
    return base::fail("not here");
  }
  base::Result<void> writev(Operation& operation, File& file, std::span<const iovec> vectors,
                            uint64_t offset) override {
    waiting_.push_back({&operation, &file, {vectors.begin(), vectors.end()}, offset});
    return {};
  }
  base::Result<void> sync(Operation&, File&) override { return base::fail("not here"); }
  base::Result<void> allocate(Operation&, File&, uint64_t, uint64_t) override {
    return base::fail("not here");
  }
  base::Result<void> punch(Operation&, File&, uint64_t, uint64_t) override {
    return base::fail("not here");
  }
  base::Result<void> submit() override { return {}; }
  Operation* next_completion() override { return nullptr; }
  Operation* wait_completion() override {
    if (waiting_.empty()) return nullptr;
    Waiting first = std::move(waiting_.front());
    waiting_.pop_front();
    first.operation->result = 0;
    for (const iovec& vector : first.vectors) {
      auto bytes = std::span(static_cast<const std::byte*>(vector.iov_base), vector.iov_len);
      EXPECT_TRUE(first.file->write(first.offset, bytes));
      first.offset += bytes.size();
      first.operation->result += static_cast<int>(bytes.size());
    }
    return first.operation;
  }
  base::EventFd& event() override { return event_; }
  unsigned in_flight() const override { return static_cast<unsigned>(waiting_.size()); }

 private:
  struct Waiting {
    Operation* operation;
    File* file;
    std::vector<iovec> vectors;
    uint64_t offset;
  };
  std::deque<Waiting> waiting_;
  base::EventFd event_ = *base::EventFd::create();
};

TEST_F(StagingTest, ASlotIsNotTakenAgainBeforeItIsWritten) {
  constexpr uint64_t kPages = 4 * Staging::kSmallestPool;
  auto staging = make(kPages, std::make_unique<LateQueue>());
  for (uint64_t page = 0; page < kPages; ++page) stage(*staging, page, page + 1);
  ASSERT_TRUE(staging->flush(*pack_));
  const auto entries = staging->take_entries(0);
  ASSERT_EQ(entries.size(), kPages);
  for (const PageEntry& entry : entries) ASSERT_EQ(read_value(entry), entry.page + 1);
}

// Many rounds over more pages than fit, against a plain map.
TEST_F(StagingTest, TheLastCopyOfEachPageIsWhatCounts) {
  constexpr uint64_t kPages = 3000;
  {
    auto staging = make(kPages);
    std::map<uint64_t, uint64_t> model;
    uint64_t random = 1;
    for (int i = 0; i < 20000; ++i) {
      random = random * 6364136223846793005 + 1442695040888963407;
      uint64_t page = (random >> 33) % kPages;
      uint64_t value = (random >> 20) % 7 == 0 ? 0 : random;
      stage(*staging, page, value);
      model[page] = value;
    }
    ASSERT_TRUE(staging->flush(*pack_));
    auto entries = staging->take_entries(0);
    size_t not_zero = 0;
    for (auto& [page, value] : model) not_zero += value != 0;
    ASSERT_EQ(entries.size(), not_zero);
    for (const PageEntry& entry : entries) ASSERT_EQ(read_value(entry), model[entry.page]);
  }
}

}  // namespace
}  // namespace snapshot
