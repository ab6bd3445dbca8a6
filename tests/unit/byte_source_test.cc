#include "vmm/boot/byte_source.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <random>

#include "tests/support/kernel_images.h"

namespace vmm::boot {
namespace {

using test::Bytes;
using test::Packing;
using testing::HasSubstr;

// What the source gives when it is read in pieces of `piece` bytes, until its end or an error.
base::Result<Bytes> unpack(std::span<const std::byte> packed, size_t piece) {
  TRY_ASSIGN(auto source, unpacking_source(packed));
  Bytes all;
  for (;;) {
    size_t before = all.size();
    all.resize(before + piece);
    TRY_ASSIGN(size_t size, source->read(std::span(all).subspan(before)));
    all.resize(before + size);
    if (size < piece) return all;
  }
}

// The unpacked data of a bzImage's payload starts like this (kNone is told by it).
Bytes elf_like(size_t size) {
  Bytes data = test::code_like(size, 3);
  std::memcpy(data.data(),
              "\x7f"
              "ELF",
              4);
  return data;
}

class Unpacking : public testing::TestWithParam<Packing> {};

TEST_P(Unpacking, GivesTheContentInPiecesOfAnySize) {
  Bytes data = elf_like(700'001);
  Bytes packed = test::pack(GetParam(), data);
  for (size_t piece : {1u << 20, 65'536u, 4'099u}) {
    auto unpacked = unpack(packed, piece);
    ASSERT_TRUE(unpacked) << unpacked.error().text();
    EXPECT_TRUE(*unpacked == data) << "in pieces of " << piece;
  }
}

TEST_P(Unpacking, SkipsToTheSamePlaceAsReading) {
  Bytes data = elf_like(300'000);
  Bytes packed = test::pack(GetParam(), data);
  auto source = unpacking_source(packed);
  ASSERT_TRUE(source);
  EXPECT_EQ(*(*source)->skip(200'001), 200'001u);
  Bytes rest(10);
  ASSERT_EQ(*(*source)->read(rest), 10u);
  EXPECT_EQ(std::memcmp(rest.data(), data.data() + 200'001, 10), 0);
  EXPECT_EQ(*(*source)->skip(~0ull), 300'000u - 200'011u);
  EXPECT_EQ(*(*source)->skip(1), 0u);
}

TEST_P(Unpacking, TruncatedAnywhereIsNeverTheWholeContent) {
  Bytes data = elf_like(1'500);
  Bytes packed = test::pack(GetParam(), data);
  for (size_t size = 0; size < packed.size(); ++size) {
    // A copy of its own, so that a sanitizer sees every read past the end.
    Bytes cut(packed.begin(), packed.begin() + static_cast<ptrdiff_t>(size));
    auto unpacked = unpack(cut, 2 * data.size());
    EXPECT_LT(unpacked ? unpacked->size() : 0, data.size()) << "cut to " << size;
  }
}

TEST_P(Unpacking, DamageGivesAnErrorOrEndsAndNeverCrashes) {
  Bytes data = elf_like(8'000);
  Bytes packed = test::pack(GetParam(), data);
  std::mt19937 random(7);
  bool checked = GetParam() != Packing::kLzma && GetParam() != Packing::kLz4Legacy &&
                 GetParam() != Packing::kNone;
  int undetected = 0;
  for (int round = 0; round < 300; ++round) {
    Bytes damaged = packed;
    for (int flips = 0; flips < 1 + round % 3; ++flips)
      damaged[random() % damaged.size()] ^= std::byte{static_cast<uint8_t>(1 + random() % 255)};
    auto source = unpacking_source(damaged);
    if (!source) continue;
    Bytes room(data.size() + 1000);
    auto size = (*source)->read(room);
    if (!size || !(*source)->skip(64 << 20)) continue;  // checksums are known at the end
    room.resize(*size);
    if (room.size() >= data.size() && room != data) ++undetected;
  }
  if (checked) {
    EXPECT_EQ(undetected, 0);
  }
}

INSTANTIATE_TEST_SUITE_P(Boot, Unpacking, testing::ValuesIn(test::kAllPackings),
                         [](const auto& packing) { return test::name(packing.param); });

TEST(UnpackingSource, ManyBlocksThroughLargeAndSmallBuffers) {
  Bytes data = elf_like((17u << 20) + 5);  // three blocks of lz4, 69 of lzop
  for (Packing packing : {Packing::kLz4Legacy, Packing::kLzop}) {
    Bytes packed = test::pack(packing, data);
    for (size_t piece : {64u << 20, 9u << 20, 1u << 20}) {
      auto unpacked = unpack(packed, piece);
      ASSERT_TRUE(unpacked) << unpacked.error().text();
      EXPECT_TRUE(*unpacked == data) << test::name(packing) << " in pieces of " << piece;
    }
  }
}

TEST(UnpackingSource, IgnoresTheSizeThatKernelsAppend) {
  Bytes data = elf_like(50'000);
  for (Packing packing : test::kAllPackings) {
    if (packing == Packing::kNone) continue;
    Bytes packed = test::pack(packing, data);
    for (int shift = 0; shift < 32; shift += 8)
      packed.push_back(static_cast<std::byte>(data.size() >> shift & 0xFF));
    auto source = unpacking_source(packed);
    ASSERT_TRUE(source);
    Bytes room(60'000);
    auto size = (*source)->read(room);
    ASSERT_TRUE(size) << test::name(packing) << ": " << size.error().text();
    EXPECT_EQ(*size, data.size()) << test::name(packing);
  }
}

TEST(UnpackingSource, Lz4ChecksTheAppendedSize) {
  Bytes data = elf_like(50'000);
  Bytes packed = test::pack(Packing::kLz4Legacy, data);
  packed.resize(packed.size() + 4, std::byte{0x11});
  auto source = unpacking_source(packed);
  ASSERT_TRUE(source);
  EXPECT_FALSE((*source)->skip(60'000));
}

TEST(UnpackingSource, NamesTheBytesOfAnUnknownFormat) {
  Bytes data = {std::byte{0xCA}, std::byte{0xFE}, std::byte{0x01}};
  auto source = unpacking_source(data);
  ASSERT_FALSE(source);
  EXPECT_THAT(source.error().text(), HasSubstr("ca fe 01"));
  EXPECT_FALSE(unpacking_source({}));
}

}  // namespace
}  // namespace vmm::boot
