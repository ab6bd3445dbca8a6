// The store's reader on a store from elsewhere. The first byte chooses:
//   0  accidents: bytes of the store of FORMAT.md's example changed, files cut and exchanged. What
//      can be read of it then is what was written.
//   1  a file of that store replaced by the input, its own hash made right
//   2  malice: manifest and indexes from the input, changed afterwards, all hashes made right
// Then everything that reads a store is called.
#include <algorithm>
#include <array>
#include <cstring>
#include <map>
#include <string>
#include <tuple>
#include <vector>

#include "snapshot/disk/base_identity.h"
#include "snapshot/ram_regions.h"
#include "snapshot/space_reader.h"
#include "snapshot/store/store.h"
#include "snapshot/working_set.h"
#include "tests/fuzz/fuzz_input.h"
#include "tests/support/example_store.h"
#include "vmm/base/log.h"

namespace {

using namespace snapshot;
using test::Contents;
using test::DiskImage;
using Bytes = std::vector<std::byte>;
using PageBytes = std::array<std::byte, kPageBytes>;

// Larger spaces take time that says nothing.
constexpr uint64_t kMostPages = 700;

Contents& contents(DiskImage& image, const std::string& name) {
  return image.nodes.at(*image.find(name)).contents;
}

Bytes read(const Contents& from) {
  Bytes bytes(from.size());
  from.read(0, bytes);
  return bytes;
}

void replace(Contents& file, std::span<const std::byte> with) {
  file.resize(0);
  file.write(0, with);
}

uint64_t hash_of(std::span<const std::byte> bytes, uint64_t seed) {
  return Format{.uuid = {}, .seed = seed}.hash(bytes);
}

void put(Bytes& into, size_t at, uint64_t value) { std::memcpy(&into[at], &value, sizeof value); }

// --- what is called ---

void use_snapshot(const Store& store, const Snapshot& snapshot) {
  (void)snapshot.sections();
  (void)ram_regions(snapshot.manifest());
  for (const Disk& disk : snapshot.manifest().disks) {
    (void)decode_base(std::as_bytes(std::span(disk.base)));
  }
  for (const Space space : snapshot.spaces()) {
    const uint64_t pages = snapshot.pages(space);
    PageBytes page;
    std::vector<PageEntry> entries(std::min(pages, kMostPages));
    (void)snapshot.find_range(space, 0, entries);
    (void)snapshot.find_range(space, pages - entries.size(), entries);
    for (uint64_t i = 0; i < entries.size(); ++i) (void)snapshot.read_page(space, i, page);
    if (pages > 0) (void)snapshot.read_page(space, pages - 1, page);
    (void)snapshot.find(space, pages);
    if (pages <= kMostPages) {
      (void)SpaceReader(snapshot, space)
          .read({.data = [](auto, auto) { return base::Result<void>(); }, .zero = {}, .base = {}},
                {}, 0, 0);
    }
  }
  (void)load_working_set(store.storage(), snapshot.id(),
                         std::min(snapshot.pages(kRamSpace), kMostPages));
}

// A machine goes on from it: merges its indexes, adds to them.
void continue_snapshot(Store& store, const Snapshot& snapshot) {
  for (const Space space : snapshot.spaces()) {
    if (snapshot.pages(space) > kMostPages) return;
  }
  auto branch = store.create_branch(snapshot.id(), "next");
  if (!branch) return;
  (void)(*branch)->merge_if_due();
  auto commit = (*branch)->begin(Kind::kIncremental);
  if (!commit) return;
  const uint64_t pages = snapshot.pages(kRamSpace);
  if (pages > 0) (void)(*commit)->set_pages(kRamSpace, pages, {{.page = pages - 1}});
  SnapshotNotes notes;
  notes.memory = snapshot.manifest().memory;
  notes.disks = snapshot.manifest().disks;
  if (auto next = (*commit)->finish({}, notes)) use_snapshot(store, **next);
}

void use_store(const DiskImage& image) {
  test::ModelFileSystem files(image);
  auto store = Store::open(files.storage());
  if (!store) return;
  const auto infos = (*store)->list();
  FUZZ_CHECK(infos.has_value());
  (void)(*store)->heads();
  (void)(*store)->resolve("a");
  for (const SnapshotInfo& info : *infos) {
    auto snapshot = (*store)->load(info.id);
    if (!snapshot) continue;
    use_snapshot(**store, **snapshot);
    FUZZ_CHECK((*store)->verify({info.id}, {}).has_value());
    continue_snapshot(**store, **snapshot);
  }
  (void)(*store)->verify({}, {});
  (void)(*store)->recover();
  (void)(*store)->prune({.keep = 1, .remove = {}, .keep_ids = {}});
  (void)(*store)->verify({}, {});
}

// --- the store of the example ---

struct Example {
  Example() {
    test::ModelFileSystem files;
    test::make_example_store(files);
    image = files.image();
    auto store = std::move(*Store::open(files.storage()));
    for (const char* folder : {"snap", "runs", "packs", "layers", "heads"}) {
      const auto listed = std::move(*store->storage().list(folder));
      for (const std::string& name : listed) {
        if (!name.ends_with(kBranchLockSuffix)) names.push_back(folder + ("/" + name));
      }
    }
    names.push_back(kFormatName);
    const auto infos = std::move(*store->list());
    for (const SnapshotInfo& info : infos) {
      const auto snapshot = std::move(*store->load(info.id));
      for (const Space space : snapshot->spaces()) {
        for (uint64_t page = 0; page < snapshot->pages(space); ++page) {
          PageBytes bytes;
          if (snapshot->read_page(space, page, bytes)) pages[{info.id, space, page}] = bytes;
        }
      }
    }
  }
  DiskImage image;
  std::vector<std::string> names;
  std::map<std::tuple<Id, Space, uint64_t>, PageBytes> pages;
};

const Example& example() {
  static const Example one;
  return one;
}

void check_pages(const DiskImage& image) {
  test::ModelFileSystem files(image);
  auto store = Store::open(files.storage());
  if (!store) return;
  for (const auto& [where, expected] : example().pages) {
    const auto& [id, space, page] = where;
    auto snapshot = (*store)->load(id);
    PageBytes bytes;
    if (snapshot && (*snapshot)->read_page(space, page, bytes)) FUZZ_CHECK(bytes == expected);
  }
}

void accidents(fuzz::Input& input) {
  DiskImage image = example().image;
  auto file = [&]() -> const std::string& {
    return example().names[input.u8() % example().names.size()];
  };
  while (!input.empty()) {
    const std::string& name = file();
    switch (input.u8() % 4) {
      case 0:
        contents(image, name).resize(input.u16());
        break;
      case 1:
        contents(image, name) = contents(image, file());
        break;
      default: {
        const uint64_t at = input.u16();
        const auto byte = static_cast<std::byte>(input.u8());
        if (at < contents(image, name).size()) contents(image, name).write(at, {&byte, 1});
      }
    }
  }
  check_pages(image);
  use_store(image);
}

void replaced_file(fuzz::Input& input) {
  DiskImage image = example().image;
  const uint8_t choice = input.u8();
  const auto rest = std::as_bytes(input.rest());
  Bytes bytes(rest.begin(), rest.end());
  const uint64_t seed = std::move(*decode_format(read(contents(image, kFormatName)))).seed;
  constexpr size_t kHash = sizeof(uint64_t);
  switch (choice % 4) {
    case 0:
      bytes.resize(kFormatBytes);
      put(bytes, kFormatBytes - kHash, hash_of(std::span(bytes).first(kFormatBytes - kHash), 0));
      replace(contents(image, kFormatName), bytes);
      break;
    case 1: {
      bytes.resize(bytes.size() + kHash);
      put(bytes, bytes.size() - kHash, hash_of(std::span(bytes).first(bytes.size() - kHash), seed));
      for (const std::string& name : example().names) {
        if (name.starts_with("heads/")) replace(contents(image, name), bytes);
      }
      // What is read is what is written.
      test::ModelFileSystem files(image);
      auto store = Store::open(files.storage());
      if (auto head = decode_head((*store)->format(), bytes)) {
        FUZZ_CHECK(encode_head((*store)->format(), *head) == bytes);
      }
      break;
    }
    case 2: {
      // A manifest up to its id, and some bytes for sections behind the body.
      Contents& file = contents(image, example().names[choice / 4 % 2]);
      Bytes whole = read(file);
      whole.resize(kMagicBytes + 2 * sizeof(uint32_t) + 2 * sizeof(Id));
      whole.insert(whole.end(), bytes.begin(), bytes.end());
      whole.resize(whole.size() + kHash);
      const auto length = static_cast<uint32_t>(whole.size());
      std::memcpy(&whole[kMagicBytes + sizeof(uint32_t)], &length, sizeof length);
      put(whole, length - kHash, hash_of(std::span(whole).first(length - kHash), seed));
      whole.resize(whole.size() + choice / 8);
      replace(file, whole);
      break;
    }
    default:
      replace(contents(image, example().names[choice / 4 % example().names.size()]), bytes);
  }
  use_store(image);
}

// --- all hashes right ---

class HostileStore {
 public:
  explicit HostileStore(fuzz::Input& input) : input_(input) {
    uint64_t ids = 0;
    store_ = std::move(*Store::create(
        files_.storage(), [ids]() mutable -> base::Result<Id> { return test::example_id(++ids); }));
    make_pack();
    Manifest manifest;
    manifest.id = test::example_id(3);
    manifest.branch = test::example_id(4);
    const unsigned spaces = 1 + input_.u8() % 2;
    uint64_t ram = 0;
    for (unsigned space = 0; space < spaces; ++space) {
      manifest.spaces.push_back(make_space(space));
      if (space == kRamSpace) ram = manifest.spaces[0].pages;
    }
    manifest.memory = {{0, ram * kPageBytes}};
    manifest.disks = {
        {.name = "d", .size = 100 * kPageBytes, .base = std::string(input_.u8() % 2, 'b')}};
    base::SectionWriter sections;
    sections.begin("clock", 1).u64(1);
    Bytes bytes = encode_manifest(store_->format(), manifest, sections);
    change(bytes);
    const uint32_t body = std::min<uint32_t>(manifest_body_bytes(bytes).value_or(0),
                                             static_cast<uint32_t>(bytes.size()));
    if (body > sizeof(uint64_t)) {
      put(bytes, body - sizeof(uint64_t),
          store_->hash(std::span(bytes).first(body - sizeof(uint64_t))));
    }
    write(snapshot_name(manifest.id), bytes);
  }
  DiskImage image() const { return files_.image(); }

