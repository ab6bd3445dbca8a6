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

// Read back as a debugger does: by the program headers.
TEST_F(ExportMemory, ACoreHasTheMemoryAtItsAddresses) {
  std::string path = store.file("core");
  std::vector<CoreCpu> cpus(2);
  cpus[1].regs.rip = 0x1234;
  auto exported = export_core(*store.load(ids[2]), cpus, path, kRefuse, {});
  ASSERT_TRUE(exported) << exported.error().text();
  Elf64_Ehdr header{};
  std::memcpy(&header, read_at(path, 0, sizeof header).data(), sizeof header);
  EXPECT_EQ(header.e_type, ET_CORE);
  ASSERT_EQ(header.e_phnum, 3);
  std::vector<Elf64_Phdr> segments(3);
  std::string table = read_at(path, header.e_phoff, 3 * sizeof(Elf64_Phdr));
  std::memcpy(segments.data(), table.data(), table.size());
  EXPECT_EQ(segments[0].p_type, static_cast<uint32_t>(PT_NOTE));
  EXPECT_EQ(segments[1].p_paddr, 0u);
  EXPECT_EQ(segments[1].p_filesz, SmallStore::kLowPages * kPageBytes);
  EXPECT_EQ(segments[2].p_paddr, SmallStore::kHighStart);
  expect_memory(path, ids[2], segments[1].p_offset, segments[2].p_offset);
  EXPECT_EQ(std::filesystem::file_size(path), segments[2].p_offset + segments[2].p_filesz);
}

// What `command` prints; "" where it is not installed.
std::string output_of(const std::string& command) {
  FILE* pipe = ::popen((command + " 2>&1").c_str(), "r");
  std::string text;
  char chunk[4096];
  while (size_t count = std::fread(chunk, 1, sizeof chunk, pipe)) text.append(chunk, count);
  int status = ::pclose(pipe);
  return WIFEXITED(status) && WEXITSTATUS(status) == 127 ? "" : text;
}

TEST_F(ExportMemory, GdbOpensTheCore) {
  std::string path = store.file("core");
  std::vector<CoreCpu> cpus(2);
  cpus[0].regs.rip = 0x7000;
  cpus[1].regs.rip = 0x1234;
  ASSERT_TRUE(export_core(*store.load(ids[2]), cpus, path, kRefuse, {}));
  std::string text = output_of(
      "gdb -nx -batch -ex 'info threads' -ex 'thread 2' -ex 'print $rip' "
      "-ex 'x/s 0x7000' -ex 'x/s 0x100001000' -c " +
      path);
  if (text.empty()) GTEST_SKIP() << "gdb is not installed";
  EXPECT_THAT(text, HasSubstr("0x1234"));
  EXPECT_THAT(text, HasSubstr("space 0 page 7 version 3; "));
  EXPECT_THAT(text, HasSubstr("space 0 page 3001 version 2; "));
}

}  // namespace
}  // namespace snapshot
