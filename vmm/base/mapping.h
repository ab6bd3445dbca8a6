// A memory mapping that unmaps itself: anonymous memory for the guest, or a file read whole.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <utility>

#include "vmm/base/result.h"

namespace base {

class Mapping {
 public:
  Mapping() = default;
  Mapping(Mapping&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}
  Mapping& operator=(Mapping&& other) noexcept;
  ~Mapping();

  // Zeroed private memory, not reserved (pages exist once touched). `size` in bytes, page-aligned.
  static Result<Mapping> anonymous(uint64_t size);
  // The same in huge pages, where the host gives them; begins at a multiple of kHugePage.
  static constexpr uint64_t kHugePage = 2 << 20;
  static Result<Mapping> huge(uint64_t size);
  // `size` bytes of `fd` from `offset` on, as they are now: what is written here stays here.
  static Result<Mapping> private_copy(int fd, uint64_t size, uint64_t offset);
  // A regular file, read-only. An empty file gives an empty mapping.
  static Result<Mapping> file(const std::string& path);
  // A shared mapping of `size` bytes of `fd` at `offset` (kvm_run, io_uring).
  static Result<Mapping> shared(int fd, uint64_t size, uint64_t offset = 0);

  std::byte* data() const { return data_; }
  uint64_t size() const { return size_; }
  std::span<const std::byte> bytes() const { return {data_, size_}; }

 private:
  Mapping(std::byte* data, uint64_t size) : data_(data), size_(size) {}
  std::byte* data_ = nullptr;
  uint64_t size_ = 0;
};

}  // namespace base
