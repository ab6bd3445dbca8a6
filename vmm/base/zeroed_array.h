// A fixed number of zeroes that take memory once they are touched: for bitmaps of guest memory,
// which a machine has from its start and hardly ever fills. Who must not wait for memory later
// touches it first.
#pragma once

#include <cstddef>
#include <cstdlib>
#include <memory>
#include <new>
#include <type_traits>
#include <utility>

namespace base {

template <typename T>
  requires std::is_integral_v<T>
class ZeroedArray {
 public:
  ZeroedArray() = default;
  // calloc() leaves fresh memory of the kernel's as it is; a vector would write to all of it.
  explicit ZeroedArray(size_t size)
      : data_(static_cast<T*>(std::calloc(size > 0 ? size : 1, sizeof(T)))), size_(size) {
    if (!data_) throw std::bad_alloc();
  }
  ZeroedArray(ZeroedArray&& other) noexcept
      : data_(std::move(other.data_)), size_(std::exchange(other.size_, 0)) {}
  ZeroedArray& operator=(ZeroedArray&& other) noexcept {
    data_ = std::move(other.data_);
    size_ = std::exchange(other.size_, 0);
    return *this;
  }

  // All of it takes memory now.
  void touch() {
    constexpr size_t kStep = 4096 / sizeof(T);
    for (size_t i = 0; i < size_; i += kStep) static_cast<volatile T*>(data())[i] = 0;
    if (size_ > 0) static_cast<volatile T*>(data())[size_ - 1] = 0;
  }

  size_t size() const { return size_; }
  T* data() { return data_.get(); }
  const T* data() const { return data_.get(); }
  T* begin() { return data(); }
  T* end() { return data() + size_; }
  const T* begin() const { return data(); }
  const T* end() const { return data() + size_; }
  T& operator[](size_t index) { return data_.get()[index]; }
  const T& operator[](size_t index) const { return data_.get()[index]; }

 private:
  struct Free {
    void operator()(T* data) const { std::free(data); }
  };
  std::unique_ptr<T, Free> data_;
  size_t size_ = 0;
};

}  // namespace base
