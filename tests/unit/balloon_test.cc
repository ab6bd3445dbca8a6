#include "devices/virtio/balloon.h"

#include <gtest/gtest.h>
#include <sys/mman.h>

#include "tests/support/fake_transport.h"
#include "vmm/base/endian.h"

namespace virtio {
namespace {

using vmm::Gfn;
using vmm::Gpa;

constexpr uint64_t kMemory = 8 << 20;
constexpr uint64_t kFirst = 0x400;  // gfn of the pages the tests give up
constexpr Gpa kArray{0x100000};
constexpr uint16_t kInflate = 0, kDeflate = 1, kStatistics = 2, kHints = 3, kReports = 4;

class BalloonTest : public ::testing::Test {
 protected:
  BalloonTest() {
    device_ = std::move(*Balloon::create("balloon", {.guest_bytes = kMemory}));
    transport_ = std::make_unique<testing_support::FakeTransport>(*device_, kMemory);
  }
  ~BalloonTest() override {
    if (active_) device_->reset();
  }

  void start(uint64_t without_features = 0) {
    ASSERT_TRUE(transport_->activate(without_features));
    active_ = true;
    // The pages from kFirst on: each with something in it, none dirty.
    for (uint64_t page = 0; page < 16; ++page) {
      Gpa at{(kFirst + page) << vmm::kPageShift};
      ASSERT_TRUE(memory().store<uint64_t>(at, kFirst + page));
      ASSERT_TRUE(memory().store<uint64_t>(at + 4088, ~(kFirst + page)));
    }
    std::vector<uint64_t> marks(kMemory >> 18);
    memory().take_dirty(0, marks);
  }

  vmm::GuestMemory& memory() { return transport_->memory(); }
  void send(uint16_t queue, const std::vector<uint32_t>& numbers) {
    ASSERT_TRUE(memory().write(kArray, std::as_bytes(std::span(numbers))));
    transport_->driver(queue).add(0, {{kArray, static_cast<uint32_t>(numbers.size() * 4)}}, {});
    transport_->kick(queue);
  }
  void settle() {
    for (int turns = 0; transport_->poll(0); ++turns) ASSERT_LT(turns, 1000);
  }

  bool resident(uint64_t gfn) {
    unsigned char is = 0;
    auto page = *memory().view(Gpa{gfn << vmm::kPageShift}, vmm::kPageSize);
    EXPECT_EQ(::mincore(const_cast<std::byte*>(page.data()), vmm::kPageSize, &is), 0);
    return is & 1;
  }
  // Was the page given up: not resident, dirty, and then zero?
  bool given_up(uint64_t gfn) {
    bool was_resident = resident(gfn);
    Gpa at{gfn << vmm::kPageShift};
    uint64_t first = *memory().load<uint64_t>(at), last = *memory().load<uint64_t>(at + 4088);
    if (was_resident) {
      EXPECT_EQ(first, gfn);
      EXPECT_EQ(last, ~gfn);
      EXPECT_FALSE(memory().is_dirty(Gfn{gfn})) << gfn;
      return false;
    }
    EXPECT_EQ(first, 0u);
    EXPECT_EQ(last, 0u);
    EXPECT_TRUE(memory().is_dirty(Gfn{gfn})) << gfn;
    return true;
  }
  std::vector<uint64_t> pages_given_up() {
    std::vector<uint64_t> pages;
    for (uint64_t page = 0; page < 16; ++page) {
      if (given_up(kFirst + page)) pages.push_back(page);
    }
    return pages;
  }
  uint32_t config(uint32_t offset) {
    std::array<uint8_t, 4> bytes;
    device_->read_config(offset, bytes);
    return base::load_le<uint32_t>(bytes);
  }

