// snapshot/FORMAT.md is true: its worked example is what the program writes, byte by byte, and a
// reader that was written from it alone reads what the program reads.
#include <fcntl.h>
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "cli/command_line.h"
#include "tests/support/example_store.h"
#include "tests/support/small_store.h"
#include "vmm/base/fd.h"
#include "vmm/base/mapping.h"

namespace snapshot {
namespace {

using snapshot_test::SmallStore;
using ::testing::HasSubstr;

const std::string kSource = MINIVMM_SOURCE_DIR;

std::string read_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  EXPECT_TRUE(file) << path;
  std::stringstream all;
  all << file.rdbuf();
  return all.str();
}

// The dumps of the document. A file begins with a line "== NAME, N bytes"; its other lines are
// "OFFSET  BYTES  COMMENT", in hexadecimal, the bytes separated by single blanks. "*" after the
// bytes repeats the last of them up to the next line's offset.
std::map<std::string, std::string> dumps(const std::string& document) {
  std::map<std::string, std::string> files;
  std::istringstream lines(document);
  std::string line;
  std::string* file = nullptr;
  size_t size = 0;
  char fill = 0;
  auto fill_up = [&](size_t to) {
    if (file && file->size() < to) file->resize(to, fill);
  };
  while (std::getline(lines, line)) {
    if (line.starts_with("== ")) {
      const size_t comma = line.find(", ");
      file = &files[line.substr(3, comma - 3)];
      size = std::stoul(line.substr(comma + 2));
      continue;
    }
    if (!file) continue;
    if (line.empty() || line.starts_with("```")) {
      fill_up(size);
      EXPECT_EQ(file->size(), size) << line;
      file = nullptr;
      continue;
    }
    std::string fields = line.substr(0, line.find("  ", line.find("  ") + 2));
    std::istringstream words(fields);
    std::string word;
    words >> word;
    const size_t offset = std::stoul(word, nullptr, 16);
    fill_up(offset);
    EXPECT_EQ(file->size(), offset) << line;
    while (words >> word && word != "*") {
      fill = static_cast<char>(std::stoul(word, nullptr, 16));
      file->push_back(fill);
    }
    if (word != "*") fill = 0;
  }
  return files;
}

void collect(const test::DiskImage& image, test::Inode inode, const std::string& path,
             std::map<std::string, std::string>& into) {
  const test::Node& node = image.nodes.at(inode);
  for (const auto& [name, entry] : node.entries) {
    collect(image, entry, path.empty() ? name : path + "/" + name, into);
  }
  if (node.directory) return;
  std::string content(node.contents.size(), '\0');
  node.contents.read(0, std::as_writable_bytes(std::span(content)));
  into[path] = std::move(content);
}

std::string hexadecimal(const std::string& bytes, size_t from) {
  std::string text;
  for (size_t i = from; i < std::min(from + 16, bytes.size()); ++i) {
    text += fmt::format("{:02x} ", static_cast<unsigned char>(bytes[i]));
  }
  return text;
}

TEST(FormatDocumentTest, TheWorkedExampleIsWhatIsWritten) {
  test::ModelFileSystem files;
  test::make_example_store(files);
  std::map<std::string, std::string> written;
  collect(files.image(), test::kRootInode, "", written);
  const auto documented = dumps(read_file(kSource + "/snapshot/FORMAT.md"));
  for (const auto& [name, content] : written) {
    if (content.empty()) continue;  // LOCK
    auto found = documented.find(name);
    ASSERT_NE(found, documented.end()) << name << " is not in the document";
    const std::string& dump = found->second;
    EXPECT_EQ(dump.size(), content.size()) << name;
    const auto [at, other] = std::ranges::mismatch(dump, content);
    if (at == dump.end()) continue;
    const auto offset = static_cast<size_t>(at - dump.begin());
    ADD_FAILURE() << fmt::format("{} at {:x}: document {}, written {}", name, offset,
                                 hexadecimal(dump, offset), hexadecimal(content, offset));
  }
  for (const auto& [name, dump] : documented) {
    EXPECT_TRUE(written.contains(name)) << "there is no " << name;
  }
}

// "" where they are: files with large holes, compared where either has data.
std::string differs(const std::string& one, const std::string& other) {
  const base::Fd files[] = {base::open_file(one, O_RDONLY).value(),
                            base::open_file(other, O_RDONLY).value()};
  const uint64_t size = std::filesystem::file_size(one);
  if (size != std::filesystem::file_size(other)) return "their sizes differ";
  std::vector<char> buffers[] = {std::vector<char>(1 << 20), std::vector<char>(1 << 20)};
  for (uint64_t at = 0; at < size;) {
    off_t next = static_cast<off_t>(size);
    for (const base::Fd& file : files) {
      const off_t data = ::lseek(file.get(), static_cast<off_t>(at), SEEK_DATA);
      if (data >= 0) next = std::min(next, data);
    }
    at = static_cast<uint64_t>(next);
    const uint64_t count = std::min<uint64_t>(size - at, buffers[0].size());
    for (int i : {0, 1})
      EXPECT_TRUE(base::read_exact(files[i].get(), buffers[i].data(), count, at));
    if (!std::equal(buffers[0].begin(), buffers[0].begin() + static_cast<ptrdiff_t>(count),
                    buffers[1].begin())) {
      return "they differ behind " + std::to_string(at);
    }
    at += count;
  }
  return "";
}

class IndependentReaderTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (std::system("command -v python3 >/dev/null") != 0) GTEST_SKIP() << "there is no python3";
  }
  // "" where both write the same.
  std::string readers_differ(const std::vector<std::string>& reader,
                             const std::vector<std::string>& program) {
    std::string command = "python3 '" + kSource + "/tests/tools/read_store.py' " + small_.path();
    for (const std::string& argument : reader) command += " " + argument;
    const std::string messages = small_.file("messages");
    const int status = std::system((command + " " + read_ + " 2>" + messages).c_str());
    if (status != 0) return read_file(messages);
    std::vector<const char*> words{"minivmm", "export", "--force"};
    for (const std::string& argument : program) words.push_back(argument.c_str());
    if (cli::run_command_line(static_cast<int>(words.size()), words.data()) != 0) return "export";
    return differs(read_, exported_);
  }
  std::string memory_differs(const Id& id) {
    return readers_differ({id.text(), "memory"},
                          {small_.path() + "@" + id.text(), "--memory", exported_});
  }
  std::string disk_differs(const Id& id) {
    return readers_differ({id.text(), "disk", "0", small_.base_path()},
                          {small_.path() + "@" + id.text(), "--disk", "0=" + exported_,
                           "--disk-base", "0=" + small_.base_path()});
  }

  SmallStore small_;
  const std::string read_ = small_.file("read"), exported_ = small_.file("exported");
};

