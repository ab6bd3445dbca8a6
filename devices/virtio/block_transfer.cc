#include "devices/virtio/block_transfer.h"

#include <algorithm>
#include <cstring>

namespace virtio {
namespace {

// Enough for one operation to be worth its system call; a queue full of such requests takes 16 MiB.
constexpr uint64_t kBounceBytes = 64 << 10;

// Copies between the beginning of `vectors` and `flat`.
template <typename Copy>
void walk(std::span<const iovec> vectors, std::span<std::byte> flat, Copy copy) {
  for (const iovec& vector : vectors) {
    if (flat.empty()) return;
    size_t piece = std::min(vector.iov_len, flat.size());
    copy(vector.iov_base, flat.data(), piece);
    flat = flat.subspan(piece);
  }
}

}  // namespace

void BlockTransfer::begin(Direction direction, std::vector<iovec>& vectors, uint64_t offset,
                          uint64_t alignment) {
  direction_ = direction;
  offset_ = offset;
  first_ = 0;
  vectors_.clear();
  vectors_.swap(vectors);
  remaining_ = 0;
  for (const iovec& vector : vectors_) remaining_ += vector.iov_len;
  bounced_ = std::ranges::any_of(vectors_, [&](const iovec& vector) {
    return reinterpret_cast<uintptr_t>(vector.iov_base) % alignment != 0 ||
           vector.iov_len % alignment != 0;
  });
}

std::span<std::byte> BlockTransfer::bounce() {
  if (!bounce_) bounce_.reset(new (kBounceAlignment) std::byte[kBounceBytes]);
  return {bounce_.get(), std::min(remaining_, kBounceBytes)};
}

std::span<const iovec> BlockTransfer::next() {
  auto left = std::span(vectors_).subspan(first_);
  if (!bounced_) return left;
  auto piece = bounce();
  if (direction_ == Direction::kToDisk) {
    walk(left, piece,
         [](void* guest, void* copy, size_t bytes) { std::memcpy(copy, guest, bytes); });
  }
  bounce_vector_ = {piece.data(), piece.size()};
  return {&bounce_vector_, 1};
}

void BlockTransfer::completed(uint64_t bytes) {
  if (bounced_ && direction_ == Direction::kFromDisk) {
    walk(std::span(vectors_).subspan(first_), bounce().first(bytes),
         [](void* guest, void* copy, size_t piece) { std::memcpy(guest, copy, piece); });
  }
  trim(bytes);
}

void BlockTransfer::trim(uint64_t bytes) {
  remaining_ -= bytes;
  offset_ += bytes;
  while (bytes > 0) {
    iovec& vector = vectors_[first_];
    size_t piece = std::min<uint64_t>(vector.iov_len, bytes);
    vector.iov_base = static_cast<std::byte*>(vector.iov_base) + piece;
    vector.iov_len -= piece;
    bytes -= piece;
    if (vector.iov_len == 0) ++first_;
  }
}

void BlockTransfer::end() {
  remaining_ = 0;
  bounce_.reset();
}

}  // namespace virtio
