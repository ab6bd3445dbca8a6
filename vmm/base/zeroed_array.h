// A fixed number of zeroes that take memory once they are touched: for bitmaps of guest memory,
// which a machine has from its start and hardly ever fills. Who must not wait for memory later
// touches it first.
#pragma once

#include <cstddef>
#include <new>
#include <type_traits>
#include <utility>

#include "vmm/base/mapping.h"

namespace base {

template <typename T>
  requires std::is_integral_v<T>
class ZeroedArray {
 public:
  ZeroedArray() = default;
  // Of the kernel: calloc() writes to all of what is small or was freed before.
  explicit ZeroedArray(size_t size) : size_(size) {
    if (size == 0) return;
    auto memory = Mapping::anonymous((size * sizeof(T) + kPage - 1) / kPage * kPage);
    if (!memory) throw std::bad_alloc();
    memory_ = std::move(*memory);
  }
  ZeroedArray(ZeroedArray&& other) noexcept
      : memory_(std::move(other.memory_)), size_(std::exchange(other.size_, 0)) {}
  ZeroedArray& operator=(ZeroedArray&& other) noexcept {
    memory_ = std::move(other.memory_);
    size_ = std::exchange(other.size_, 0);
    return *this;
  }

  // As it was made; what was never touched takes no memory now either.
  void make_zero() {
    for (T& value : *this) {
      if (value != 0) value = 0;
    }
  }

  // All of it takes memory now.
  void touch() {
    constexpr size_t kStep = kPage / sizeof(T);
    for (size_t i = 0; i < size_; i += kStep) static_cast<volatile T*>(data())[i] = 0;
  }

  size_t size() const { return size_; }
  T* data() { return reinterpret_cast<T*>(memory_.data()); }
  const T* data() const { return reinterpret_cast<const T*>(memory_.data()); }
  T* begin() { return data(); }
  T* end() { return data() + size_; }
  const T* begin() const { return data(); }
  const T* end() const { return data() + size_; }
  T& operator[](size_t index) { return data()[index]; }
  const T& operator[](size_t index) const { return data()[index]; }

 private:
  static constexpr size_t kPage = 4096;
  Mapping memory_;
  size_t size_ = 0;
};

}  // namespace base