 private:
  void write(const std::string& name, const Bytes& bytes) {
    auto file = std::move(*store_->storage().create(name, Storage::Caching::kCached));
    (void)file->write(0, bytes);
  }

  // Some bytes, as the input says.
  void change(Bytes& bytes) {
    for (unsigned count = input_.u8() % 16; count > 0 && !bytes.empty(); --count) {
      const size_t at = input_.u16();
      bytes[at % bytes.size()] = static_cast<std::byte>(input_.u8());
    }
  }

  void make_pack() {
    pack_ = test::example_id(5);
    Bytes bytes = encode_pack_header(store_->format(), pack_);
    bytes.resize(kPackHeaderBytes + 2 * kPageBytes, std::byte{7});
    page_hash_ = store_->hash(std::span(bytes).last(kPageBytes));
    write(pack_name(pack_), bytes);
  }

  SpaceInfo make_space(Space space) {
    SpaceInfo info{space, 1 + input_.u16() % kMostPages, {}};
    for (unsigned runs = input_.u8() % 14; runs > 0; --runs) {
      const bool flat = runs == 1 && input_.u8() % 2;
      info.runs.push_back(make_run(info, flat ? RunInfo::Kind::kFlat : RunInfo::Kind::kDelta));
    }
    return info;
  }

  RunInfo make_run(const SpaceInfo& space, RunInfo::Kind kind) {
    const Id id = test::example_id(++runs_ + 100);
    auto file = std::move(*store_->storage().create(run_name(id), Storage::Caching::kCached));
    const std::vector<SlotInfo> slots(
        1 + input_.u8() % 2, {SlotInfo::Kind::kPack, 0, pack_, kPackHeaderBytes + 2 * kPageBytes});
    RunWriter writer(store_->format(), *file, id, space.space, kind,
                     static_cast<uint32_t>(slots.size()));
    const uint64_t entries =
        kind == RunInfo::Kind::kFlat ? space.pages : 1 + input_.u16() % space.pages;
    const uint64_t stride = 1 + input_.u8() % 4;
    const Slot slot = input_.u8() % 2 ? 0 : kSlotZero;
    for (uint64_t i = 0; i < entries; ++i) {
      const uint64_t page = kind == RunInfo::Kind::kFlat ? i : i * stride;
      const PageEntry entry{page, page_hash_, i % 3 ? slot : kSlotZero, kPackHeaderBytes};
      (void)writer.add(entry);
    }
    RunInfo info = std::move(*writer.finish(slots));
    Bytes bytes(info.bytes);
    (void)file->read(0, bytes);
    change(bytes);
    seal(bytes, info);
    (void)file->write(0, bytes);
    return info;
  }

