// The PVH boot structures (Xen's xen/include/public/arch-x86/hvm/start_info.h): what the
// loader hands over in %ebx. Read once by RuntimeMain, before any memory is given out.
#pragma once

#include <stdint.h>

#define kPvhMagic 0x336ec578u

struct PvhStartInfo {
  uint32_t magic;
  uint32_t version;  // 1 or more: memmap fields are there
  uint32_t flags;
  uint32_t module_count;
  uint64_t modules_gpa;
  uint64_t cmdline_gpa;
  uint64_t rsdp_gpa;
  uint64_t memmap_gpa;
  uint32_t memmap_entries;
  uint32_t reserved;
};
_Static_assert(sizeof(struct PvhStartInfo) == 56, "layout is Xen's");

#define kPvhMemoryRam 1u

struct PvhMemmapEntry {
  uint64_t gpa;
  uint64_t bytes;
  uint32_t type;
  uint32_t reserved;
};
_Static_assert(sizeof(struct PvhMemmapEntry) == 24, "layout is Xen's");