// Runs of both kinds, merged and not; zero pages, pages written again, pages of several packs.
TEST_F(IndependentReaderTest, ReadsWhatExportWrites) {
  SmallStore::Writes most, some;
  for (uint64_t page = 0; page < SmallStore::kRamPages; page += 1 + page % 3 / 2) most[page] = 1;
  for (uint64_t page = 1; page < SmallStore::kRamPages; page += 7) some[page] = page % 2 ? 2 : 0;
  std::vector<Id> ids;
  ids.push_back(small_.take(Kind::kFull, most));
  ids.push_back(small_.take(Kind::kIncremental, some, {{3, 1}, {40, 1}}));
  ids.push_back(small_.take(Kind::kIncremental, {{5, 3}, {2999, 0}, {3000, 3}}, {{3, 0}}));
  for (const Id& id : ids) {
    EXPECT_EQ(memory_differs(id), "");
    EXPECT_EQ(disk_differs(id), "");
  }
  small_.write_disk({{2, 9}, {3, 9}, {40, 0}});
  const std::string branch = small_.branch().id().text();
  small_.stop_machine();
  EXPECT_EQ(readers_differ({branch, "head", "0", small_.base_path()},
                           {small_.path(), "--head", branch, "--disk", "0=" + exported_,
                            "--disk-base", "0=" + small_.base_path()}),
            "");
}

// Runs of three levels, a flat one and a delta.
TEST_F(IndependentReaderTest, ReadsDeepIndexes) {
  constexpr uint64_t kPages = 100'000;
  auto branch = small_.store().create_branch({}, "wide").value();
  auto take = [&](Kind kind, uint64_t pages, uint64_t stored_every) {
    auto commit = branch->begin(kind).value();
    const Slot slot = commit->create_pack(kPageBytes).value();
    const auto buffer = base::Mapping::anonymous(kPageBytes).value();
    const std::span page(buffer.data(), kPageBytes);
    std::vector<PageEntry> entries;
    uint64_t offset = kPackHeaderBytes;
    for (uint64_t number = kPages - pages; number < kPages; ++number) {
      entries.push_back({.page = number});
      if (number % stored_every != 0) continue;
      std::ranges::fill(page, static_cast<std::byte>(number / stored_every + pages));
      EXPECT_TRUE(commit->file(slot).write(offset, page));
      entries.back() = {number, small_.store().hash(page), slot, offset};
      offset += kPageBytes;
    }
    EXPECT_TRUE(commit->set_pages(kRamSpace, kPages, std::move(entries)));
    SnapshotNotes notes;
    notes.memory = {{0, kPages * kPageBytes}};
    return commit->finish({}, notes).value();
  };
  const auto flat = take(Kind::kFull, kPages, 9973);
  const auto delta = take(Kind::kIncremental, kPages - 20'000, 7919);
  const auto& runs = delta->manifest().spaces[0].runs;
  ASSERT_EQ(runs.size(), 2u);
  EXPECT_EQ(runs[0].kind, RunInfo::Kind::kDelta);
  EXPECT_EQ(runs[1].kind, RunInfo::Kind::kFlat);
  for (const RunInfo& run : runs) {
    EXPECT_EQ(RunShape::of(run.kind, run.entries, run.head_blocks).level_blocks.size(), 3u);
  }
  EXPECT_EQ(memory_differs(flat->id()), "");
  EXPECT_EQ(memory_differs(delta->id()), "");
}

TEST_F(IndependentReaderTest, ChecksWhatItReads) {
  const Id id = small_.take(Kind::kFull, {{1, 1}});
  for (const char* folder : {"packs", "runs", "snap"}) {
    for (const auto& entry : std::filesystem::directory_iterator(small_.path() + "/" + folder)) {
      const std::string whole = read_file(entry.path());
      std::fstream(entry.path(), std::ios::in | std::ios::out | std::ios::binary)
          .seekp(static_cast<std::streamoff>(whole.size() - 1 - whole.size() / 3))
          .put('#');
      EXPECT_THAT(memory_differs(id), HasSubstr("hash")) << entry.path();
      std::ofstream(entry.path(), std::ios::binary) << whole;
    }
  }
  EXPECT_EQ(memory_differs(id), "");
}

}  // namespace
}  // namespace snapshot
