#include "working_set.h"

#include "exit.h"
#include "memory.h"
#include "options.h"
#include "print.h"

enum { kLargePageBytes = 2 << 20 };

struct WorkingSet WorkingSetFromOptions(void) {
  uint64_t bytes = OptionU64("size", 64 << 20);
  uint64_t start = OptionU64("start", 0);
  if (bytes < kPageBytes || bytes % kPageBytes != 0 || start % kPageBytes != 0)
    FAIL_USAGE("usage: size=%lu start=0x%lx: both must be whole pages of %u bytes\n", bytes, start,
               kPageBytes);
  uint64_t gpa =
      start == 0 ? MemoryAllocate(bytes, kLargePageBytes) : MemoryAllocateAt(start, bytes);
  if (gpa == 0 && start == 0)
    FAIL_USAGE("usage: size=%lu: largest free range of this VM is %lu bytes\n", bytes,
               MemoryLargestFree());
  if (gpa == 0)
    FAIL_USAGE("usage: start=0x%lx size=%lu: not all of it is free RAM (VM has %lu bytes)\n", start,
               bytes, MemoryRamBytes());
  return (struct WorkingSet){gpa, bytes / kPageBytes};
}
