#include "vmm/base/mapping.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "vmm/base/fd.h"

namespace base {

Mapping& Mapping::operator=(Mapping&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

Mapping::~Mapping() {
  if (data_ != nullptr) ::munmap(data_, size_);
}

Result<Mapping> Mapping::anonymous(uint64_t size) {
  void* data = ::mmap(nullptr, size, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (data == MAP_FAILED) return fail_errno("map " + std::to_string(size >> 20) + " MiB of memory");
  return Mapping(static_cast<std::byte*>(data), size);
}

Result<Mapping> Mapping::huge(uint64_t size) {
  // With room to choose a start in; what is left over on both sides goes back.
  TRY_ASSIGN(Mapping room, anonymous(size + kHugePage));
  std::byte* begin = std::exchange(room.data_, nullptr);
  uint64_t before = -reinterpret_cast<uintptr_t>(begin) % kHugePage;
  if (before > 0) ::munmap(begin, before);
  if (before < kHugePage) ::munmap(begin + before + size, kHugePage - before);
  Mapping mapping(begin + before, size);
  // Advice: without huge pages it goes as well, slower.
  ::madvise(mapping.data(), mapping.size(), MADV_HUGEPAGE);
  return mapping;
}

Result<Mapping> Mapping::file(const std::string& path) {
  // O_NONBLOCK: opening a FIFO must not wait for its writer.
  TRY_ASSIGN(Fd fd, open_file(path, O_RDONLY | O_NONBLOCK));
  struct stat info{};
  if (::fstat(fd.get(), &info) < 0) return fail_errno("stat " + path);
  if (!S_ISREG(info.st_mode)) return fail(path + " is not a regular file");
  auto size = static_cast<uint64_t>(info.st_size);
  if (size == 0) return Mapping();
  void* data = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, fd.get(), 0);
  if (data == MAP_FAILED) return fail_errno("map " + path);
  return Mapping(static_cast<std::byte*>(data), size);
}

Result<Mapping> Mapping::private_copy(int fd, uint64_t size, uint64_t offset) {
  void* data = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_NORESERVE, fd,
                      static_cast<off_t>(offset));
  if (data == MAP_FAILED) return fail_errno("map a copy of " + std::to_string(size >> 20) + " MiB");
  return Mapping(static_cast<std::byte*>(data), size);
}

Result<Mapping> Mapping::shared(int fd, uint64_t size, uint64_t offset) {
  void* data =
      ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, static_cast<off_t>(offset));
  if (data == MAP_FAILED) return fail_errno("map shared memory");
  return Mapping(static_cast<std::byte*>(data), size);
}

}  // namespace base
