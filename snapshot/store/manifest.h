// A manifest: what one snapshot is made of. It is the last file of a commit to get its name, so a
// manifest that can be seen is a snapshot that is complete. Plain values; encode and decode.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "snapshot/store/format.h"
#include "vmm/base/sections.h"

namespace snapshot {

enum class Kind : uint32_t { kFull = 1, kIncremental = 2 };

struct MemoryRegion {
  uint64_t gpa = 0, size = 0;  // bytes
  bool operator==(const MemoryRegion&) const = default;
};

struct Disk {
  std::string name;
  uint64_t size = 0;  // bytes
  bool read_only = false;
  // Identity of the base image, opaque here; empty where there is none (blocks nobody wrote are
  // then read from nowhere: they are zero).
  std::string base;
  bool operator==(const Disk&) const = default;
};

inline constexpr uint64_t kLatestTime = INT64_MAX;  // what std::chrono can say of a time in ns

// What the machine's owner says about a snapshot.
struct SnapshotNotes {
  std::vector<MemoryRegion> memory;
  std::vector<Disk> disks;
  std::string config;  // the machine's configuration, opaque here (JSON)
  // CLOCK_REALTIME of the snapshot point (0: when it is committed), made later than the parent's.
  uint64_t time_ns = 0;
  uint64_t pause_ns = 0;
};

// One index file of a page space; all that is needed to check every byte of it.
struct RunInfo {
  enum class Kind : uint32_t { kDelta = 1, kFlat = 2 };
  Id id;
  Kind kind = Kind::kDelta;
  uint32_t slots = 0;        // files its entries name
  uint32_t head_blocks = 0;  // header and slot table
  uint64_t entries = 0;
  uint64_t bytes = 0;  // of the file
  uint64_t head_hash = 0, root = 0;
  bool operator==(const RunInfo&) const = default;
};

struct SpaceInfo {
  Space space = kRamSpace;
  uint64_t pages = 0;
  std::vector<RunInfo> runs;  // newest first, at most kMaxRuns
  bool operator==(const SpaceInfo&) const = default;
};

// A section as the manifest's table names it; its bytes follow the body.
struct SectionInfo {
  std::string tag;
  uint32_t version = 0;
  uint32_t bytes = 0;
  uint64_t hash = 0;
  bool operator==(const SectionInfo&) const = default;
};

struct Manifest {
  Id id;
  std::optional<Id> parent;
  Id branch;
  Kind kind = Kind::kFull;
  std::string vm_name;
  uint64_t time_ns = 0, pause_ns = 0;
  // Of this snapshot alone: pages of RAM and of disks whose content it stores, pages that became
  // zero, bytes of packs and runs.
  uint64_t ram_pages = 0, disk_pages = 0, zero_pages = 0, stored_bytes = 0;
  std::vector<MemoryRegion> memory;
  std::vector<Disk> disks;
  std::string config;
  std::vector<SpaceInfo> spaces;  // RAM, then disks in order
  std::vector<SectionInfo> sections;

  const SpaceInfo* find(Space space) const;
};

// The whole file: body, then the sections' bytes. Fills manifest.sections from `sections`.
std::vector<std::byte> encode_manifest(const Format& format, Manifest& manifest,
                                       const base::SectionWriter& sections);

// Bytes of the body, from the first 16 bytes of a manifest.
base::Result<uint32_t> manifest_body_bytes(std::span<const std::byte> start);
// From the body; every count is bounded and every sum checked. `file_bytes`: of the whole file,
// which must be what the body says.
base::Result<Manifest> decode_manifest(const Format& format, std::span<const std::byte> body,
                                       uint64_t file_bytes);

}  // namespace snapshot
