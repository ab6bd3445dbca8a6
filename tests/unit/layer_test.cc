#include "snapshot/disk/layer.h"

#include <gmock/gmock.h>

#include "tests/support/model_storage.h"

namespace snapshot {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr uint64_t kBlocks = 2000;
const Format kFormat{{}, 99};
const Id kId{3, 4};

TEST(PresenceMapTest, KnowsTheLastThingThatHappenedToABlock) {
  PresenceMap map(kBlocks);
  EXPECT_EQ(map.get(0).state, Presence::kAbsent);
  map.set_data(5, 55);
  map.set_data(1999, 66);
  EXPECT_EQ(map.get(5).hash, 55u);
  EXPECT_TRUE(map.has_data(0, 6));
  EXPECT_FALSE(map.has_data(6, 1993));
  map.set_zero(4, 3);
  EXPECT_EQ(map.get(5).state, Presence::kZero);
  EXPECT_EQ(map.get(7).state, Presence::kAbsent);
  EXPECT_EQ(map.get(1999).state, Presence::kData);
  map.set_zero(0, kBlocks);
  map.set_data(700, 7);
  uint64_t zeroes = 0, next = 0;
  map.for_each([&](uint64_t block, PresenceMap::Block found) {
    EXPECT_EQ(block, next++);
    EXPECT_EQ(found.hash, block == 700 ? 7u : 0u);
    zeroes += found.state == Presence::kZero;
  });
  EXPECT_EQ(next, kBlocks);
  EXPECT_EQ(zeroes, kBlocks - 1);
}

std::vector<std::byte> log_of(const std::vector<std::vector<LayerRange>>& flushes) {
  LayerLogEncoder encoder(kFormat, kId, kBlocks);
  std::vector<std::byte> log;
  for (const auto& ranges : flushes) encoder.encode(ranges, log);
  return log;
}

TEST(LayerLogTest, GivesBackWhatWasAppended) {
  LayerRange a{0, 1, Presence::kData}, b{7, 1993, Presence::kZero}, c{8, 2, Presence::kData};
  auto log = log_of({{a, b}, {c}});
  EXPECT_EQ(log.size(), kLayerLogHeaderBytes + 3 * kLayerLogRecordBytes);
  EXPECT_THAT(*decode_layer_log(kFormat, kId, kBlocks, log), ElementsAre(a, b, c));
  EXPECT_THAT(*decode_layer_log(kFormat, kId, kBlocks, {}), IsEmpty());
}

TEST(LayerLogTest, ATornTailIsIgnoredWhereverItIsTorn) {
  LayerRange a{0, 1, Presence::kData}, b{7, 1993, Presence::kZero}, c{8, 2, Presence::kData};
  auto log = log_of({{a, b}, {c}});
  for (size_t end = 0; end < log.size(); ++end) {
    size_t whole =
        end < kLayerLogHeaderBytes ? 0 : (end - kLayerLogHeaderBytes) / kLayerLogRecordBytes;
    auto cut = decode_layer_log(kFormat, kId, kBlocks, std::span(log).first(end));
    ASSERT_TRUE(cut);
    EXPECT_EQ(cut->size(), whole) << end;
    // The file's size may be there before its content.
    auto zeroes = log;
    std::fill(zeroes.begin() + static_cast<ptrdiff_t>(end), zeroes.end(), std::byte{0});
    auto filled = decode_layer_log(kFormat, kId, kBlocks, zeroes);
    ASSERT_TRUE(filled) << end;
    EXPECT_GE(filled->size(), whole) << end;  // a record may end in zeroes
    EXPECT_LE(filled->size(), whole + 1) << end;
    // And each byte of it may be damaged.
    auto damaged = log;
    damaged[end] ^= std::byte{0x40};
    auto found = decode_layer_log(kFormat, kId, kBlocks, damaged);
    ASSERT_TRUE(found) << end;
    EXPECT_EQ(found->size(), whole) << end;
  }
}

TEST(LayerLogTest, AnotherLayersLogIsRefused) {
  auto log = log_of({{{0, 1, Presence::kData}}});
  auto other = decode_layer_log(kFormat, {3, 5}, kBlocks, log);
  ASSERT_FALSE(other);
  EXPECT_THAT(other.error().text(), HasSubstr("is that of layer"));
  auto size = decode_layer_log(kFormat, kId, kBlocks + 1, log);
  ASSERT_FALSE(size);
  EXPECT_THAT(size.error().text(), HasSubstr("disk of 2000 blocks, this one has 2001"));
}

TEST(LayerLogTest, RecordsThatMakeNoSenseAreDamage) {
  for (LayerRange bad :
       {LayerRange{0, 0, Presence::kData}, LayerRange{kBlocks, 1, Presence::kData},
        LayerRange{1, UINT64_MAX, Presence::kZero}, LayerRange{0, 1, Presence::kAbsent}}) {
    auto decoded = decode_layer_log(kFormat, kId, kBlocks, log_of({{bad}}));
    ASSERT_FALSE(decoded);
    EXPECT_THAT(decoded.error().text(), HasSubstr("damaged at record 1"));
  }
}

TEST(LayerTest, LogsAChangeOnceAndJoinsNeighbours) {
  Layer layer(kFormat, {kId, nullptr, nullptr, nullptr}, kBlocks, true);
  EXPECT_FALSE(layer.needs_sync());
  for (uint64_t block = 10; block < 20; ++block) layer.set_data(block, block);
  layer.set_data(12, 1);
  EXPECT_EQ(layer.unlogged(), 1u);
  auto append = layer.begin_sync();
  EXPECT_EQ(append.offset, 0u);
  EXPECT_THAT(*decode_layer_log(kFormat, kId, kBlocks, append.records),
              ElementsAre(LayerRange{10, 10, Presence::kData}));
  // New content of a block that is there changes nothing in the log, but wants a sync.
  layer.set_data(10, 2);
  EXPECT_TRUE(layer.needs_sync());
  uint64_t end = append.records.size();
  append = layer.begin_sync();
  EXPECT_EQ(append.offset, end);
  EXPECT_THAT(append.records, IsEmpty());
  EXPECT_FALSE(layer.needs_sync());
}

TEST(LayerTest, IsRecoveredWithTheHashesOfItsData) {
  test::ModelFileSystem system;
  auto storage = system.storage();
  auto data = *storage->create("data", Storage::Caching::kCached);
  auto log = *storage->create("log", Storage::Caching::kCached);
  std::vector<std::byte> page(kPageBytes, std::byte{7});
  ASSERT_TRUE(data->write(3 * kPageBytes, page));
  auto records = log_of({{{2, 2, Presence::kData}, {1990, 10, Presence::kData}},
                         {{1990, 10, Presence::kZero}, {5, 1, Presence::kZero}}});
  ASSERT_TRUE(log->write(0, records));
  auto map = recover_layer(kFormat, kId, kBlocks, *data, *log);
  ASSERT_TRUE(map) << map.error().text();
  EXPECT_EQ(map->get(3).hash, kFormat.hash(page));
  EXPECT_EQ(map->get(2).state, Presence::kData);
  EXPECT_EQ(map->get(5).state, Presence::kZero);
  EXPECT_EQ(map->get(1995).state, Presence::kZero);
  EXPECT_EQ(map->get(4).state, Presence::kAbsent);
}

}  // namespace
}  // namespace snapshot
