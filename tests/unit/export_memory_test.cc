#include "snapshot/export_memory.h"

#include <elf.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "tests/support/small_store.h"

namespace snapshot {
namespace {

using snapshot_test::SmallStore;
using testing::HasSubstr;
constexpr auto kRefuse = OutputFile::Existing::kRefuse;

std::string read_at(const std::string& path, uint64_t offset, uint64_t bytes) {
  std::ifstream file(path, std::ios::binary);
  std::string content(bytes, '?');
  file.seekg(static_cast<std::streamoff>(offset));
  file.read(content.data(), static_cast<std::streamsize>(bytes));
  content.resize(static_cast<size_t>(file.gcount()));
  return content;
}

// A chain: pages at both ends of regions, one written twice, one zeroed again.
struct ExportMemory : testing::Test {
  ExportMemory() {
    SmallStore::Writes first;
    for (uint64_t page = 0; page < SmallStore::kRamPages; page += 7) first[page] = 1;
    first[SmallStore::kLowPages - 1] = 1;
    first[SmallStore::kLowPages] = 1;
    first[SmallStore::kRamPages - 1] = 1;
    ids.push_back(store.take(Kind::kFull, first));
    ids.push_back(store.take(Kind::kIncremental, {{5, 2}, {7, 2}, {14, 0}, {3001, 2}}));
    ids.push_back(store.take(Kind::kIncremental, {{7, 3}, {2047, 3}, {2048, 3}, {2049, 3}}));
  }
  void expect_memory(const std::string& path, const Id& id, uint64_t low, uint64_t high) {
    for (uint64_t page = 0; page < SmallStore::kRamPages; ++page) {
      uint64_t offset = page < SmallStore::kLowPages
                            ? low + page * kPageBytes
                            : high + (page - SmallStore::kLowPages) * kPageBytes;
      ASSERT_TRUE(read_at(path, offset, kPageBytes) == store.ram(id, page)) << page;
    }
  }
  SmallStore store;
  std::vector<Id> ids;
};

TEST_F(ExportMemory, IsWhatWasCommittedAtEachPointOfTheChain) {
  for (size_t i = 0; i < ids.size(); ++i) {
    std::string path = store.file("memory" + std::to_string(i));
    auto exported = export_memory(*store.load(ids[i]), path, kRefuse, {});
    ASSERT_TRUE(exported) << exported.error().text();
    expect_memory(path, ids[i], 0, SmallStore::kHighStart);
    EXPECT_EQ(std::filesystem::file_size(path),
              SmallStore::kHighStart + SmallStore::kHighPages * kPageBytes);
  }
}

TEST_F(ExportMemory, HoleAndZeroPagesTakeNoSpace) {
  std::string path = store.file("memory");
  ASSERT_TRUE(export_memory(*store.load(ids[0]), path, kRefuse, {}));
  struct stat info{};
  ASSERT_EQ(::stat(path.c_str(), &info), 0);
  EXPECT_LT(static_cast<uint64_t>(info.st_blocks) * 512, SmallStore::kRamPages * kPageBytes / 2);
}

TEST_F(ExportMemory, StoppedItLeavesNothing) {
  uint64_t calls = 0;
  auto stop_at_second = [&](uint64_t, uint64_t total) {
    EXPECT_EQ(total, SmallStore::kRamPages * kPageBytes);
    return ++calls < 2;
  };
  auto exported = export_memory(*store.load(ids[0]), store.file("memory"), kRefuse, stop_at_second);
  ASSERT_FALSE(exported);
  EXPECT_THAT(exported.error().text(), HasSubstr("interrupted"));
  EXPECT_FALSE(std::filesystem::exists(store.file("memory")));
}

TEST_F(ExportMemory, DamageIsASentenceAndLeavesNothing) {
  for (const auto& entry : std::filesystem::directory_iterator(store.file("store/packs"))) {
    std::fstream pack(entry.path(), std::ios::in | std::ios::out | std::ios::binary);
    pack.seekp(kPageBytes + 100);
    pack.put('#');
  }
  auto exported = export_memory(*store.load(ids[0]), store.file("memory"), kRefuse, {});
  ASSERT_FALSE(exported);
  EXPECT_THAT(exported.error().text(), HasSubstr("packs/"));
  EXPECT_FALSE(std::filesystem::exists(store.file("memory")));
}

TEST_F(ExportMemory, ACoreNeedsVcpus) {
  auto exported = export_core(*store.load(ids[0]), store.file("core"), kRefuse, {});
  ASSERT_FALSE(exported);
  EXPECT_THAT(exported.error().text(), HasSubstr("no vCPU"));
}

}  // namespace
}  // namespace snapshot
