// RuntimeMain: the first C function, entered by start.S in ring 3.
#include "boot.h"
#include "exceptions.h"
#include "exit.h"
#include "memory.h"
#include "options.h"
#include "payload.h"
#include "print.h"
#include "pvh.h"
#include "serial.h"

_Noreturn void RuntimeMain(void);

_Noreturn void RuntimeMain(void) {
  SerialInit();
  ExceptionsInit();
  const struct PvhStartInfo *info = MemoryPointer(boot_start_info);
  if (info->magic != kPvhMagic || info->version < 1)
    FAIL_USAGE("boot: no PVH start_info with a memory map at 0x%x: magic 0x%x version %u\n",
               boot_start_info, info->magic, info->version);
  OptionsInit(info->cmdline_gpa != 0 ? MemoryPointer(info->cmdline_gpa) : "");
  MemoryInit(MemoryPointer(info->memmap_gpa), info->memmap_entries);
  Exit(PayloadMain());
}
