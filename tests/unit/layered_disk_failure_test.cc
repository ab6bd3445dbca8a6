// Layered disks on a store that is full, fails, or is cut off from its power.
#include <gmock/gmock.h>
#include <unistd.h>

#include <random>

#include "tests/support/crash_states.h"
#include "tests/support/layered_disk_fixture.h"

namespace snapshot {
namespace {

using ::testing::AnyOf;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

constexpr uint64_t kBytes = 1 << 18;

class LayeredDiskFailureTest : public test::LayeredDiskFixture {
 protected:
  void start_layered() {
    make_base(kBytes);
    start_on_snapshot();
  }
  std::string data_name() const { return layer_name(0, {1, layers_}); }
  // Every call of that kind on the file fails so, until the next fail() or works_again().
  void fail(test::Call call, const std::string& name, int error) {
    system_.set_faults([=](const test::CallSite& site) -> std::optional<test::Fault> {
      if (site.call != call || site.name != name) return std::nullopt;
      return test::Fault{.error = error};
    });
  }
  void works_again() { system_.set_faults(nullptr); }
  void turns() {
    for (int i = 0; i < 20; ++i) turn();
  }
};

TEST_F(LayeredDiskFailureTest, AFullStoreKeepsWritesUntilThereIsSpace) {
  start_layered();
  write(0, content(4096, 2));
  fail(test::Call::kWrite, data_name(), ENOSPC);
  std::string data = content(300000 / 512 * 512 - 65536, 3);
  Job& first = start_write(4096, data);
  Job& second = start_write(4096, content(512, 4));  // behind it
  turns();
  EXPECT_FALSE(first.done);
  EXPECT_FALSE(second.done);
  ASSERT_THAT(full_, SizeIs(1));
  EXPECT_THAT(full_[0], HasSubstr("disk disk0: no space left"));
  // Reads go on, and so does everything else once there is space; a try too early says so again.
  EXPECT_EQ(read(0, 4096), expected_.substr(0, 4096));
  disk_->resume();
  turns();
  EXPECT_FALSE(first.done);
  EXPECT_THAT(full_, SizeIs(2));
  works_again();
  disk_->resume();
  EXPECT_EQ(finish(first), 0);
  EXPECT_EQ(finish(second), 0);
  expected_.replace(4096, data.size(), data);
  expected_.replace(4096, 512, content(512, 4));
  EXPECT_TRUE(reads_as_expected());
  EXPECT_THAT(full_, SizeIs(2));
}

TEST_F(LayeredDiskFailureTest, AFrozenLayerIsCompleteWhenItsWritesAre) {
  start_layered();
  fail(test::Call::kWrite, data_name(), ENOSPC);
  Job& stalled = start_write(0, content(4096, 2));
  turns();
  freeze();
  auto complete = disk_->wait_frozen(std::chrono::milliseconds(1));
  ASSERT_FALSE(complete) << "whoever waits has to pause the machine";
  EXPECT_THAT(complete.error().text(), HasSubstr("no space left"));
  EXPECT_FALSE(disk_->sealed());
  EXPECT_FALSE(disk_->lacks_layer()) << "there is no use in another snapshot";
  works_again();
  disk_->resume();
  EXPECT_EQ(finish(stalled), 0);
  ASSERT_TRUE(disk_->lacks_layer());
  EXPECT_TRUE(*disk_->lacks_layer());
  prepare();
  EXPECT_FALSE(*disk_->lacks_layer());
  complete = disk_->wait_frozen(std::chrono::milliseconds(1));
  ASSERT_TRUE(complete && *complete);
  auto sealed = disk_->sealed();
  ASSERT_TRUE(sealed);
  // Into the layer it was begun in.
  ASSERT_THAT(sealed->entries, SizeIs(1));
  EXPECT_EQ(sealed->entries[0].page, 0u);
}

TEST_F(LayeredDiskFailureTest, AnImageThatCannotBeReadFailsOneSnapshot) {
  make_base(kBytes);
  start_on_image();
  write(0, content(4096, 2));
  freeze();
  ASSERT_EQ(::ftruncate(image_.get(), 4096), 0);
  EXPECT_FALSE(disk_->wait_frozen(std::chrono::seconds(1)));
  ASSERT_TRUE(base::write_exact(image_.get(), expected_.data(), kBytes, 0));
  auto complete = disk_->wait_frozen(std::chrono::seconds(1));
  ASSERT_TRUE(complete) << complete.error().text();
  EXPECT_TRUE(*complete);
  write(8192, content(4096, 3));
  flush();
  EXPECT_TRUE(reads_as_expected());
}

TEST_F(LayeredDiskFailureTest, AFullLogKeepsTheFlush) {
  start_layered();
  write(0, content(4096, 2));
  fail(test::Call::kWrite, data_name() + ".log", ENOSPC);
  Job& flush = start_flush();
  turns();
  EXPECT_FALSE(flush.done);
  EXPECT_THAT(full_, SizeIs(1));
  works_again();
  disk_->resume();
  EXPECT_EQ(finish(flush), 0);
}

TEST_F(LayeredDiskFailureTest, AFailedSyncIsAnErrorForEver) {
  for (const char* suffix : {"", ".log"}) {
    start_layered();
    write(0, content(4096, 2));
    fail(test::Call::kSync, data_name() + suffix, EIO);
    EXPECT_EQ(finish(start_flush()), EIO);
    works_again();
    EXPECT_EQ(finish(start_flush()), EIO);
    EXPECT_EQ(finish(start_write(0, content(4096, 3))), EIO);
    EXPECT_EQ(finish(start_ranges(Type::kWriteZeroes, {{0, 4096, false}})), EIO);
    EXPECT_TRUE(reads_as_expected());
    freeze();
    auto complete = disk_->wait_frozen(std::chrono::seconds(1));
    ASSERT_FALSE(complete);
    EXPECT_THAT(complete.error().text(), HasSubstr("sync: Input/output error"));
    EXPECT_FALSE(disk_->sealed());
    EXPECT_FALSE(disk_->lacks_layer());
  }
}

TEST_F(LayeredDiskFailureTest, AnInterruptedSyncIsMadeAgain) {
  start_layered();
  write(0, content(4096, 2));
  flush();
  write(0, content(4096, 3));  // nothing for the log
  unsigned syncs = 0;
  system_.set_faults([&](const test::CallSite& site) -> std::optional<test::Fault> {
    if (site.call != test::Call::kSync || site.name != data_name() || ++syncs > 1) return {};
    return test::Fault{.error = EINTR};
  });
  flush();
  EXPECT_EQ(syncs, 2u);
}

TEST_F(LayeredDiskFailureTest, AFailedWriteIsOneError) {
  start_layered();
  write(0, content(8192, 2));
  fail(test::Call::kWrite, data_name(), EIO);
  EXPECT_EQ(finish(start_write(4096, content(4096, 3))), EIO);
  works_again();
  EXPECT_TRUE(reads_as_expected());
  write(4096, content(4096, 4));
  EXPECT_TRUE(reads_as_expected());
}

TEST_F(LayeredDiskFailureTest, AnErrorOfACommitsSyncIsNotKeptFromTheGuest) {
  start_layered();
  write(0, content(4096, 2));
  freeze();
  disk_->commit_failed(base::Error("packs/0: fdatasync", EIO));
  flush();
  // Whatever the error was: ENOSPC, where space is only found when the data goes to the disk.
  auto sealed = disk_->sealed();
  ASSERT_TRUE(sealed);
  sealed->layers.at(0)->sync_failed = true;
  disk_->commit_failed(base::Error("layers/0: fdatasync", ENOSPC));
  EXPECT_EQ(finish(start_flush()), EIO);
}

TEST_F(LayeredDiskFailureTest, WithoutFlushNothingIsSynced) {
  flush_ = false;
  start_layered();
  write(0, content(4096, 2));
  fail(test::Call::kSync, data_name(), EIO);
  flush();
  EXPECT_TRUE(reads_as_expected());
}

// --- power cuts ---

class LayeredDiskPowerTest : public LayeredDiskFailureTest {
 protected:
  static constexpr uint64_t kBlocks = kBytes / kPageBytes;

