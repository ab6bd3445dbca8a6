// Numbers of the store's format, version 2. FORMAT.md describes every file byte by byte; whoever
// changes something here changes it there, in the same commit.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "snapshot/storage.h"
#include "snapshot/types.h"
#include "vmm/base/codec.h"

namespace snapshot {

inline constexpr uint32_t kFormatVersion = 2;
inline constexpr uint32_t kHashXxh3 = 1;
inline constexpr uint64_t kKnownIncompatible = 0;  // bits this program understands

inline constexpr size_t kMagicBytes = 8;
inline constexpr std::string_view kStoreMagic = "MVMSTORE";
inline constexpr std::string_view kPackMagic = "MVMPACK1";
inline constexpr std::string_view kRunMagic = "MVMINDX1";
inline constexpr std::string_view kManifestMagic = "MVMSNAP1";
inline constexpr std::string_view kHeadMagic = "MVMHEAD1";
static_assert(kStoreMagic.size() == kMagicBytes && kPackMagic.size() == kMagicBytes &&
              kRunMagic.size() == kMagicBytes && kManifestMagic.size() == kMagicBytes &&
              kHeadMagic.size() == kMagicBytes);

inline constexpr size_t kFormatBytes = 64;
inline constexpr size_t kPackHeaderBytes = kPageBytes;  // page data begins after it

inline constexpr size_t kBlockBytes = 4096;  // of a run
inline constexpr size_t kRunHeaderBytes = 64;
inline constexpr size_t kSlotRecordBytes = 32;
inline constexpr size_t kDeltaRecordBytes = 20;
inline constexpr size_t kFlatRecordBytes = 16;
inline constexpr size_t kNodeRecordBytes = 12;
inline constexpr size_t kDeltaRecords = kBlockBytes / kDeltaRecordBytes;  // in a block
inline constexpr size_t kFlatRecords = kBlockBytes / kFlatRecordBytes;
inline constexpr size_t kNodeRecords = kBlockBytes / kNodeRecordBytes;
static_assert(kDeltaRecords == 204 && kFlatRecords == 256 && kNodeRecords == 341);

// A location: the slot in the upper 24 bits, the offset in pages in the lower 40.
inline constexpr unsigned kLocationOffsetBits = 40;
inline constexpr uint32_t kLocationZero = 0xFF'FFFF;
inline constexpr uint32_t kLocationBase = 0xFF'FFFE;

inline constexpr size_t kMaxRuns = 12;               // of a page space
inline constexpr uint32_t kMaxSlots = 1u << 20;      // of a run
inline constexpr uint64_t kMaxPages = 0xFFFF'FFFFu;  // of a page space: 16 TiB
inline constexpr uint64_t kMaxDiskBytes = kMaxPages * kPageBytes;
inline constexpr uint32_t kMaxDisks = 64;
inline constexpr uint32_t kMaxMemoryRegions = 64;
inline constexpr uint32_t kMaxNameBytes = 255;   // of a machine or a disk
inline constexpr uint32_t kMaxBaseBytes = 4096;  // identity of a disk's base
inline constexpr uint32_t kMaxConfigBytes = 1u << 20;
inline constexpr uint32_t kMaxManifestBody = 4u << 20;
inline constexpr uint64_t kMaxAllSectionBytes = 256u << 20;
inline constexpr uint32_t kMaxHeadLayers = 4096;

// What the file FORMAT says.
struct Format {
  Id uuid;
  uint64_t seed = 0;

  // XXH3-64 with the store's seed: of pages, blocks, manifests, all but FORMAT itself.
  uint64_t hash(std::span<const std::byte> bytes) const;
};

// FORMAT's 64 bytes; decode refuses damage, other versions and unknown incompatible bits.
std::vector<std::byte> encode_format(const Format& format);
base::Result<Format> decode_format(std::span<const std::byte> bytes);

// The first kPackHeaderBytes of a pack.
std::vector<std::byte> encode_pack_header(const Format& format, const Id& id);
base::Result<void> check_pack_header(const Format& format, const Id& id,
                                     std::span<const std::byte> bytes);

inline void encode_id(base::Encoder& out, const Id& id) {
  out.u64(id.high);
  out.u64(id.low);
}
inline Id decode_id(base::Decoder& in) {
  const uint64_t high = in.u64();
  return {high, in.u64()};
}
// No id at all is all zeros.
inline constexpr Id kNoId{};
inline bool has_magic(std::span<const std::byte> bytes, std::string_view magic) {
  return bytes.size() >= magic.size() &&
         std::ranges::equal(bytes.first(magic.size()), std::as_bytes(std::span(magic)));
}

// Names of the files, relative to the store's directory.
inline constexpr const char* kRoot = ".";
inline constexpr const char* kFormatName = "FORMAT";
inline std::string pack_name(const Id& id) { return "packs/" + id.text(); }
inline std::string run_name(const Id& id) { return "runs/" + id.text(); }
inline std::string snapshot_name(const Id& id) { return "snap/" + id.text(); }
// A manifest before it is committed, and a HEAD (which has the branch's own id there) before it
// replaces the one before. The branch in front says whose it is.
inline std::string temporary_name(const Id& branch, const Id& id) {
  return "tmp/" + branch.text() + "-" + id.text();
}
inline std::string layer_name(uint32_t disk, const Id& id) {
  return "layers/" + std::to_string(disk) + "-" + id.text();
}
inline std::string layer_log_name(uint32_t disk, const Id& id) {
  return layer_name(disk, id) + ".log";
}
inline std::string head_name(const Id& branch) { return "heads/" + branch.text(); }
inline constexpr std::string_view kBranchLockSuffix = ".lock";
inline std::string branch_lock_name(const Id& branch) {
  return head_name(branch) + std::string(kBranchLockSuffix);
}

}  // namespace snapshot
