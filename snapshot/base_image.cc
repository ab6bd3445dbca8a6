#include "snapshot/base_image.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "snapshot/types.h"

namespace snapshot {

using base::Result;

Result<const Disk*> find_disk(const Manifest& manifest, uint32_t number) {
  size_t count = manifest.disks.size();
  if (number < count) return &manifest.disks[number];
  if (count == 0) return base::fail(fmt::format("snapshot {} has no disk", manifest.id.text()));
  return base::fail(fmt::format("snapshot {} has no disk {}: its disks are 0 to {}",
                                manifest.id.text(), number, count - 1));
}

namespace {

Result<virtio::BlockFile> open_image(const std::string& path, bool read_only, bool raw) {
  return virtio::BlockFile::open({.path = path,
                                  .read_only = read_only,
                                  .access = virtio::BlockFile::Access::kBuffered,
                                  .raw = raw});
}

}  // namespace

Result<BaseImage> BaseImage::open(const Disk& disk, const std::string& path, bool read_only) {
  TRY_ASSIGN(auto recorded, decode_base(std::as_bytes(std::span(disk.base))));
  // Whatever it begins with: it is the recorded one, or refused.
  TRY_ASSIGN(auto file, open_image(path, read_only, true));
  return BaseImage(recorded, std::move(file), path);
}

Result<BaseImage> BaseImage::open_unknown(const std::string& path) {
  TRY_ASSIGN(auto file, open_image(path, true, false));
  return BaseImage({}, std::move(file), path);
}

Result<void> BaseImage::check_identity() const {
  return check_base(recorded_, fd(), size(), path_);
}

Result<void> BaseImage::read(uint64_t page, std::span<std::byte> into) const {
  uint64_t offset = page * kPageBytes;
  uint64_t bytes = offset < size() ? std::min<uint64_t>(into.size(), size() - offset) : 0;
  std::memset(into.data() + bytes, 0, into.size() - bytes);
  auto read = base::read_exact(file_.fd(), into.data(), bytes, offset);
  if (!read) return std::unexpected(read.error().with("disk " + path_));
  return {};
}

}  // namespace snapshot