  std::unique_ptr<Balloon> device_;
  std::unique_ptr<testing_support::FakeTransport> transport_;
  bool active_ = false;
};

using Pages = std::vector<uint64_t>;

TEST_F(BalloonTest, InflatedPagesAreGivenUp) {
  start();
  send(kInflate, {kFirst + 1, kFirst + 2, kFirst + 3, kFirst + 7, kFirst + 5, kFirst + 4});
  EXPECT_EQ(transport_->driver(kInflate).used_index(), 1);
  EXPECT_EQ(transport_->interrupts(kInflate), 1);
  EXPECT_EQ(pages_given_up(), (Pages{1, 2, 3, 4, 5, 7}));
  EXPECT_EQ(device_->counters().inflated, 6u);
  EXPECT_EQ(device_->counters().refused, 0u);
}

TEST_F(BalloonTest, DeflatedPagesAreTheGuestsAgain) {
  start();
  send(kInflate, {kFirst});
  ASSERT_TRUE(memory().store<uint64_t>(Gpa{kFirst << 12}, 99));
  send(kDeflate, {kFirst});
  EXPECT_EQ(*memory().load<uint64_t>(Gpa{kFirst << 12}), 99u);
  EXPECT_EQ(device_->counters().deflated, 1u);
  EXPECT_EQ(transport_->interrupts(kDeflate), 1);
}

TEST_F(BalloonTest, PageNumbersOutsideRamAreCountedAndIgnored) {
  start();
  uint32_t end = kMemory >> 12;
  send(kInflate, {end, 0xFFFFFFFF, 0x100000, kFirst + 2});
  EXPECT_EQ(transport_->failure(), std::nullopt);
  EXPECT_EQ(pages_given_up(), (Pages{2}));
  EXPECT_EQ(device_->counters().refused, 3u);
  // A run that leaves RAM: what is inside is given up.
  send(kInflate, {end - 2, end - 1, end, end + 1});
  EXPECT_EQ(device_->counters().inflated, 3u);
  EXPECT_EQ(device_->counters().refused, 5u);
  EXPECT_TRUE(memory().is_dirty(Gfn{end - 1}));
  // A run over the last number there is does not go on at 0.
  ASSERT_TRUE(memory().store<uint64_t>(Gpa{0}, 1));
  send(kInflate, {0xFFFFFFFE, 0xFFFFFFFF, 3});
  EXPECT_EQ(*memory().load<uint64_t>(Gpa{0}), 1u);
  EXPECT_EQ(device_->counters().refused, 7u);
}

TEST_F(BalloonTest, TakesAnArrayInOddPieces) {
  start();
  std::vector<uint32_t> numbers = {kFirst + 3, kFirst + 9};
  ASSERT_TRUE(memory().write(kArray, std::as_bytes(std::span(numbers))));
  // Three bytes, three bytes, and four: the last two are of no number.
  transport_->driver(kInflate).add(0, {{kArray, 3}, {kArray + 3, 3}, {kArray + 6, 4}}, {});
  transport_->kick(kInflate);
  EXPECT_EQ(pages_given_up(), (Pages{3, 9}));
  transport_->driver(kInflate).add(0, {}, {{kArray, 16}});  // nothing to read
  transport_->kick(kInflate);
  EXPECT_EQ(transport_->driver(kInflate).used_index(), 2);
  EXPECT_EQ(device_->counters().inflated, 2u);
}

TEST_F(BalloonTest, RequestsAreBounded) {
  start();
  constexpr uint32_t kBytes = (Balloon::kMaxRequestPages + 1) * 4;
  transport_->driver(kInflate).add(0, {{Gpa{kFirst << 12}, kBytes}}, {});
  transport_->kick(kInflate);
  ASSERT_TRUE(transport_->failure());
  EXPECT_NE(transport_->failure()->find("16385 pages"), std::string::npos);
}

TEST_F(BalloonTest, ATurnIsBoundedAndTheRestFollows) {
  start();
  std::vector<uint32_t> numbers(Balloon::kMaxRequestPages, uint32_t{kFirst});
  ASSERT_TRUE(memory().write(kArray, std::as_bytes(std::span(numbers))));
  for (uint16_t i = 0; i < 3; ++i) {
    transport_->driver(kInflate).add(i, {{kArray, Balloon::kMaxRequestPages * 4}}, {});
  }
  transport_->kick(kInflate);
  EXPECT_EQ(transport_->driver(kInflate).used_index(), 1);
  settle();
  EXPECT_EQ(transport_->driver(kInflate).used_index(), 3);
}

TEST_F(BalloonTest, ReportedRangesAreGivenUp) {
  start();
  Gpa base{kFirst << 12};
  transport_->driver(kReports).add(
      0, {}, {{base + 4096, 8192}, {base + 5 * 4096 + 1, 3 * 4096}, {base, 100}});
  transport_->kick(kReports);
  EXPECT_EQ(pages_given_up(), (Pages{1, 2, 6, 7}));  // whole pages only
  EXPECT_EQ(device_->counters().reported, 4u);
  EXPECT_EQ(transport_->interrupts(kReports), 1);
}

TEST_F(BalloonTest, LinuxNumbersItsReportQueueWithoutGaps) {
  start();
  transport_->driver(kHints).add(0, {}, {{Gpa{kFirst << 12}, 4096}});
  transport_->kick(kHints);
  EXPECT_EQ(pages_given_up(), (Pages{0}));
  device_->reset();
  ASSERT_TRUE(transport_->activate(1 << 1));  // without the statistics queue
  transport_->driver(kStatistics).add(0, {}, {{Gpa{(kFirst + 1) << 12}, 4096}});
  transport_->kick(kStatistics);
  EXPECT_TRUE(given_up(kFirst + 1));
}

TEST_F(BalloonTest, TheTargetReachesTheGuest) {
  start();
  EXPECT_EQ(config(0), 0u);
  ASSERT_TRUE(device_->set_target(3));
  settle();
  EXPECT_EQ(config(0), 3u * 256);
  EXPECT_EQ(transport_->config_changes(), 1);
  EXPECT_EQ(device_->target_mib(), 3u);
  EXPECT_EQ(device_->actual_mib(), 0u);
  std::array<uint8_t, 4> actual;
  base::store_le<uint32_t>(actual, 0, 512);
  device_->write_config(4, actual);
  EXPECT_EQ(device_->actual_mib(), 2u);
  EXPECT_EQ(config(4), 512u);
  device_->write_config(0, actual);  // the target is not the guest's to change
  device_->write_config(0xFFFFFFFE, actual);
  EXPECT_EQ(config(0), 3u * 256);
  EXPECT_EQ(config(4), 512u);

  EXPECT_FALSE(device_->set_target(9));
  EXPECT_EQ(device_->target_mib(), 3u);
  EXPECT_TRUE(device_->set_target(8));
}

TEST_F(BalloonTest, ATargetSetBeforeTheDriverIsThereWhenItComes) {
  ASSERT_TRUE(device_->set_target(2));
  start();
  EXPECT_EQ(config(0), 512u);
}

TEST_F(BalloonTest, StatisticsComeWhenAskedFor) {
  start();
  auto give = [&](uint64_t free, uint64_t total) {
    std::array<uint8_t, 30> bytes;
    for (auto [at, tag, value] : {std::tuple{0, 4, free}, {10, 5, total}, {20, 999, free}}) {
      base::store_le<uint16_t>(bytes, at, tag);
      base::store_le<uint64_t>(bytes, at + 2, value);
    }
    ASSERT_TRUE(memory().write(kArray, std::as_bytes(std::span(bytes))));
    transport_->driver(kStatistics).add(0, {{kArray, bytes.size()}}, {});
    transport_->kick(kStatistics);
  };
  give(1000, 8000);
  EXPECT_EQ(device_->statistics()[4], 1000u);
  EXPECT_EQ(device_->statistics()[5], 8000u);
  EXPECT_EQ(device_->statistics()[0], std::nullopt);
  EXPECT_EQ(transport_->driver(kStatistics).used_index(), 0);  // kept until asked

  device_->request_statistics();
  settle();
  EXPECT_EQ(transport_->driver(kStatistics).used_index(), 1);
  EXPECT_EQ(transport_->interrupts(kStatistics), 1);
  // Asked again before the driver has answered.
  device_->request_statistics();
  settle();
  EXPECT_EQ(transport_->driver(kStatistics).used_index(), 1);
  give(900, 8000);
  EXPECT_EQ(device_->statistics()[4], 900u);
  EXPECT_EQ(transport_->driver(kStatistics).used_index(), 2);

  give(800, 8000);
  give(700, 8000);  // two at once
  ASSERT_TRUE(transport_->failure());
  EXPECT_NE(transport_->failure()->find("second statistics"), std::string::npos);
}

TEST_F(BalloonTest, ResetForgetsTheDriver) {
  start();
  std::array<uint8_t, 4> actual = {0, 1, 0, 0};
  device_->write_config(4, actual);
  transport_->driver(kStatistics).add(0, {{kArray, 10}}, {});
  transport_->kick(kStatistics);
  ASSERT_TRUE(transport_->reset_device());
  EXPECT_EQ(transport_->watches(), 0u);
  EXPECT_EQ(device_->actual_mib(), 0u);
  device_->request_statistics();  // goes nowhere, and waits for the next driver
  active_ = false;
}

TEST_F(BalloonTest, OffersWhatWasAskedFor) {
  auto plain = *Balloon::create("balloon", {.deflate_on_oom = false, .page_reporting = false});
  EXPECT_EQ(plain->features(), 1u << 1);
  EXPECT_EQ(device_->features(), 1u << 1 | 1u << 2 | 1u << 5);
}

}  // namespace
}  // namespace virtio
