#include "tests/support/disk_image.h"

#include <xxhash.h>

#include <algorithm>
#include <cstring>
#include <functional>
#include <set>

namespace test {
namespace {

// Calls `part` for each piece of [offset, offset + length) within one chunk.
template <typename Part>
void split(uint64_t offset, uint64_t length, Part part) {
  for (uint64_t done = 0; done < length;) {
    uint64_t number = (offset + done) / Contents::kChunkBytes;
    uint64_t within = (offset + done) % Contents::kChunkBytes;
    uint64_t bytes = std::min(length - done, Contents::kChunkBytes - within);
    part(number, within, done, bytes);
    done += bytes;
  }
}

}  // namespace

Contents::Chunk& Contents::writable(uint64_t number) {
  auto& chunk = chunks_[number];
  if (!chunk) {
    chunk = std::make_shared<Chunk>();
  } else if (chunk.use_count() > 1) {
    chunk = std::make_shared<Chunk>(*chunk);
  }
  return *chunk;
}

void Contents::resize(uint64_t size) {
  if (size < size_) punch(size, kNoEnd - size);
  size_ = size;
}

void Contents::read(uint64_t offset, std::span<std::byte> into) const {
  split(offset, into.size(), [&](uint64_t number, uint64_t within, uint64_t done, uint64_t bytes) {
    auto found = chunks_.find(number);
    if (found == chunks_.end() || !found->second) {
      std::memset(into.data() + done, 0, bytes);
    } else {
      std::memcpy(into.data() + done, found->second->data() + within, bytes);
    }
  });
}

void Contents::write(uint64_t offset, std::span<const std::byte> from) {
  split(offset, from.size(), [&](uint64_t number, uint64_t within, uint64_t done, uint64_t bytes) {
    std::memcpy(writable(number).data() + within, from.data() + done, bytes);
  });
}

void Contents::punch(uint64_t offset, uint64_t length) {
  uint64_t end = offset + length;
  auto chunk = chunks_.lower_bound(offset / kChunkBytes);
  while (chunk != chunks_.end() && chunk->first * kChunkBytes < end) {
    uint64_t number = chunk->first;
    uint64_t first = std::max(offset, number * kChunkBytes) - number * kChunkBytes;
    uint64_t last = std::min(end - number * kChunkBytes, kChunkBytes);
    if (first == 0 && last == kChunkBytes) {
      chunk = chunks_.erase(chunk);
      continue;
    }
    if (chunk->second) std::memset(writable(number).data() + first, 0, last - first);
    ++chunk;
  }
}

void Contents::allocate(uint64_t offset, uint64_t length) {
  split(offset, length,
        [&](uint64_t number, uint64_t, uint64_t, uint64_t) { chunks_.try_emplace(number); });
}

uint64_t Contents::missing_bytes(uint64_t offset, uint64_t length) const {
  uint64_t missing = 0;
  split(offset, length, [&](uint64_t number, uint64_t, uint64_t, uint64_t) {
    if (!chunks_.contains(number)) missing += kChunkBytes;
  });
  return missing;
}

uint64_t Contents::fingerprint() const {
  static constexpr Chunk kZeros{};
  uint64_t hash = XXH3_64bits(&size_, sizeof size_);
  for (const auto& [number, chunk] : chunks_) {
    if (number * kChunkBytes >= size_) break;
    uint64_t visible = std::min(kChunkBytes, size_ - number * kChunkBytes);
    if (!chunk || std::memcmp(chunk->data(), kZeros.data(), visible) == 0) continue;
    hash = XXH3_64bits_withSeed(&number, sizeof number, hash);
    hash = XXH3_64bits_withSeed(chunk->data(), visible, hash);
  }
  return hash;
}

std::optional<Inode> DiskImage::find(const std::string& path) const {
  Inode inode = kRootInode;
  for (size_t from = 0; from < path.size();) {
    size_t to = std::min(path.find('/', from), path.size());
    std::string part = path.substr(from, to - from);
    from = to + 1;
    if (part.empty() || part == ".") continue;
    const Node& node = nodes.at(inode);
    auto entry = node.entries.find(part);
    if (!node.directory || entry == node.entries.end()) return {};
    inode = entry->second;
  }
  return inode;
}

std::optional<std::pair<Inode, std::string>> DiskImage::place(const std::string& path) const {
  size_t slash = path.rfind('/');
  auto directory = find(slash == std::string::npos ? "" : path.substr(0, slash));
  std::string name = slash == std::string::npos ? path : path.substr(slash + 1);
  if (!directory || !nodes.at(*directory).directory || name.empty() || name == ".") return {};
  return std::pair(*directory, name);
}

void DiskImage::drop_unreachable() {
  std::set<Inode> reached;
  std::function<void(Inode)> reach = [&](Inode inode) {
    if (!reached.insert(inode).second) return;
    for (const auto& [name, child] : nodes.at(inode).entries) reach(child);
  };
  reach(kRootInode);
  std::erase_if(nodes, [&](const auto& node) { return !reached.contains(node.first); });
}

uint64_t DiskImage::allocated_bytes() const {
  uint64_t bytes = 0;
  for (const auto& [inode, node] : nodes) bytes += node.contents.allocated_bytes();
  return bytes;
}

uint64_t DiskImage::fingerprint() const {
  uint64_t hash = 0;
  std::function<void(Inode)> add = [&](Inode inode) {
    const Node& node = nodes.at(inode);
    uint64_t own[] = {node.directory, node.contents.fingerprint(), node.entries.size()};
    hash = XXH3_64bits_withSeed(own, sizeof own, hash);
    for (const auto& [name, child] : node.entries) {
      hash = XXH3_64bits_withSeed(name.data(), name.size(), hash);
      add(child);
    }
  };
  add(kRootInode);
  return hash;
}

std::string DiskImage::text() const {
  std::string text;
  std::function<void(Inode, const std::string&)> add = [&](Inode inode, const std::string& path) {
    const Node& node = nodes.at(inode);
    text += "  " + path + (node.directory ? "/" : "");
    if (!node.directory) text += " " + std::to_string(node.contents.size());
    text += "\n";
    for (const auto& [name, child] : node.entries) {
      std::string below = path;
      add(child, below.append("/").append(name));
    }
  };
  add(kRootInode, ".");
  return text;
}

}  // namespace test
