#include "vmm/base/codec.h"

#include <gtest/gtest.h>

namespace base {
namespace {

struct Pair {
  uint16_t a;
  uint32_t b;
};

TEST(CodecTest, WhatIsEncodedIsDecoded) {
  std::vector<std::byte> bytes;
  Encoder encoder(bytes);
  encoder.u8(0x12);
  encoder.u16(0x3456);
  encoder.u32(0x789ABCDE);
  encoder.u64(0x0123456789ABCDEF);
  encoder.boolean(true);
  encoder.string("name");
  encoder.structure(Pair{7, 8});
  Decoder decoder(bytes);
  EXPECT_EQ(decoder.u8(), 0x12);
  EXPECT_EQ(decoder.u16(), 0x3456);
  EXPECT_EQ(decoder.u32(), 0x789ABCDEu);
  EXPECT_EQ(decoder.u64(), 0x0123456789ABCDEFu);
  EXPECT_TRUE(decoder.boolean());
  EXPECT_EQ(decoder.string(4), "name");
  EXPECT_EQ(decoder.structure<Pair>().b, 8u);
  EXPECT_TRUE(decoder.finish("the bytes"));
}

TEST(CodecTest, NumbersAreLittleEndian) {
  std::vector<std::byte> bytes;
  Encoder(bytes).u32(0x01020304);
  EXPECT_EQ(bytes, (std::vector{std::byte{4}, std::byte{3}, std::byte{2}, std::byte{1}}));
}

TEST(CodecTest, PastTheEndEverythingIsZero) {
  std::vector<std::byte> bytes(3, std::byte{0xFF});
  Decoder decoder(bytes);
  EXPECT_EQ(decoder.u32(), 0u);
  EXPECT_EQ(decoder.u8(), 0u);
  auto finished = decoder.finish("the clock's state");
  ASSERT_FALSE(finished);
  EXPECT_EQ(finished.error().text(),
            "the clock's state is too short or contains impossible values");
}

TEST(CodecTest, BytesTooManyAreRefused) {
  std::vector<std::byte> bytes(3);
  Decoder decoder(bytes);
  decoder.u8();
  auto finished = decoder.finish("state");
  ASSERT_FALSE(finished);
  EXPECT_EQ(finished.error().text(), "state has 2 bytes too many");
}

TEST(CodecTest, ABooleanIsZeroOrOne) {
  std::vector<std::byte> bytes{std::byte{2}};
  Decoder decoder(bytes);
  decoder.boolean();
  EXPECT_FALSE(decoder.ok());
}

TEST(CodecTest, AStringLongerThanAllowedIsRefused) {
  std::vector<std::byte> bytes;
  Encoder(bytes).string("12345");
  Decoder decoder(bytes);
  EXPECT_EQ(decoder.string(4), "");
  EXPECT_FALSE(decoder.ok());
}

}  // namespace
}  // namespace base