  // What a flush has promised, and what was written after it, up to a point of the recording.
  struct Promise {
    std::string content;
    std::vector<bool> changing = std::vector<bool>(kBlocks);
  };

  void mark(const std::string& what) {
    system_.mark(what + " " + std::to_string(promises_.size()));
    promises_.push_back(now_);
  }
  void touch(uint64_t offset, uint64_t bytes) {
    for (uint64_t block = offset / kPageBytes; block * kPageBytes < offset + bytes; ++block) {
      now_.changing[block] = true;
    }
    mark("write");
  }
  void work() {
    std::mt19937_64 random(5);
    system_.set_schedule(3);
    start_layered();
    now_.content = expected_;
    mark("start");
    for (int i = 0; i < 25; ++i) {
      uint64_t sector = random() % 200, sectors = 1 + random() % 24;
      touch(sector * 512, sectors * 512);
      if (i % 5 == 4) {
        zero(Type::kWriteZeroes, sector * 512, sectors * 512);
      } else {
        write(sector * 512, content(sectors * 512, static_cast<unsigned>(i) + 2));
      }
      if (i % 4 != 3) continue;
      flush();
      now_.content = expected_;
      now_.changing.assign(kBlocks, false);
      mark("flush");
    }
  }

  // What a machine would find in the layer after the power is back; "" where it has what it must.
  std::string broken_promise(const test::DiskImage& image, const Promise& promise) {
    test::ModelFileSystem system(image);
    auto storage = system.storage();
    auto data = storage->open(data_name(), Storage::Access::kRead, Storage::Caching::kCached);
    auto log =
        storage->open(data_name() + ".log", Storage::Access::kRead, Storage::Caching::kCached);
    if (!data || !log) return "no files";
    auto map = recover_layer(format_, {1, layers_}, kBlocks, **data, **log);
    if (!map) return map.error().text();
    for (uint64_t block = 0; block < kBlocks; ++block) {
      if (promise.changing[block]) continue;
      std::string found = base_.substr(block * kPageBytes, kPageBytes);
      PresenceMap::Block present = map->get(block);
      if (present.state == Presence::kZero) found.assign(kPageBytes, '\0');
      if (present.state == Presence::kData) {
        EXPECT_TRUE((*data)->read(block * kPageBytes, std::as_writable_bytes(std::span(found))));
        if (format_.hash(std::as_bytes(std::span(found))) != present.hash) return "wrong hash";
      }
      if (found != promise.content.substr(block * kPageBytes, kPageBytes)) {
        return "block " + std::to_string(block) + " is not what was flushed";
      }
    }
    return "";
  }

