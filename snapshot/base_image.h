// The base image of a disk in a snapshot, as the command line names it: opened and locked as a
// machine's disk is; it can be checked to be the one the snapshot was taken with.
//
// Owned and used by one thread.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "devices/virtio/block_file.h"
#include "snapshot/disk/base_identity.h"
#include "snapshot/store/manifest.h"
#include "vmm/base/result.h"

namespace snapshot {

// Disk `number` of a snapshot; the error says which there are.
base::Result<const Disk*> find_disk(const Manifest& manifest, uint32_t number);

class BaseImage {
 public:
  // Opens and locks; what it holds is not looked at.
  static base::Result<BaseImage> open(const Disk& disk, const std::string& path, bool read_only);
  // For reading, where no snapshot knows the image.
  static base::Result<BaseImage> open_unknown(const std::string& path);
  // Is it the image the snapshot was taken with, unchanged?
  base::Result<void> check_identity() const;

  // Whole pages from `page` on; zeros past the end of the image.
  base::Result<void> read(uint64_t page, std::span<std::byte> into) const;
  int fd() const { return file_.fd(); }
  uint64_t size() const { return file_.size(); }
  const std::string& path() const { return path_; }

 private:
  BaseImage(const BaseIdentity& recorded, virtio::BlockFile file, std::string path)
      : recorded_(recorded), file_(std::move(file)), path_(std::move(path)) {}

  BaseIdentity recorded_;
  virtio::BlockFile file_;
  std::string path_;
};

}  // namespace snapshot
