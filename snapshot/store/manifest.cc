#include "snapshot/store/manifest.h"

#include <fmt/format.h>

#include "snapshot/store/run.h"

namespace snapshot {

namespace {

constexpr size_t kStartBytes = kMagicBytes + 2 * sizeof(uint32_t);
constexpr size_t kBodyBytesOffset = kMagicBytes + sizeof(uint32_t);
// The runs' slots are numbered through in a snapshot, below kSlotBase.
constexpr uint64_t kMaxSnapshotSlots = 0xF000'0000;

void encode_space(base::Encoder& out, const SpaceInfo& space) {
  out.u32(space.space);
  out.u64(space.pages);
  out.u32(static_cast<uint32_t>(space.runs.size()));
  for (const RunInfo& run : space.runs) {
    encode_id(out, run.id);
    out.u32(static_cast<uint32_t>(run.kind));
    out.u32(run.slots);
    out.u32(run.head_blocks);
    out.u64(run.entries);
    out.u64(run.bytes);
    out.u64(run.head_hash);
    out.u64(run.root);
  }
}

bool makes_sense(const RunInfo& run, uint64_t pages, bool oldest) {
  if (run.slots > kMaxSlots || run.head_blocks < run_head_blocks(run.slots) ||
      run.head_blocks > run_head_blocks(kMaxSlots) || run.entries == 0 || run.entries > pages) {
    return false;
  }
  if (run.kind == RunInfo::Kind::kFlat ? !oldest || run.entries != pages
                                       : run.kind != RunInfo::Kind::kDelta) {
    return false;
  }
  return run.bytes == RunShape::of(run.kind, run.entries, run.head_blocks).blocks * kBlockBytes;
}

SpaceInfo decode_space(base::Decoder& in) {
  SpaceInfo space;
  space.space = in.u32();
  space.pages = in.u64();
  const uint32_t runs = in.u32();
  if (space.space > kMaxDisks || space.pages > kMaxPages || runs > kMaxRuns) in.refuse();
  for (uint32_t i = 0; in.ok() && i < runs; ++i) {
    RunInfo run;
    run.id = decode_id(in);
    run.kind = static_cast<RunInfo::Kind>(in.u32());
    run.slots = in.u32();
    run.head_blocks = in.u32();
    run.entries = in.u64();
    run.bytes = in.u64();
    run.head_hash = in.u64();
    run.root = in.u64();
    if (in.ok() && !makes_sense(run, space.pages, i + 1 == runs)) in.refuse();
    space.runs.push_back(run);
  }
  return space;
}

// Calls one() as often as the next number says.
template <typename One>
void decode_list(base::Decoder& in, uint32_t most, One one) {
  const uint32_t count = in.u32();
  if (count > most) in.refuse();
  for (uint32_t i = 0; in.ok() && i < count; ++i) one();
}

void decode_machine(base::Decoder& in, Manifest& manifest) {
  manifest.vm_name = in.string(kMaxNameBytes);
  decode_list(in, kMaxMemoryRegions, [&] {
    const uint64_t gpa = in.u64();
    const uint64_t size = in.u64();
    if (gpa % kPageBytes != 0 || size % kPageBytes != 0 || gpa + size < gpa) in.refuse();
    manifest.memory.push_back({gpa, size});
  });
  decode_list(in, kMaxDisks, [&] {
    Disk disk;
    disk.name = in.string(kMaxNameBytes);
    disk.size = in.u64();
    disk.read_only = in.boolean();
    disk.base = in.string(kMaxBaseBytes);
    if (disk.size > kMaxDiskBytes) in.refuse();
    manifest.disks.push_back(std::move(disk));
  });
  manifest.config = in.string(kMaxConfigBytes);
}

}  // namespace

const SpaceInfo* Manifest::find(Space space) const {
  for (const SpaceInfo& info : spaces) {
    if (info.space == space) return &info;
  }
  return nullptr;
}

std::vector<std::byte> encode_manifest(const Format& format, Manifest& manifest,
                                       const base::SectionWriter& sections) {
  std::vector<std::byte> bytes;
  base::Encoder out(bytes);
  out.bytes(std::as_bytes(std::span(kManifestMagic)));
  out.u32(kFormatVersion);
  out.u32(0);  // the body's length, below
  encode_id(out, format.uuid);
  encode_id(out, manifest.id);
  encode_id(out, manifest.parent.value_or(kNoId));
  encode_id(out, manifest.branch);
  out.u32(static_cast<uint32_t>(manifest.kind));
  out.u64(manifest.time_ns);
  out.u64(manifest.pause_ns);
  out.u64(manifest.ram_pages);
  out.u64(manifest.disk_pages);
  out.u64(manifest.zero_pages);
  out.u64(manifest.stored_bytes);
  out.string(manifest.vm_name);
  out.u32(static_cast<uint32_t>(manifest.memory.size()));
  for (const MemoryRegion& region : manifest.memory) {
    out.u64(region.gpa);
    out.u64(region.size);
  }
  out.u32(static_cast<uint32_t>(manifest.disks.size()));
  for (const Disk& disk : manifest.disks) {
    out.string(disk.name);
    out.u64(disk.size);
    out.boolean(disk.read_only);
    out.string(disk.base);
  }
  out.string(manifest.config);
  out.u32(static_cast<uint32_t>(manifest.spaces.size()));
  for (const SpaceInfo& space : manifest.spaces) encode_space(out, space);

  manifest.sections.clear();
  out.u32(static_cast<uint32_t>(sections.count()));
  for (size_t i = 0; i < sections.count(); ++i) {
    const auto data = sections.data(i);
    SectionInfo section{std::string(sections.tag(i)), sections.version(i),
                        static_cast<uint32_t>(data.size()), format.hash(data)};
    out.string(section.tag);
    out.u32(section.version);
    out.u32(section.bytes);
    out.u64(section.hash);
    manifest.sections.push_back(std::move(section));
  }
  const auto body_bytes = static_cast<uint32_t>(bytes.size() + sizeof(uint64_t));
  std::memcpy(bytes.data() + kBodyBytesOffset, &body_bytes, sizeof body_bytes);
  out.u64(format.hash(bytes));
  for (size_t i = 0; i < sections.count(); ++i) out.bytes(sections.data(i));
  return bytes;
}

base::Result<uint32_t> manifest_body_bytes(std::span<const std::byte> start) {
  if (start.size() < kStartBytes || !has_magic(start, kManifestMagic)) {
    return base::fail("not a manifest, or damaged at its beginning");
  }
  base::Decoder in(start.subspan(kMagicBytes));
  if (uint32_t version = in.u32(); version != kFormatVersion) {
    return base::fail(fmt::format("manifest of format {}, this minivmm reads format {}", version,
                                  kFormatVersion));
  }
  const uint32_t bytes = in.u32();
  if (bytes < kStartBytes + sizeof(uint64_t) || bytes > kMaxManifestBody) {
    return base::fail("manifest is damaged: impossible length");
  }
  return bytes;
}

base::Result<Manifest> decode_manifest(const Format& format, std::span<const std::byte> body,
                                       uint64_t file_bytes) {
  TRY_ASSIGN(const uint32_t body_bytes, manifest_body_bytes(body));
  if (body.size() != body_bytes) return base::fail("manifest is cut short");
  base::Decoder in(body.subspan(kStartBytes));
  if (decode_id(in) != format.uuid) return base::fail("manifest is from another store");
  const auto hashed = body.first(body_bytes - sizeof(uint64_t));
  base::Decoder tail(body.last(sizeof(uint64_t)));
  if (tail.u64() != format.hash(hashed)) {
    return base::fail("manifest is damaged: its hash is wrong");
  }
  Manifest manifest;
  manifest.id = decode_id(in);
  if (Id parent = decode_id(in); parent != kNoId) manifest.parent = parent;
  manifest.branch = decode_id(in);
  manifest.kind = static_cast<Kind>(in.u32());
  if (manifest.kind != Kind::kFull && manifest.kind != Kind::kIncremental) in.refuse();
  manifest.time_ns = in.u64();
  if (manifest.time_ns > kLatestTime) in.refuse();
  manifest.pause_ns = in.u64();
  manifest.ram_pages = in.u64();
  manifest.disk_pages = in.u64();
  manifest.zero_pages = in.u64();
  manifest.stored_bytes = in.u64();
  decode_machine(in, manifest);

  uint64_t slots = 0;
  decode_list(in, kMaxDisks + 1, [&] {
    SpaceInfo space = decode_space(in);
    if (!manifest.spaces.empty() && space.space <= manifest.spaces.back().space) in.refuse();
    for (const RunInfo& run : space.runs) slots += run.slots;
    manifest.spaces.push_back(std::move(space));
  });
  if (slots > kMaxSnapshotSlots) in.refuse();

  uint64_t section_bytes = 0;
  decode_list(in, base::kMaxSections, [&] {
    SectionInfo section;
    section.tag = in.string(base::kMaxSectionTag);
    section.version = in.u32();
    section.bytes = in.u32();
    section.hash = in.u64();
    if (section.tag.empty() || section.bytes > base::kMaxSectionBytes) in.refuse();
    section_bytes += section.bytes;
    manifest.sections.push_back(std::move(section));
  });
  if (section_bytes > kMaxAllSectionBytes) in.refuse();
  in.u64();  // the hash
  TRY(in.finish("manifest"));
  if (file_bytes != body_bytes + section_bytes) {
    return base::fail(
        fmt::format("manifest has {} bytes instead of {}", file_bytes, body_bytes + section_bytes));
  }
  return manifest;
}

}  // namespace snapshot
