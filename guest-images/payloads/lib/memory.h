// Guest-physical memory: the map the loader gave, the identity mapping of what lies above
// 4 GiB, and an allocator that hands out RAM outside the image. Nothing is ever freed.
#pragma once

#include <stdint.h>

#include "pvh.h"

enum { kPageBytes = 4096 };

// Takes the map over (the loader's copy may be given out afterwards) and maps RAM above 4 GiB.
void MemoryInit(const struct PvhMemmapEntry *map, uint32_t entries);

uint64_t MemoryRamBytes(void);

// Lowest free RAM of that size and alignment (a power of two, at least a page), or 0.
uint64_t MemoryAllocate(uint64_t bytes, uint64_t alignment);

// Takes exactly this range; 0 unless all of it is free RAM, gpa otherwise.
uint64_t MemoryAllocateAt(uint64_t gpa, uint64_t bytes);

// The largest free range, for messages.
uint64_t MemoryLargestFree(void);

// The pointer of a guest-physical address: everything is mapped one to one.
static inline void *MemoryPointer(uint64_t gpa) { return (void *)gpa; }
