#include <fmt/format.h>

#include <cstring>

#include "snapshot/store/run.h"

namespace snapshot {

namespace {

constexpr size_t kCachedBlocks = 64;  // 256 KiB a run

uint32_t u32_at(std::span<const std::byte> block, size_t offset) {
  uint32_t value = 0;
  std::memcpy(&value, block.data() + offset, sizeof value);
  return value;
}
uint64_t u64_at(std::span<const std::byte> block, size_t offset) {
  uint64_t value = 0;
  std::memcpy(&value, block.data() + offset, sizeof value);
  return value;
}

// Of `count` records of `stride` bytes that begin with a page number, ascending: the number of
// those that are not above `page`.
size_t records_up_to(std::span<const std::byte> block, size_t count, size_t stride, uint64_t page) {
  size_t low = 0, high = count;
  while (low < high) {
    const size_t middle = (low + high) / 2;
    if (u32_at(block, middle * stride) <= page) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low;
}

base::Result<SlotInfo> decode_slot(base::Decoder& in) {
  SlotInfo slot;
  slot.kind = static_cast<SlotInfo::Kind>(in.u32());
  slot.disk = in.u32();
  slot.id = decode_id(in);
  slot.bytes = in.u64();
  if ((slot.kind != SlotInfo::Kind::kPack && slot.kind != SlotInfo::Kind::kLayer) ||
      slot.disk >= kMaxDisks) {
    in.refuse();
  }
  return slot;
}

}  // namespace

RunReader::RunReader(Storage& storage, const Format& format, Space space, const RunInfo& info)
    : storage_(storage),
      format_(format),
      space_(space),
      info_(info),
      shape_(RunShape::of(info.kind, info.entries, info.head_blocks)) {}

std::unexpected<base::Error> RunReader::damaged(const char* what, uint64_t block) const {
  return base::fail(
      fmt::format("{} is damaged at byte {}: {}", run_name(info_.id), block * kBlockBytes, what));
}

base::Result<std::shared_ptr<File>> RunReader::file() const {
  std::lock_guard lock(mutex_);
  if (file_) return file_;
  TRY_ASSIGN(std::shared_ptr<File> file,
             storage_.open(run_name(info_.id), Storage::Access::kRead, Storage::Caching::kCached));
  TRY_ASSIGN(const uint64_t bytes, file->size());
  if (bytes != info_.bytes) {
    return base::fail(fmt::format("{} is damaged: it has {} bytes instead of {}",
                                  run_name(info_.id), bytes, info_.bytes));
  }
  file_ = std::move(file);
  return file_;
}

void RunReader::close() const {
  std::lock_guard lock(mutex_);
  file_.reset();
}

base::Result<std::span<const SlotInfo>> RunReader::slots() const {
  TRY_ASSIGN(auto file, file());
  {
    std::lock_guard lock(mutex_);
    if (slots_) return *slots_;
  }
  std::vector<std::byte> head(uint64_t{info_.head_blocks} * kBlockBytes);
  TRY(file->read(0, head));
  if (format_.hash(head) != info_.head_hash) return damaged("the hash of its header is wrong", 0);
  base::Decoder in(std::span<const std::byte>(head).subspan(kMagicBytes));
  const bool same = has_magic(head, kRunMagic) && decode_id(in) == format_.uuid &&
                    decode_id(in) == info_.id && in.u32() == space_ &&
                    in.u32() == static_cast<uint32_t>(info_.kind) && in.u64() == info_.entries &&
                    in.u32() == info_.slots && in.u32() == info_.head_blocks;
  if (!same) return damaged("its header is not what the manifest says", 0);
  std::vector<SlotInfo> slots;
  slots.reserve(info_.slots);
  for (uint32_t i = 0; i < info_.slots; ++i) {
    TRY_ASSIGN(SlotInfo slot, decode_slot(in));
    slots.push_back(slot);
  }
  if (!in.ok()) return damaged("impossible slot", 0);
  std::lock_guard lock(mutex_);
  // The first one in stays: spans of it are out.
  if (!slots_) slots_ = std::move(slots);
  return *slots_;
}

size_t RunReader::records_in(size_t level, uint64_t index) const {
  uint64_t all = info_.entries;
  size_t full = info_.kind == RunInfo::Kind::kFlat ? kFlatRecords : kDeltaRecords;
  if (level > 0) {
    all = shape_.level_blocks[level - 1];
    full = kNodeRecords;
  }
  return static_cast<size_t>(std::min<uint64_t>(full, all - index * full));
}

base::Result<RunReader::BlockRef> RunReader::block(size_t level, uint64_t index,
                                                   uint64_t expected_hash) const {
  const uint64_t number = shape_.level_start[level] + index;
  TRY_ASSIGN(auto file, file());
  {
    std::lock_guard lock(mutex_);
    if (auto found = cache_.find(number); found != cache_.end()) return found->second;
  }
  auto block = std::make_shared<Block>();
  TRY(file->read(number * kBlockBytes, *block));
  if (format_.hash(*block) != expected_hash) return damaged("a block's hash is wrong", number);
  std::lock_guard lock(mutex_);
  if (auto [place, inserted] = cache_.emplace(number, block); !inserted) return place->second;
  if (cached_.size() < kCachedBlocks) {
    cached_.push_back(number);
  } else {
    cache_.erase(std::exchange(cached_[oldest_], number));
    oldest_ = (oldest_ + 1) % kCachedBlocks;
  }
  return block;
}

base::Result<uint64_t> RunReader::leaf_of(uint64_t page) const {
  if (info_.kind == RunInfo::Kind::kFlat) return page / kFlatRecords;
  uint64_t index = 0;
  uint64_t hash = info_.root;
  for (size_t level = shape_.level_blocks.size() - 1; level > 0; --level) {
    TRY_ASSIGN(BlockRef node, block(level, index, hash));
    // Below the first page: the first child, which does not have it.
    const size_t up_to = records_up_to(*node, records_in(level, index), kNodeRecordBytes, page);
    const size_t child = up_to == 0 ? 0 : up_to - 1;
    hash = u64_at(*node, child * kNodeRecordBytes + sizeof(uint32_t));
    index = index * kNodeRecords + child;
  }
  return index;
}

base::Result<RunReader::BlockRef> RunReader::leaf(uint64_t index) const {
  uint64_t hash = info_.root;
  uint64_t leaves_below = 1;  // of a child of the level at hand
  for (size_t level = 1; level + 1 < shape_.level_blocks.size(); ++level) {
    leaves_below *= kNodeRecords;
  }
  for (size_t level = shape_.level_blocks.size() - 1; level > 0; --level) {
    TRY_ASSIGN(BlockRef node, block(level, index / leaves_below / kNodeRecords, hash));
    const size_t child = index / leaves_below % kNodeRecords;
    hash = u64_at(*node, child * kNodeRecordBytes + sizeof(uint32_t));
    leaves_below /= kNodeRecords;
  }
  return block(0, index, hash);
}

base::Result<PageEntry> RunReader::decode(uint64_t page, uint64_t hash, uint64_t location) const {
  PageEntry entry{page, hash, kSlotZero, 0};
  const auto slot = static_cast<uint32_t>(location >> kLocationOffsetBits);
  if (slot == kLocationZero || slot == kLocationBase) {
    entry.slot = slot == kLocationZero ? kSlotZero : kSlotBase;
    return entry;
  }
  if (slot >= info_.slots) {
    return base::fail(fmt::format("{} is damaged: page {} is in a file that it does not name",
                                  run_name(info_.id), page));
  }
  entry.slot = slot;
  entry.offset = (location & ((uint64_t{1} << kLocationOffsetBits) - 1)) * kPageBytes;
  return entry;
}

base::Result<void> RunReader::read_leaf(uint64_t index, std::vector<PageEntry>& into) const {
  TRY_ASSIGN(BlockRef leaf, leaf(index));
  const size_t count = records_in(0, index);
  into.resize(count);
  const bool flat = info_.kind == RunInfo::Kind::kFlat;
  const size_t stride = flat ? kFlatRecordBytes : kDeltaRecordBytes;
  const size_t key = flat ? 0 : sizeof(uint32_t);
  for (size_t i = 0; i < count; ++i) {
    const size_t at = i * stride;
    const uint64_t page = flat ? index * kFlatRecords + i : u32_at(*leaf, at);
    TRY_ASSIGN(into[i],
               decode(page, u64_at(*leaf, at + key), u64_at(*leaf, at + key + sizeof(uint64_t))));
  }
  return {};
}

void RunReader::will_find() const {
  if (auto opened = file()) {
    (*opened)->will_need(shape_.level_start.back() * kBlockBytes, kBlockBytes);
  }
}

base::Result<std::optional<PageEntry>> RunReader::find(uint64_t page) const {
  TRY_ASSIGN(const uint64_t index, leaf_of(page));
  if (index >= shape_.level_blocks.front()) return std::nullopt;
  TRY_ASSIGN(BlockRef block, leaf(index));
  size_t at = 0;
  if (info_.kind == RunInfo::Kind::kFlat) {
    const size_t record = page % kFlatRecords;
    if (record >= records_in(0, index)) return std::nullopt;
    at = record * kFlatRecordBytes;
  } else {
    const size_t up_to = records_up_to(*block, records_in(0, index), kDeltaRecordBytes, page);
    if (up_to == 0 || u32_at(*block, (up_to - 1) * kDeltaRecordBytes) != page) return std::nullopt;
    at = (up_to - 1) * kDeltaRecordBytes + sizeof(uint32_t);
  }
  return decode(page, u64_at(*block, at), u64_at(*block, at + sizeof(uint64_t)));
}

base::Result<void> RunReader::verify() const {
  TRY(slots());
  TRY_ASSIGN(auto file, file());
  // Top down: each level's hashes are checked by the one above.
  std::vector<uint64_t> expected = {info_.root};
  std::vector<std::byte> buffer;
  for (size_t level = shape_.level_blocks.size(); level-- > 0;) {
    std::vector<uint64_t> below;
    constexpr uint64_t kAtOnce = 256;
    for (uint64_t first = 0; first < shape_.level_blocks[level]; first += kAtOnce) {
      const uint64_t count = std::min(kAtOnce, shape_.level_blocks[level] - first);
      buffer.resize(count * kBlockBytes);
      TRY(file->read((shape_.level_start[level] + first) * kBlockBytes, buffer));
      for (uint64_t i = 0; i < count; ++i) {
        const auto block = std::span(buffer).subspan(i * kBlockBytes, kBlockBytes);
        if (format_.hash(block) != expected[first + i]) {
          return damaged("a block's hash is wrong", shape_.level_start[level] + first + i);
        }
        if (level == 0) continue;
        for (size_t child = 0; child < records_in(level, first + i); ++child) {
          below.push_back(u64_at(block, child * kNodeRecordBytes + sizeof(uint32_t)));
        }
      }
    }
    expected = std::move(below);
  }
  return {};
}

}  // namespace snapshot
