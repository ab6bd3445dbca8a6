#include "snapshot/export_memory.h"

#include "snapshot/ram_regions.h"
#include "snapshot/space_reader.h"

namespace snapshot {
namespace {

using base::Result;

// Region i of the RAM goes to offsets[i] of the file.
Result<void> copy_ram(const Snapshot& snapshot, const std::vector<RamRegion>& regions,
                      std::span<const uint64_t> offsets, OutputFile& file,
                      const Progress& progress) {
  auto write = [&](uint64_t first, std::span<const std::byte> data) -> Result<void> {
    for (size_t i = 0; i < regions.size() && !data.empty(); ++i) {
      const RamRegion& region = regions[i];
      if (first - region.first_page >= region.pages) continue;
      // A run of pages may go on in the next region.
      uint64_t at = first - region.first_page;
      uint64_t count = std::min(region.pages - at, data.size() / kPageBytes);
      TRY(file.write(offsets[i] + at * kPageBytes, data.first(count * kPageBytes)));
      data = data.subspan(count * kPageBytes);
      first += count;
    }
    return {};
  };
  SpaceReader reader(snapshot, kRamSpace);
  return reader.read({.data = write, .zero = {}, .base = {}}, progress, 0,
                     snapshot.pages(kRamSpace) * kPageBytes);
}

}  // namespace

Result<void> export_memory(const Snapshot& snapshot, const std::string& path,
                           OutputFile::Existing existing, const Progress& progress) {
  TRY_ASSIGN(auto regions, ram_regions(snapshot.manifest()));
  TRY_ASSIGN(OutputFile file, OutputFile::create(path, existing));
  std::vector<uint64_t> offsets;
  uint64_t end = 0;
  for (const RamRegion& region : regions) {
    offsets.push_back(region.start.value);
    end = region.start.value + region.pages * kPageBytes;
  }
  TRY(file.resize(end));
  TRY(copy_ram(snapshot, regions, offsets, file, progress));
  return file.finish();
}

Result<void> export_core(const Snapshot& snapshot, std::span<const CoreCpu> cpus,
                         const std::string& path, OutputFile::Existing existing,
                         const Progress& progress) {
  TRY_ASSIGN(auto regions, ram_regions(snapshot.manifest()));
  std::vector<CoreRegion> core_regions;
  for (const RamRegion& region : regions)
    core_regions.push_back({region.start, region.pages * kPageBytes});
  CoreLayout layout = lay_out_core(core_regions, cpus);
  TRY_ASSIGN(OutputFile file, OutputFile::create(path, existing));
  TRY(file.write(0, layout.head));
  TRY(file.resize(layout.file_bytes));
  TRY(copy_ram(snapshot, regions, layout.ram_offsets, file, progress));
  return file.finish();
}

}  // namespace snapshot
