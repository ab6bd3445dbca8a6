#include "snapshot/store/head.h"

namespace snapshot {

namespace {
// Far more than kMaxHeadLayers layers take.
constexpr uint64_t kMaxHeadBytes = 256 << 10;
}  // namespace

std::vector<std::byte> encode_head(const Format& format, const Head& head) {
  std::vector<std::byte> bytes;
  base::Encoder out(bytes);
  out.bytes(std::as_bytes(std::span(kHeadMagic)));
  encode_id(out, format.uuid);
  encode_id(out, head.branch);
  encode_id(out, head.parent.value_or(kNoId));
  out.string(head.vm_name);
  out.u32(static_cast<uint32_t>(head.layers.size()));
  for (const Head::Layer& layer : head.layers) {
    out.u32(layer.disk);
    encode_id(out, layer.id);
  }
  out.u64(format.hash(bytes));
  return bytes;
}

base::Result<Head> decode_head(const Format& format, std::span<const std::byte> bytes) {
  if (!has_magic(bytes, kHeadMagic)) return base::fail("not the HEAD of a branch");
  base::Decoder in(bytes.subspan(kMagicBytes));
  if (decode_id(in) != format.uuid) return base::fail("HEAD is from another store");
  Head head;
  head.branch = decode_id(in);
  if (Id parent = decode_id(in); parent != kNoId) head.parent = parent;
  head.vm_name = in.string(kMaxNameBytes);
  const uint32_t layers = in.u32();
  if (layers > kMaxHeadLayers) in.refuse();
  for (uint32_t i = 0; in.ok() && i < layers; ++i) {
    const uint32_t disk = in.u32();
    if (disk >= kMaxDisks) in.refuse();
    head.layers.push_back({disk, decode_id(in)});
  }
  const uint64_t hash = in.u64();
  TRY(in.finish("HEAD"));
  if (hash != format.hash(bytes.first(bytes.size() - sizeof hash))) {
    return base::fail("HEAD is damaged: its hash is wrong");
  }
  return head;
}

base::Result<Head> read_head(Storage& storage, const Format& format, const Id& branch) {
  const std::string name = head_name(branch);
  TRY_ASSIGN(auto file, storage.open(name, Storage::Access::kRead, Storage::Caching::kCached));
  TRY_ASSIGN(const uint64_t size, file->size());
  if (size > kMaxHeadBytes) return base::fail(name + " is damaged: too long");
  std::vector<std::byte> bytes(size);
  TRY(file->read(0, bytes));
  auto head = decode_head(format, bytes);
  if (!head) return std::unexpected(head.error().with(name));
  if (head->branch != branch) return base::fail(name + " is that of another branch");
  return head;
}

}  // namespace snapshot
