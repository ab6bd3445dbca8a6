#include <cassert>
#include <cstring>

#include "snapshot/store/run.h"

namespace snapshot {

namespace {
constexpr size_t kFlushBytes = 1 << 20;

uint64_t location(const PageEntry& entry) {
  if (entry.slot == kSlotZero) return uint64_t{kLocationZero} << kLocationOffsetBits;
  if (entry.slot == kSlotBase) return uint64_t{kLocationBase} << kLocationOffsetBits;
  return uint64_t{entry.slot} << kLocationOffsetBits | entry.offset / kPageBytes;
}
}  // namespace

RunWriter::RunWriter(const Format& format, File& file, const Id& id, Space space,
                     RunInfo::Kind kind, uint32_t slots_at_most)
    : format_(format),
      file_(file),
      id_(id),
      space_(space),
      kind_(kind),
      head_blocks_(run_head_blocks(slots_at_most)),
      written_(uint64_t{head_blocks_} * kBlockBytes) {
  buffer_.reserve(kFlushBytes + kBlockBytes);
}

base::Result<void> RunWriter::add(const PageEntry& entry) {
  assert(kind_ == RunInfo::Kind::kDelta || entry.page == entries_);
  base::Encoder out(buffer_);
  if (buffer_.size() == block_start_) block_first_page_ = static_cast<uint32_t>(entry.page);
  if (kind_ == RunInfo::Kind::kDelta) out.u32(static_cast<uint32_t>(entry.page));
  out.u64(entry.hash);
  out.u64(location(entry));
  ++entries_;
  const size_t record = kind_ == RunInfo::Kind::kDelta ? kDeltaRecordBytes : kFlatRecordBytes;
  if (buffer_.size() - block_start_ + record > kBlockBytes) return end_block();
  return {};
}

base::Result<void> RunWriter::end_block() {
  buffer_.resize(block_start_ + kBlockBytes);
  level_.push_back({block_first_page_, format_.hash(std::span(buffer_).subspan(block_start_))});
  block_start_ = buffer_.size();
  if (buffer_.size() >= kFlushBytes) return flush();
  return {};
}

base::Result<void> RunWriter::flush() {
  TRY(file_.write(written_, buffer_));
  written_ += buffer_.size();
  buffer_.clear();
  block_start_ = 0;
  return {};
}

base::Result<void> RunWriter::write_nodes() {
  while (level_.size() > 1) {
    const std::vector<Child> children = std::exchange(level_, {});
    for (size_t first = 0; first < children.size(); first += kNodeRecords) {
      const size_t end = std::min(first + kNodeRecords, children.size());
      block_first_page_ = children[first].first_page;
      base::Encoder out(buffer_);
      for (size_t i = first; i < end; ++i) {
        out.u32(children[i].first_page);
        out.u64(children[i].hash);
      }
      TRY(end_block());
    }
  }
  return {};
}

base::Result<RunInfo> RunWriter::finish(std::span<const SlotInfo> slots) {
  assert(entries_ > 0 && run_head_blocks(static_cast<uint32_t>(slots.size())) <= head_blocks_);
  if (buffer_.size() > block_start_) TRY(end_block());
  TRY(write_nodes());
  TRY(flush());

  std::vector<std::byte> head;
  base::Encoder out(head);
  out.bytes(std::as_bytes(std::span(kRunMagic)));
  encode_id(out, format_.uuid);
  encode_id(out, id_);
  out.u32(space_);
  out.u32(static_cast<uint32_t>(kind_));
  out.u64(entries_);
  out.u32(static_cast<uint32_t>(slots.size()));
  out.u32(head_blocks_);
  for (const SlotInfo& slot : slots) {
    out.u32(static_cast<uint32_t>(slot.kind));
    out.u32(slot.disk);
    encode_id(out, slot.id);
    out.u64(slot.bytes);
  }
  head.resize(uint64_t{head_blocks_} * kBlockBytes);
  TRY(file_.write(0, head));

  RunInfo info;
  info.id = id_;
  info.kind = kind_;
  info.slots = static_cast<uint32_t>(slots.size());
  info.head_blocks = head_blocks_;
  info.entries = entries_;
  info.bytes = written_;
  info.head_hash = format_.hash(head);
  info.root = level_.front().hash;
  return info;
}

}  // namespace snapshot
