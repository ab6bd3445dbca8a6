#include "snapshot/export_disk.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <optional>

#include "snapshot/base_image.h"
#include "snapshot/disk/layer.h"
#include "snapshot/space_reader.h"

namespace snapshot {
namespace {

using base::Result;

bool is_zero(std::span<const std::byte> page) {
  return page[0] == std::byte{0} && std::memcmp(page.data(), page.data() + 1, page.size() - 1) == 0;
}

class DiskExport {
 public:
  DiskExport(uint32_t number, const Disk& disk, const std::optional<BaseImage>& base,
             OutputFile& file)
      : number_(number), disk_(disk), base_(base), file_(file) {}

  // The last page of a disk may be only half a one.
  Result<void> write(uint64_t first, std::span<const std::byte> data) {
    uint64_t offset = first * kPageBytes;
    if (offset >= disk_.size) return {};
    return file_.write(offset, data.first(std::min<uint64_t>(data.size(), disk_.size - offset)));
  }

  Result<void> copy_base(uint64_t first, uint64_t count) {
    if (!base_) {
      return base::fail(fmt::format(
          "disk {}: blocks of it are in its base image: name that with --disk-base {}=PATH",
          number_, number_));
    }
    for (uint64_t at = 0; at < count; at += kPiece) {
      auto piece = std::span(buffer_).first(std::min(kPiece, count - at) * kPageBytes);
      TRY(base_->read(first + at, piece));
      TRY(write_nonzero(first + at, piece));
    }
    return {};
  }

 private:
  static constexpr uint64_t kPiece = 256;  // pages

  Result<void> write_nonzero(uint64_t first, std::span<const std::byte> data) {
    uint64_t count = data.size() / kPageBytes;
    auto page = [&](uint64_t i) { return data.subspan(i * kPageBytes, kPageBytes); };
    for (uint64_t i = 0; i < count;) {
      uint64_t end = i;
      while (end < count && !is_zero(page(end))) ++end;
      if (end > i) TRY(write(first + i, data.subspan(i * kPageBytes, (end - i) * kPageBytes)));
      i = end + 1;
    }
    return {};
  }

