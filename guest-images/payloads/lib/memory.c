#include "memory.h"

#include <stdbool.h>
#include <stddef.h>

#include "boot.h"
#include "bytes.h"
#include "exit.h"
#include "print.h"

#define kMiB (1ull << 20)
#define kGiB (1ull << 30)
#define kStaticallyMapped (4 * kGiB)
#define kMappable (512 * kGiB)  // what one page-directory pointer table covers

enum { kMaxRanges = 64, kTableEntry = 0x67, kLargePageEntry = 0xe7, kEntriesPerTable = 512 };

struct Range {
  uint64_t begin, end;
};

static struct Range free_[kMaxRanges];  // page aligned, in no order, some empty
static uint32_t free_count_;
static uint64_t ram_bytes_;

static uint64_t AlignUp(uint64_t value, uint64_t alignment) {
  return (value + alignment - 1) & ~(alignment - 1);
}

static void AddFree(uint64_t begin, uint64_t end) {
  begin = AlignUp(begin, kPageBytes);
  end &= ~(uint64_t)(kPageBytes - 1);
  if (begin < end && free_count_ < kMaxRanges) free_[free_count_++] = (struct Range){begin, end};
}

// Page tables are ordinary RAM to ring 3, and a new entry needs no TLB flush.
static void MapGigabyte(uint64_t index) {
  uint64_t table_gpa = MemoryAllocate(kPageBytes, kPageBytes);
  if (table_gpa == 0 || table_gpa >= kStaticallyMapped)
    FAIL_USAGE("memory: no RAM below 4 GiB left for page tables\n");
  uint64_t *table = MemoryPointer(table_gpa);
  for (uint64_t i = 0; i < kEntriesPerTable; i++)
    table[i] = (index * kGiB + i * 2 * kMiB) | kLargePageEntry;
  *(volatile uint64_t *)&boot_pdpt[index] = table_gpa | kTableEntry;
}

void MemoryInit(const struct PvhMemmapEntry *map, uint32_t entries) {
  struct Range ram[kMaxRanges];
  uint32_t ram_count = 0;
  for (uint32_t i = 0; i < entries && ram_count < kMaxRanges; i++) {
    uint64_t end = map[i].gpa + map[i].bytes;
    if (map[i].type != kPvhMemoryRam || map[i].gpa >= kMappable || end < map[i].gpa) continue;
    ram_bytes_ += map[i].bytes;
    ram[ram_count++] = (struct Range){map[i].gpa, end < kMappable ? end : kMappable};
  }

  // Below 1 MiB the loader keeps its structures; the image is ours already.
  uint64_t image_begin = (uint64_t)image_start, image_end_gpa = (uint64_t)image_end;
  for (uint32_t i = 0; i < ram_count; i++) {
    uint64_t begin = ram[i].begin < kMiB ? kMiB : ram[i].begin;
    if (begin < image_begin) AddFree(begin, ram[i].end < image_begin ? ram[i].end : image_begin);
    AddFree(begin > image_end_gpa ? begin : image_end_gpa, ram[i].end);
  }

  for (uint32_t i = 0; i < ram_count; i++) {
    if (ram[i].end <= kStaticallyMapped) continue;
    for (uint64_t index = ram[i].begin / kGiB; index * kGiB < ram[i].end; index++)
      if (boot_pdpt[index] == 0) MapGigabyte(index);
  }
}

uint64_t MemoryRamBytes(void) { return ram_bytes_; }

uint64_t MemoryAllocateAt(uint64_t gpa, uint64_t bytes) {
  uint64_t end = gpa + bytes;
  if (gpa % kPageBytes != 0 || bytes == 0 || end < gpa || end > UINT64_MAX - kPageBytes) return 0;
  end = AlignUp(end, kPageBytes);
  for (uint32_t i = 0; i < free_count_; i++) {
    struct Range *range = &free_[i];
    if (gpa < range->begin || end > range->end) continue;
    uint64_t tail_end = range->end;
    range->end = gpa;
    AddFree(end, tail_end);
    return gpa;
  }
  return 0;
}

uint64_t MemoryAllocate(uint64_t bytes, uint64_t alignment) {
  uint64_t lowest = UINT64_MAX;
  for (uint32_t i = 0; i < free_count_; i++) {
    uint64_t gpa = AlignUp(free_[i].begin, alignment);
    if (gpa < free_[i].end && bytes <= free_[i].end - gpa && gpa < lowest) lowest = gpa;
  }
  return lowest == UINT64_MAX ? 0 : MemoryAllocateAt(lowest, bytes);
}

uint64_t MemoryLargestFree(void) {
  uint64_t largest = 0;
  for (uint32_t i = 0; i < free_count_; i++)
    if (free_[i].end - free_[i].begin > largest) largest = free_[i].end - free_[i].begin;
  return largest;
}
