#include <gtest/gtest.h>

#include <array>
#include <memory>
#include <vector>

#include "devices/pci/root.h"
#include "vmm/base/endian.h"
#include "vmm/layout.h"

namespace pci {
namespace {

namespace layout = vmm::layout;

// Every byte of its space reads as its own number plus its offset.
struct FakeFunction : Function {
  explicit FakeFunction(uint8_t value) : number(value) {}
  uint8_t number;
  struct Write {
    uint32_t offset;
    std::vector<uint8_t> data;
    bool operator==(const Write&) const = default;
  };
  std::vector<Write> writes;

  void config_read(uint32_t offset, std::span<uint8_t> data) override {
    ASSERT_LE(offset + data.size(), 256u);
    for (auto& byte : data) byte = static_cast<uint8_t>(number + offset++);
  }
  void config_write(uint32_t offset, std::span<const uint8_t> data) override {
    ASSERT_LE(offset + data.size(), 256u);
    writes.push_back({offset, {data.begin(), data.end()}});
  }
};

class PciRootTest : public ::testing::Test {
 protected:
  vmm::Bus pio_, mmio_;
  Root root_;

  void SetUp() override { ASSERT_TRUE(root_.attach(pio_, mmio_)); }

  template <typename T>
  T in(uint16_t port) {
    uint8_t data[sizeof(T)];
    pio_.read(port, data);
    return base::load_le<T>(data);
  }
  template <typename T>
  void out(uint16_t port, T value) {
    uint8_t data[sizeof(T)];
    base::store_le<T>(data, 0, value);
    pio_.write(port, data);
  }
  static uint32_t address(uint32_t slot, uint32_t function, uint32_t offset) {
    return 0x8000'0000 | slot << 11 | function << 8 | offset;
  }
  template <typename T>
  T ecam(uint32_t slot, uint32_t function, uint32_t offset) {
    uint8_t data[sizeof(T)];
    mmio_.read(layout::kPciEcam.value + (slot << 15 | function << 12 | offset), data);
    return base::load_le<T>(data);
  }
};

TEST_F(PciRootTest, TheHostBridgeIsAtSlotZeroByPortsAndByEcam) {
  out<uint32_t>(0xCF8, address(0, 0, 0));
  EXPECT_EQ(in<uint32_t>(0xCF8), address(0, 0, 0));
  EXPECT_EQ(in<uint32_t>(0xCFC), 0x29C08086u);
  EXPECT_EQ(in<uint16_t>(0xCFE), 0x29C0);
  EXPECT_EQ(in<uint8_t>(0xCFD), 0x80);
  EXPECT_EQ(ecam<uint32_t>(0, 0, 0), 0x29C08086u);
  EXPECT_EQ(ecam<uint16_t>(0, 0, 0x0A), 0x0600);
}

TEST_F(PciRootTest, LinuxFindsMechanismOne) {
  // arch/x86/pci/direct.c, pci_check_type1(): a byte to 0xCFB, then the address must stick.
  out<uint8_t>(0xCFB, 1);
  out<uint32_t>(0xCF8, 0x80000000);
  EXPECT_EQ(in<uint32_t>(0xCF8), 0x80000000u);
}

TEST_F(PciRootTest, AllThirtyTwoSlotsByBothWays) {
  std::vector<std::unique_ptr<FakeFunction>> functions;
  for (uint32_t slot = 1; slot < kSlots; ++slot) {
    functions.push_back(std::make_unique<FakeFunction>(static_cast<uint8_t>(slot * 5)));
    auto given = root_.add(*functions.back());
    ASSERT_TRUE(given);
    EXPECT_EQ(*given, slot);
  }
  FakeFunction more(0);
  auto refused = root_.add(more);
  ASSERT_FALSE(refused);
  EXPECT_NE(refused.error().text().find("31"), std::string::npos);
  for (uint32_t slot = 1; slot < kSlots; ++slot) {
    auto first = static_cast<uint8_t>(slot * 5 + 0x44);
    out<uint32_t>(0xCF8, address(slot, 0, 0x44));
    EXPECT_EQ(in<uint8_t>(0xCFC), first);
    EXPECT_EQ(in<uint8_t>(0xCFF), static_cast<uint8_t>(first + 3));
    EXPECT_EQ(in<uint16_t>(0xCFC) & 0xFF, first);
    EXPECT_EQ(ecam<uint8_t>(slot, 0, 0x44), first);
    EXPECT_EQ(ecam<uint32_t>(slot, 0, 0x44), in<uint32_t>(0xCFC));
    // The other seven functions of the slot are not there.
    for (uint32_t function = 1; function < 8; ++function) {
      out<uint32_t>(0xCF8, address(slot, function, 0));
      EXPECT_EQ(in<uint32_t>(0xCFC), 0xFFFFFFFFu);
      EXPECT_EQ(ecam<uint32_t>(slot, function, 0), 0xFFFFFFFFu);
    }
  }
}

TEST_F(PciRootTest, WritesReachTheFunctionWithTheirWidth) {
  FakeFunction function(0);
  ASSERT_EQ(*root_.add(function), 1u);
  out<uint32_t>(0xCF8, address(1, 0, 0x10));
  out<uint32_t>(0xCFC, 0x44332211);
  out<uint8_t>(0xCFF, 0x55);
  out<uint16_t>(0xCFE, 0x7766);
  const uint8_t data[] = {9, 8};
  mmio_.write(layout::kPciEcam.value + (1 << 15) + 0x3C, data);
  std::vector<FakeFunction::Write> expected = {
      {0x10, {0x11, 0x22, 0x33, 0x44}}, {0x13, {0x55}}, {0x12, {0x66, 0x77}}, {0x3C, {9, 8}}};
  EXPECT_EQ(function.writes, expected);
}

TEST_F(PciRootTest, AbsentDevicesReadAllOnesAndTakeWrites) {
  for (uint32_t slot = 1; slot < kSlots; ++slot) {
    out<uint32_t>(0xCF8, address(slot, 0, 0));
    EXPECT_EQ(in<uint32_t>(0xCFC), 0xFFFFFFFFu);
    EXPECT_EQ(in<uint16_t>(0xCFE), 0xFFFF);
    out<uint32_t>(0xCFC, 0);
    EXPECT_EQ(ecam<uint32_t>(slot, 0, 0), 0xFFFFFFFFu);
    EXPECT_EQ(ecam<uint8_t>(slot, 0, 0x100), 0xFF);
  }
}

TEST_F(PciRootTest, OtherBusesAndAClearedEnableBitAreEmpty) {
  FakeFunction function(0);
  ASSERT_TRUE(root_.add(function));
  out<uint32_t>(0xCF8, address(1, 0, 0) | 1 << 16);
  EXPECT_EQ(in<uint32_t>(0xCFC), 0xFFFFFFFFu);
  out<uint32_t>(0xCFC, 0);
  out<uint32_t>(0xCF8, address(1, 0, 0) & ~0x8000'0000u);
  EXPECT_EQ(in<uint32_t>(0xCFC), 0xFFFFFFFFu);
  out<uint32_t>(0xCFC, 0);
  EXPECT_TRUE(function.writes.empty());
}

TEST_F(PciRootTest, NarrowWritesToTheAddressPortAreNotTheAddress) {
  out<uint32_t>(0xCF8, address(3, 0, 0x40));
  out<uint16_t>(0xCF8, 0);
  out<uint8_t>(0xCFB, 0);
  EXPECT_EQ(in<uint32_t>(0xCF8), address(3, 0, 0x40));
  EXPECT_EQ(in<uint16_t>(0xCF8), 0xFFFF);
}

TEST_F(PciRootTest, ThereAreNoExtendedCapabilities) {
  FakeFunction function(1);
  ASSERT_TRUE(root_.add(function));
  EXPECT_EQ(ecam<uint32_t>(1, 0, 0x100), 0u);  // 0: the list is empty
  EXPECT_EQ(ecam<uint32_t>(1, 0, 0xFFC), 0u);
  EXPECT_EQ(ecam<uint32_t>(1, 0, 0xFE), 0u);  // half in, half out
  const uint8_t data[4] = {};
  mmio_.write(layout::kPciEcam.value + (1 << 15) + 0xFE, data);
  EXPECT_TRUE(function.writes.empty());
}

TEST_F(PciRootTest, OddWidthsAreHarmless) {
  FakeFunction function(0);
  ASSERT_TRUE(root_.add(function));
  for (size_t size = 1; size <= 8; ++size) {
    for (uint64_t offset : {0ull, 1ull, 0xFDull, 0xFFFull - size}) {
      std::vector<uint8_t> data(size, 0xEE);
      mmio_.read(layout::kPciEcam.value + (1 << 15) + offset, data);
      if (size > 4) {
        EXPECT_EQ(data, std::vector<uint8_t>(size, 0xFF));
      }
      mmio_.write(layout::kPciEcam.value + (1 << 15) + offset, data);
    }
  }
}

TEST_F(PciRootTest, MemoryIsAlignedToItsSizeUntilTheWindowIsFull) {
  EXPECT_EQ(*root_.allocate_memory(0x1000), layout::kPciWindow);
  EXPECT_EQ(*root_.allocate_memory(0x8000), layout::kPciWindow + 0x8000);
  EXPECT_EQ(*root_.allocate_memory(0x10), layout::kPciWindow + 0x10000);
  EXPECT_FALSE(root_.allocate_memory(0x2000'0000));
  EXPECT_EQ(*root_.allocate_memory(0x1000'0000), layout::kPciWindow + 0x1000'0000);
  EXPECT_FALSE(root_.allocate_memory(0x1000));
}

}  // namespace
}  // namespace pci
