// The block device against a hostile driver, on a disk in memory. Bits of the first byte choose a
// read-only disk, an empty file behind it, whose reads end early, and the alignment of direct
// access.
#include <sys/mman.h>
#include <unistd.h>

#include "devices/virtio/block.h"
#include "devices/virtio/file_disk.h"
#include "tests/fuzz/queue_fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  constexpr uint64_t kBytes = 1 << 20;
  fuzz::Input input(data, size);
  uint8_t choice = input.u8();
  base::Fd fd(::memfd_create("disk", MFD_CLOEXEC));
  FUZZ_CHECK(fd);
  if (!(choice & 2)) FUZZ_CHECK(::ftruncate(fd.get(), kBytes) == 0);
  base::Fd same(::dup(fd.get()));

  auto file = virtio::BlockFile::adopt(std::move(fd), kBytes, choice & 1, choice & 4);
  auto disk = virtio::FileDisk::create(std::move(file));
  FUZZ_CHECK(disk);
  auto block = virtio::Block::create(std::move(*disk), "disk", "");
  fuzz::drive(*block, input);
  FUZZ_CHECK(block->in_flight().empty());
  // No request reaches past the end of the disk.
  FUZZ_CHECK(::lseek(same.get(), 0, SEEK_END) <= static_cast<off_t>(kBytes));
  return 0;
}