  // The hashes of what is in the file now.
  void seal(Bytes& bytes, RunInfo& info) const {
    const RunShape shape = RunShape::of(info.kind, info.entries, info.head_blocks);
    auto block_hash = [&](uint64_t number) {
      return store_->hash(std::span(bytes).subspan(number * kBlockBytes, kBlockBytes));
    };
    for (size_t level = 1; level < shape.level_blocks.size(); ++level) {
      for (uint64_t child = 0; child < shape.level_blocks[level - 1]; ++child) {
        const uint64_t node = shape.level_start[level] + child / kNodeRecords;
        put(bytes, node * kBlockBytes + child % kNodeRecords * kNodeRecordBytes + sizeof(uint32_t),
            block_hash(shape.level_start[level - 1] + child));
      }
    }
    info.root = block_hash(shape.level_start.back());
    info.head_hash = store_->hash(std::span(bytes).first(info.head_blocks * kBlockBytes));
  }

  fuzz::Input& input_;
  test::ModelFileSystem files_;
  std::unique_ptr<Store> store_;
  Id pack_;
  PageHash page_hash_ = 0;
  uint64_t runs_ = 0;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  base::set_log_level(base::LogLevel::kError);
  fuzz::Input input(data, size);
  switch (input.u8() % 3) {
    case 0:
      accidents(input);
      break;
    case 1:
      replaced_file(input);
      break;
    default:
      use_store(HostileStore(input).image());
  }
  return 0;
}
