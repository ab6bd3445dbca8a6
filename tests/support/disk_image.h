// What is on a disk: directories with entries, and files with contents, as plain values. A copy is
// cheap (chunks of content are shared until one side writes), so the crash tests make thousands.
// Used by one thread at a time.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>

namespace test {

// The content of a file. What was never written, or was punched, reads as zeros.
class Contents {
 public:
  static constexpr uint64_t kChunkBytes = 4096;

  uint64_t size() const { return size_; }
  // Cuts off what is behind `size`, or extends by a hole.
  void resize(uint64_t size);
  void read(uint64_t offset, std::span<std::byte> into) const;
  // Writes behind the end too, where the content stays out of sight until size() covers it.
  void write(uint64_t offset, std::span<const std::byte> from);
  void punch(uint64_t offset, uint64_t length);
  void allocate(uint64_t offset, uint64_t length);
  // Forgets what was written behind the end.
  void drop_hidden() { punch(size_, kNoEnd - size_); }
  // Blocks in use, those allocated and not written included.
  uint64_t allocated_bytes() const { return chunks_.size() * kChunkBytes; }
  // How many bytes writing [offset, offset + length) would allocate.
  uint64_t missing_bytes(uint64_t offset, uint64_t length) const;
  // Equal for equal sizes and bytes, holes or not.
  uint64_t fingerprint() const;

 private:
  using Chunk = std::array<std::byte, kChunkBytes>;
  static constexpr uint64_t kNoEnd = uint64_t{1} << 63;
  Chunk& writable(uint64_t number);

  uint64_t size_ = 0;
  std::map<uint64_t, std::shared_ptr<Chunk>> chunks_;  // null: allocated, not written
};

using Inode = uint32_t;
inline constexpr Inode kRootInode = 1;

struct Node {
  bool directory = false;
  Contents contents;
  std::map<std::string, Inode> entries;
};

// The file system of one store; the root is the store's own directory.
class DiskImage {
 public:
  DiskImage() { nodes[kRootInode].directory = true; }

  // Of "a/b/c"; "" and "." are the root.
  std::optional<Inode> find(const std::string& path) const;
  // The directory that holds (or would hold) the last part of the path, and that part.
  std::optional<std::pair<Inode, std::string>> place(const std::string& path) const;
  // Drops what no entry leads to.
  void drop_unreachable();
  uint64_t allocated_bytes() const;
  uint64_t fingerprint() const;
  // Every file's path and size, a line each, for messages.
  std::string text() const;

  std::map<Inode, Node> nodes;
};

}  // namespace test
