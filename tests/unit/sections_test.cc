#include "vmm/base/sections.h"

#include <gtest/gtest.h>

namespace base {
namespace {

SectionReader read_back(const SectionWriter& writer) {
  std::vector<SectionReader::Section> sections;
  for (size_t i = 0; i < writer.count(); ++i) {
    auto data = writer.data(i);
    sections.push_back({std::string(writer.tag(i)), writer.version(i), {data.begin(), data.end()}});
  }
  return SectionReader(std::move(sections));
}

TEST(SectionsTest, EachSectionHasItsOwnBytes) {
  SectionWriter writer;
  writer.begin("clock", 1).u64(5);
  writer.begin("empty", 2);
  writer.begin("rtc", 3).u8(7);
  SectionReader reader = read_back(writer);
  auto clock = reader.take("clock", 1);
  ASSERT_TRUE(clock);
  EXPECT_EQ(clock->u64(), 5u);
  EXPECT_TRUE(clock->finish("clock"));
  EXPECT_TRUE(reader.take("empty", 2)->finish("empty"));
  EXPECT_EQ(reader.take("rtc", 3)->u8(), 7u);
  EXPECT_TRUE(reader.finish());
}

TEST(SectionsTest, ASectionNobodyTookIsNamed) {
  SectionWriter writer;
  writer.begin("clock", 1);
  writer.begin("sound", 1);
  SectionReader reader = read_back(writer);
  ASSERT_TRUE(reader.take("clock", 1));
  auto finished = reader.finish();
  ASSERT_FALSE(finished);
  EXPECT_NE(finished.error().text().find("'sound'"), std::string::npos);
}

TEST(SectionsTest, MissingAndOtherVersionsAreRefused) {
  SectionWriter writer;
  writer.begin("clock", 2);
  SectionReader reader = read_back(writer);
  EXPECT_EQ(reader.take("rtc", 1).error().text(), "the snapshot has no section 'rtc'");
  EXPECT_EQ(reader.take("clock", 1).error().text(),
            "section 'clock' has version 2, this minivmm reads version 1");
}

TEST(SectionsTest, ClearedAndUsedAgain) {
  SectionWriter writer;
  writer.begin("a", 1).u64(1);
  writer.clear();
  writer.begin("b", 1).u8(2);
  ASSERT_EQ(writer.count(), 1u);
  EXPECT_EQ(writer.tag(0), "b");
  EXPECT_EQ(writer.data(0).size(), 1u);
}

}  // namespace
}  // namespace base
