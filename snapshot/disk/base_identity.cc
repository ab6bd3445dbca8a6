#include "snapshot/disk/base_identity.h"

#include <fmt/format.h>
#include <sys/stat.h>
#include <xxhash.h>

#include <algorithm>
#include <array>

#include "snapshot/types.h"
#include "vmm/base/codec.h"
#include "vmm/base/fd.h"

namespace snapshot {
namespace {

constexpr uint32_t kVersion = 1;
// The first and the last piece, where file systems and partition tables keep what changes with
// every use, and as many between them.
constexpr uint64_t kSamples = 256;

uint64_t nanoseconds(const timespec& time) {
  return static_cast<uint64_t>(time.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(time.tv_nsec);
}

base::Result<BaseIdentity> look(int fd, uint64_t size, const std::string& path) {
  struct stat status;
  if (::fstat(fd, &status) < 0) return base::fail_errno("disk " + path);
  BaseIdentity identity;
  identity.device = status.st_dev;
  identity.inode = status.st_ino;
  identity.size = size;
  // Those of a device node are not those of its content.
  if (S_ISREG(status.st_mode)) {
    identity.modified_ns = nanoseconds(status.st_mtim);
    identity.changed_ns = nanoseconds(status.st_ctim);
  }
  return identity;
}

base::Result<uint64_t> sample(int fd, uint64_t size, const std::string& path) {
  uint64_t hash = 0;
  // Aligned: the descriptor may be one for direct access.
  alignas(kPageBytes) std::array<std::byte, kPageBytes> piece;
  uint64_t pages = (size + kPageBytes - 1) / kPageBytes;
  uint64_t count = std::min(pages, kSamples);
  for (uint64_t i = 0; i < count; ++i) {
    uint64_t page = count == 1 ? 0 : (pages - 1) / (count - 1) * i;
    if (i == count - 1) page = pages - 1;
    uint64_t bytes = std::min(kPageBytes, size - page * kPageBytes);
    if (auto read = base::read_exact(fd, piece.data(), bytes, page * kPageBytes); !read) {
      return std::unexpected(read.error().with("disk " + path));
    }
    hash = XXH3_64bits_withSeed(piece.data(), bytes, hash);
  }
  return hash;
}

}  // namespace

base::Result<BaseIdentity> identify_base(int fd, uint64_t size, const std::string& path) {
  TRY_ASSIGN(BaseIdentity identity, look(fd, size, path));
  TRY_ASSIGN(identity.samples, sample(fd, size, path));
  return identity;
}

base::Result<void> check_base(const BaseIdentity& recorded, int fd, uint64_t size,
                              const std::string& path) {
  TRY_ASSIGN(BaseIdentity found, look(fd, size, path));
  if (found.size != recorded.size) {
    return base::fail(fmt::format(
        "disk {} has {} bytes, the snapshot's base image had {}: give the image it was taken with",
        path, found.size, recorded.size));
  }
  bool same_file = found.device == recorded.device && found.inode == recorded.inode;
  if (same_file && found.modified_ns != recorded.modified_ns) {
    return base::fail(
        fmt::format("disk {} was written to after the snapshot was taken, which needs the content "
                    "it had then: give a copy from that time",
                    path));
  }
  found.samples = recorded.samples;
  if (found == recorded && recorded.modified_ns != 0) return {};
  TRY_ASSIGN(found.samples, sample(fd, size, path));
  if (found.samples == recorded.samples) return {};
  return base::fail(fmt::format(
      "disk {} is not the snapshot's base image: its content differs; give the image it was "
      "taken with, or an exact copy",
      path));
}

std::vector<std::byte> encode_base(const BaseIdentity& identity) {
  std::vector<std::byte> out;
  base::Encoder to(out);
  to.u32(kVersion);
  for (uint64_t value : {identity.device, identity.inode, identity.size, identity.modified_ns,
                         identity.changed_ns, identity.samples}) {
    to.u64(value);
  }
  return out;
}

base::Result<BaseIdentity> decode_base(std::span<const std::byte> bytes) {
  base::Decoder from(bytes);
  uint32_t version = from.u32();
  BaseIdentity identity;
  for (uint64_t* value : {&identity.device, &identity.inode, &identity.size, &identity.modified_ns,
                          &identity.changed_ns, &identity.samples}) {
    *value = from.u64();
  }
  if (from.ok() && version != kVersion) {
    return base::fail(fmt::format("identity of a base image in version {}: not known", version));
  }
  TRY(from.finish("identity of a base image"));
  return identity;
}

}  // namespace snapshot
