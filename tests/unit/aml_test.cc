#include "vmm/acpi/aml.h"

#include <gtest/gtest.h>

#include "vmm/acpi/resources.h"

// Whole tables are checked against iasl in acpi_tables_test.cc; here are the encodings that a table
// of today may not contain, byte by byte from ACPI 6.5 chapter 20.
namespace vmm::acpi::aml {
namespace {

using Bytes = std::vector<uint8_t>;

TEST(Aml, IntegersTakeTheShortestForm) {
  EXPECT_EQ(integer(0).bytes, (Bytes{0x00}));
  EXPECT_EQ(integer(1).bytes, (Bytes{0x01}));
  EXPECT_EQ(integer(2).bytes, (Bytes{0x0A, 2}));
  EXPECT_EQ(integer(0xFF).bytes, (Bytes{0x0A, 0xFF}));
  EXPECT_EQ(integer(0x100).bytes, (Bytes{0x0B, 0x00, 0x01}));
  EXPECT_EQ(integer(0x1'0000).bytes, (Bytes{0x0C, 0, 0, 1, 0}));
  EXPECT_EQ(integer(0x1'0000'0000).bytes, (Bytes{0x0E, 0, 0, 0, 0, 1, 0, 0, 0}));
}

TEST(Aml, NamesArePaddedAndCounted) {
  EXPECT_EQ(reference("X").bytes, (Bytes{'X', '_', '_', '_'}));
  EXPECT_EQ(reference("\\_S5").bytes, (Bytes{'\\', '_', 'S', '5', '_'}));
  EXPECT_EQ(reference("_SB.PCI0").bytes, (Bytes{0x2E, '_', 'S', 'B', '_', 'P', 'C', 'I', '0'}));
  EXPECT_EQ(reference("\\_SB.PCI0.A").bytes,
            (Bytes{'\\', 0x2F, 3, '_', 'S', 'B', '_', 'P', 'C', 'I', '0', 'A', '_', '_', '_'}));
}

// A buffer of `size` bytes holds a two-byte or longer integer before them.
Bytes length_field(size_t size, size_t field_bytes) {
  Bytes encoded = buffer(Bytes(size)).bytes;
  EXPECT_EQ(encoded[0], 0x11);
  size_t integer_bytes = integer(size).bytes.size();
  EXPECT_EQ(encoded.size(), 1 + field_bytes + integer_bytes + size);
  return {encoded.begin() + 1, encoded.begin() + 1 + static_cast<ptrdiff_t>(field_bytes)};
}

TEST(Aml, PackageLengthCountsItself) {
  EXPECT_EQ(length_field(60, 1), (Bytes{0x3F}));                // 63 in all, the most for one byte
  EXPECT_EQ(length_field(61, 2), (Bytes{0x41, 0x04}));          // 65: 1 + 4 * 16
  EXPECT_EQ(length_field(4090, 2), (Bytes{0x4F, 0xFF}));        // 4095
  EXPECT_EQ(length_field(4091, 3), (Bytes{0x81, 0x00, 0x01}));  // 4097
  EXPECT_EQ(length_field(0x10'0000 - 9, 3), (Bytes{0x8F, 0xFF, 0xFF}));
  EXPECT_EQ(length_field(0x10'0000 - 8, 4), (Bytes{0xC1, 0x00, 0x00, 0x01}));
}

TEST(Aml, IdsAreCompressed) {
  EXPECT_EQ(eisa_id("PNP0A08").bytes, (Bytes{0x0C, 0x41, 0xD0, 0x0A, 0x08}));
  EXPECT_EQ(uuid("33DB4D5B-1FF7-401C-9657-7441C03DD766").bytes,
            (Bytes{0x11, 0x13, 0x0A, 0x10, 0x5B, 0x4D, 0xDB, 0x33, 0xF7, 0x1F,
                   0x1C, 0x40, 0x96, 0x57, 0x74, 0x41, 0xC0, 0x3D, 0xD7, 0x66}));
}

TEST(Aml, ObjectsNestTheirContents) {
  EXPECT_EQ(device("D", {name("_UID", integer(3))}).bytes,
            (Bytes{0x5B, 0x82, 0x0C, 'D', '_', '_', '_', 0x08, '_', 'U', 'I', 'D', 0x0A, 3}));
  EXPECT_EQ(package({integer(5), string("a")}).bytes,
            (Bytes{0x12, 0x07, 2, 0x0A, 5, 0x0D, 'a', 0}));
  EXPECT_EQ(method("M", 2, {return_value(argument(1))}).bytes,
            (Bytes{0x14, 0x08, 'M', '_', '_', '_', 0x0A, 0xA4, 0x69}));
}

TEST(Aml, ResourcesEndWithATag) {
  EXPECT_EQ(resource_template({io(0x3F8, 8), irq(4)}).bytes,
            (Bytes{0x11, 0x10, 0x0A, 0x0D, 0x47, 1, 0xF8, 0x03, 0xF8, 0x03, 1, 8, 0x22, 0x10, 0,
                   0x79, 0}));
  EXPECT_EQ(memory32_fixed(Gpa{0xE000'0000}, 0x10'0000).bytes,
            (Bytes{0x86, 9, 0, 1, 0, 0, 0, 0xE0, 0, 0, 0x10, 0}));
}

}  // namespace
}  // namespace vmm::acpi::aml