  // Every crash of the recording but for the events that `skip` takes out; the first broken
  // promise.
  std::string replay(const std::function<bool(const test::Event&)>& skip) {
    base_ = content(kBytes, 1);
    test::CrashReplay replay(system_.start());
    std::optional<size_t> promise;
    std::string broken;
    for (const test::Event& event : system_.recording()) {
      if (event.kind == test::Event::Kind::kMark) {
        promise = std::stoul(event.text.substr(event.text.find(' ') + 1));
      }
      if (skip(event)) continue;
      replay.apply(event);
      if (!promise) continue;
      visit_crash_states(replay, {.samples = 4, .seed = 1},
                         [&](const test::DiskImage& image, const std::string& what) {
                           broken = broken_promise(image, promises_[*promise]);
                           if (!broken.empty()) broken += " (" + what + ")";
                           return broken.empty();
                         });
      if (!broken.empty()) return broken;
    }
    return "";
  }

  Promise now_;
  std::vector<Promise> promises_;
  std::string base_;
};

TEST_F(LayeredDiskPowerTest, WhatWasFlushedIsThereAfterwards) {
  work();
  EXPECT_EQ(replay([](const test::Event&) { return false; }), "");
}

TEST_F(LayeredDiskPowerTest, ThisTestFindsAMissingSync) {
  work();
  for (const std::string& name : {data_name(), data_name() + ".log"}) {
    std::string found = replay([&](const test::Event& event) {
      return event.kind == test::Event::Kind::kSync && event.text == name;
    });
    // Where not even the size of the data's file got there, recovery says so.
    EXPECT_THAT(found, AnyOf(HasSubstr("is not what was flushed"), HasSubstr(data_name())));
  }
}

}  // namespace
}  // namespace snapshot