  const uint32_t number_;
  const Disk& disk_;
  const std::optional<BaseImage>& base_;
  OutputFile& file_;
  std::vector<std::byte> buffer_ = std::vector<std::byte>(kPiece * kPageBytes);
};

Result<std::optional<BaseImage>> open_base(const Disk& disk, uint32_t number,
                                           const std::string& path) {
  std::optional<BaseImage> image;
  if (path.empty()) return image;
  if (disk.base.empty()) return base::fail(fmt::format("disk {} has no base image", number));
  TRY_ASSIGN(image, BaseImage::open(disk, path, true));
  TRY(image->check_identity());
  return image;
}

Result<void> copy_snapshot(const Snapshot& snapshot, uint32_t number, const Disk& disk,
                           DiskExport& copy, const Progress& progress) {
  Space space = disk_space(number);
  uint64_t all = (disk.size + kPageBytes - 1) / kPageBytes;
  uint64_t pages = std::min(snapshot.pages(space), all);
  SpaceReader reader(snapshot, space);
  TRY(reader.read(
      {.data = [&](uint64_t first, auto data) { return copy.write(first, data); },
       .zero = {},
       .base = [&](uint64_t first, uint64_t count) { return copy.copy_base(first, count); }},
      progress, 0, all * kPageBytes));
  // A disk that was never written, a read-only one for instance, has no pages in the store.
  if (pages < all && !disk.base.empty()) TRY(copy.copy_base(pages, all - pages));
  return {};
}

// A layer over what is there already.
Result<void> copy_layer(const Store& store, const Head::Layer& layer, const Disk& disk,
                        DiskExport& copy) {
  auto open = [&](const std::string& name) {
    return store.storage().open(name, Storage::Access::kRead, Storage::Caching::kCached);
  };
  TRY_ASSIGN(auto data, open(layer_name(layer.disk, layer.id)));
  TRY_ASSIGN(auto log, open(layer_log_name(layer.disk, layer.id)));
  uint64_t blocks = (disk.size + kPageBytes - 1) / kPageBytes;
  TRY_ASSIGN(PresenceMap map, recover_layer(store.format(), layer.id, blocks, *data, *log));
  std::array<std::byte, kPageBytes> page;
  Result<void> copied;
  map.for_each([&](uint64_t block, PresenceMap::Block found) {
    if (!copied) return;
    page.fill(std::byte{0});
    if (found.state == Presence::kData) copied = data->read(block * kPageBytes, page);
    if (copied) copied = copy.write(block, page);
  });
  return copied;
}

Result<void> copy_layers(const Store& store, const Head& head, uint32_t number, const Disk& disk,
                         DiskExport& copy) {
  for (const Head::Layer& layer : head.layers) {
    if (layer.disk == number) TRY(copy_layer(store, layer, disk, copy));
  }
  return {};
}

// Of a machine whose first snapshot came to no end: since its pause, what the guest wrote went into
// layers over the image, which no snapshot describes.
Result<void> export_disk_without_snapshot(const Store& store, const HeadInfo& branch,
                                          uint32_t number, const std::string& base,
                                          const std::string& path, OutputFile::Existing existing,
                                          const Progress& progress) {
  bool any = std::ranges::any_of(branch.head->layers,
                                 [&](const Head::Layer& layer) { return layer.disk == number; });
  if (!any) {
    return base::fail(fmt::format("branch {} has nothing of a disk {}: all of it is in its image",
                                  branch.branch.text(), number));
  }
  if (base.empty()) {
    return base::fail(
        fmt::format("branch {} has no snapshot: disk {} is what its machine wrote over its image, "
                    "as that was when it ended: name the image with --disk-base {}=PATH",
                    branch.branch.text(), number, number));
  }
  TRY_ASSIGN(std::optional<BaseImage> image, BaseImage::open_unknown(base));
  Disk disk;
  disk.size = image->size();
  uint64_t pages = (disk.size + kPageBytes - 1) / kPageBytes;
  TRY_ASSIGN(OutputFile file, OutputFile::create(path, existing));
  TRY(file.resize(disk.size));
  DiskExport copy(number, disk, image, file);
  constexpr uint64_t kStep = 1 << 14;  // pages between two reports
  for (uint64_t at = 0; at < pages; at += kStep) {
    TRY(copy.copy_base(at, std::min(kStep, pages - at)));
    TRY(report(progress, std::min(at + kStep, pages) * kPageBytes, pages * kPageBytes));
  }
  TRY(copy_layers(store, *branch.head, number, disk, copy));
  return file.finish();
}

}  // namespace

Result<void> export_disk(const Snapshot& snapshot, uint32_t number, const std::string& base,
                         const std::string& path, OutputFile::Existing existing,
                         const Progress& progress) {
  TRY_ASSIGN(const Disk* disk, find_disk(snapshot.manifest(), number));
  TRY_ASSIGN(auto image, open_base(*disk, number, base));
  TRY_ASSIGN(OutputFile file, OutputFile::create(path, existing));
  TRY(file.resize(disk->size));
  DiskExport copy(number, *disk, image, file);
  TRY(copy_snapshot(snapshot, number, *disk, copy, progress));
  return file.finish();
}

Result<void> export_disk_of_head(const Store& store, const HeadInfo& branch, uint32_t number,
                                 const std::string& base, const std::string& path,
                                 OutputFile::Existing existing, const Progress& progress) {
  if (!branch.damage.empty())
    return base::fail(fmt::format("branch {}: {}", branch.branch.text(), branch.damage));
  if (branch.alive) {
    return base::fail(fmt::format(
        "branch {}: its machine runs and writes to its disks: take a snapshot and export that",
        branch.branch.text()));
  }
  if (!branch.head) {
    return base::fail(fmt::format("branch {}: its machine left no disk", branch.branch.text()));
  }
  if (!branch.head->parent) {
    return export_disk_without_snapshot(store, branch, number, base, path, existing, progress);
  }
  TRY_ASSIGN(auto snapshot, store.load(*branch.head->parent));
  TRY_ASSIGN(auto hold, snapshot->hold());
  TRY_ASSIGN(const Disk* disk, find_disk(snapshot->manifest(), number));
  TRY_ASSIGN(auto image, open_base(*disk, number, base));
  TRY_ASSIGN(OutputFile file, OutputFile::create(path, existing));
  TRY(file.resize(disk->size));
  DiskExport copy(number, *disk, image, file);
  TRY(copy_snapshot(*snapshot, number, *disk, copy, progress));
  TRY(copy_layers(store, *branch.head, number, *disk, copy));
  return file.finish();
}

}  // namespace snapshot
