#include "tests/support/example_store.h"

#include <array>
#include <stdexcept>

#include "snapshot/disk/base_identity.h"
#include "snapshot/disk/layer.h"

namespace test {
namespace {

using snapshot::kPageBytes;

constexpr uint64_t kDiskBlocks = 4;
constexpr uint64_t kDiskBytes = 3 * kPageBytes + 512;

template <typename T>
T must(base::Result<T> result) {
  if (!result) throw std::runtime_error(result.error().text());
  if constexpr (!std::is_void_v<T>) return std::move(*result);
}

std::array<std::byte, kPageBytes> filled(char with) {
  std::array<std::byte, kPageBytes> page;
  page.fill(static_cast<std::byte>(with));
  return page;
}

class ExampleMachine {
 public:
  explicit ExampleMachine(snapshot::Store& store)
      : store_(store), branch_(must(store.create_branch({}, "job1"))) {}

  std::unique_ptr<snapshot::Layer> new_layer() {
    return std::make_unique<snapshot::Layer>(store_.format(), must(branch_->create_layer(0)),
                                             kDiskBlocks, true);
  }

  void write(snapshot::Layer& layer, uint64_t block, char with) {
    const auto content = filled(with);
    must(layer.data().write(block * kPageBytes, content));
    layer.set_data(block, store_.hash(content));
  }

  static void flush(snapshot::Layer& layer) {
    auto append = layer.begin_sync();
    must(layer.data().sync());
    must(layer.log().write(append.offset, append.records));
    must(layer.log().sync());
  }

  // `pages`: number and content, 0 where it is zero.
  void take(snapshot::Kind kind, std::vector<std::pair<uint64_t, char>> pages,
            snapshot::Layer* sealed) {
    auto commit = must(branch_->begin(kind));
    const auto pack = must(commit->create_pack(pages.size() * kPageBytes));
    uint64_t offset = snapshot::kPackHeaderBytes;
    std::vector<snapshot::PageEntry> entries;
    for (const auto& [page, with] : pages) {
      if (with == 0) {
        entries.push_back({page, 0, snapshot::kSlotZero, 0});
        continue;
      }
      const auto content = filled(with);
      must(commit->file(pack).write(offset, content));
      entries.push_back({page, store_.hash(content), pack, offset});
      offset += kPageBytes;
    }
    must(commit->set_pages(snapshot::kRamSpace, 4, std::move(entries)));
    std::vector<snapshot::PageEntry> blocks;
    if (sealed) {
      const auto slot = commit->add_layer(0, sealed->id(), sealed->data());
      sealed->map().for_each([&](uint64_t block, snapshot::PresenceMap::Block found) {
        blocks.push_back({block, found.hash, slot, block * kPageBytes});
      });
    }
    must(commit->set_pages(snapshot::disk_space(0), kDiskBlocks, std::move(blocks)));
    must(commit->finish(sections(), notes()));
  }

 private:
  static base::SectionWriter sections() {
    base::SectionWriter sections;
    sections.begin("clock", 1).u64(5);
    sections.begin("i8042", 1);
    return sections;
  }

  snapshot::SnapshotNotes notes() {
    snapshot::SnapshotNotes notes;
    notes.memory = {{0, 2 * kPageBytes}, {uint64_t{4} << 30, 2 * kPageBytes}};
    const auto base = snapshot::encode_base({.device = 0x801,
                                             .inode = 42,
                                             .size = kDiskBytes,
                                             .modified_ns = 7,
                                             .changed_ns = 8,
                                             .samples = 9});
    notes.disks = {{.name = "disk0",
                    .size = kDiskBytes,
                    .base = std::string(reinterpret_cast<const char*>(base.data()), base.size())}};
    notes.config = R"({"vcpus":1})";
    notes.time_ns = 1'800'000'000'000'000'000 + 30'000'000'000 * taken_++;
    notes.pause_ns = 187'000;
    return notes;
  }

  snapshot::Store& store_;
  std::unique_ptr<snapshot::Branch> branch_;
  uint64_t taken_ = 0;
};

}  // namespace

snapshot::Id example_id(uint64_t number) {
  return {0xA0A1'A2A3'A4A5'A600 + number, 0xB0B1'B2B3'B4B5'B600 + number};
}

void make_example_store(ModelFileSystem& files) {
  uint64_t ids = 0;
  auto store = must(snapshot::Store::create(
      files.storage(), [&ids]() -> base::Result<snapshot::Id> { return example_id(++ids); }));
  ExampleMachine machine(*store);
  auto first = machine.new_layer();
  machine.take(snapshot::Kind::kFull, {{0, 'A'}, {2, 'B'}}, nullptr);
  machine.write(*first, 1, 'D');
  ExampleMachine::flush(*first);
  auto second = machine.new_layer();
  machine.take(snapshot::Kind::kIncremental, {{2, 0}, {3, 'C'}}, first.get());
  machine.write(*second, 2, 'E');
  second->set_zero(0, 1);
  ExampleMachine::flush(*second);
}

}  // namespace test
