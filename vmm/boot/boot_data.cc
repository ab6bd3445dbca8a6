#include "vmm/boot/boot_data.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <span>

#include "vmm/base/fd.h"
#include "vmm/boot/memory_map.h"
#include "vmm/layout.h"

namespace vmm::boot {

using base::fail;
using base::Result;

namespace {

uint64_t mib_up(uint64_t bytes) {
  return bytes / layout::kMiB + (bytes % layout::kMiB != 0 ? 1 : 0);
}

}  // namespace

Result<void> write_command_line(GuestMemory& memory, const std::string& text, uint64_t length_max) {
  length_max = std::min(length_max, layout::kCommandLineMax - 1);
  if (text.size() > length_max)
    return fail(
        fmt::format("the kernel command line has {} bytes, this kernel takes {}: shorten it",
                    text.size(), length_max));
  return memory.write(layout::kCommandLine,
                      std::as_bytes(std::span(text.c_str(), text.size() + 1)));
}

Result<void> load_initrd(GuestMemory& memory, const std::string& path, uint64_t kernel_end,
                         uint64_t address_limit, BootData& data) {
  // Not blocking: a fifo has no writer yet, and is refused.
  auto file = base::open_file(path, O_RDONLY | O_NONBLOCK);
  if (!file) return std::unexpected(file.error().with("initrd"));
  struct stat info{};
  if (::fstat(file->get(), &info) < 0) return base::fail_errno("initrd: stat " + path);
  if (!S_ISREG(info.st_mode)) return fail("initrd: " + path + " is not a regular file");
  auto size = static_cast<uint64_t>(info.st_size);
  if (size == 0) return fail("initrd " + path + " is empty");

  uint64_t first = (kernel_end + kPageSize - 1) / kPageSize * kPageSize;
  uint64_t highest = std::min(address_limit, layout::kLowRamEnd.value) / kPageSize * kPageSize;
  uint64_t pages_size = (size + kPageSize - 1) / kPageSize * kPageSize;
  if (highest < first || pages_size > highest - first)
    return fail(
        fmt::format("initrd {} does not fit: it has {} MiB, a kernel ending at {} MiB can "
                    "have at most {} MiB: make it smaller",
                    path, mib_up(size), mib_up(kernel_end),
                    highest < first ? 0 : (highest - first) / layout::kMiB));
  uint64_t end = std::min(highest, low_ram_end(memory));
  if (end < first || pages_size > end - first)
    return fail(
        fmt::format("initrd {} does not fit: it has {} MiB, the kernel ends at {} MiB, the "
                    "guest has {} MiB of memory: give at least --memory {}M",
                    path, mib_up(size), mib_up(kernel_end), low_ram_end(memory) / layout::kMiB,
                    mib_up(first + pages_size)));
  Gpa start{end - pages_size};
  TRY_ASSIGN(auto place, memory.dma_target(start, size));
  if (auto read = base::read_exact(file->get(), place.data(), size, 0); !read)
    return std::unexpected(read.error().with("initrd " + path));
  memory.mark_dirty(start, size);
  data.initrd = start;
  data.initrd_size = size;
  return {};
}

}  // namespace vmm::boot
