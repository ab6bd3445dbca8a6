// Bytes in the order they came, for data that its receiver does not take yet. The owner bounds it.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

namespace virtio {

class ByteQueue {
 public:
  bool empty() const { return start_ == bytes_.size(); }
  size_t size() const { return bytes_.size() - start_; }
  std::span<const std::byte> front() const { return std::span(bytes_).subspan(start_); }

  // Room for `count` more bytes at the end, to be filled in by the caller.
  std::span<std::byte> extend(size_t count) {
    if (start_ > bytes_.size() / 2) {
      bytes_.erase(bytes_.begin(), bytes_.begin() + static_cast<std::ptrdiff_t>(start_));
      start_ = 0;
    }
    bytes_.resize(bytes_.size() + count);
    return std::span(bytes_).last(count);
  }

  void consume(size_t count) {
    start_ += count;
    if (empty()) clear();
  }

  // Gives the memory back too: most queues are empty most of the time.
  void clear() {
    bytes_ = {};
    start_ = 0;
  }

 private:
  std::vector<std::byte> bytes_;
  size_t start_ = 0;
};

}  // namespace virtio
