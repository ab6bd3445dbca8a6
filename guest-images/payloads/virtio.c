// virtio: drives virtio-blk and virtio-rng over PCI and checks what they answer. `mode`
// chooses what to drive; a further mode is one more row of kModes.
#include <stddef.h>

#include "exit.h"
#include "interrupts.h"
#include "options.h"
#include "payload.h"
#include "print.h"
#include "tsc.h"
#include "virtio_test.h"

enum { kMaxDepth = 64, kMaxBytes = 1 << 20, kMaxBuffers = 1 << 10, kSectorBytes = 512 };

static const char *const kModeNames[] = {"all", "blk", "rng", "pair", NULL};

struct Mode {
  enum VirtioTestResult (*tests[2])(const struct VirtioTest *);
  bool all_must_be_there;
};

static const struct Mode kModes[] = {
    {{VirtioTestBlock, VirtioTestRng}, false},
    {{VirtioTestBlock, NULL}, true},
    {{VirtioTestRng, NULL}, true},
    {{VirtioTestBlockPair, NULL}, true},
};

static struct VirtioTest TestFromOptions(void) {
  uint64_t khz = TscKhz();
  struct VirtioTest test = {
      .ops = OptionUpTo("ops", 256, 1u << 30),
      .queue_depth = (uint16_t)OptionUpTo("qd", 8, kMaxDepth),
      .bytes = (uint32_t)OptionUpTo("bytes", 4096, kMaxBytes),
      .buffers = (unsigned)OptionUpTo("buffers", 1, kMaxBuffers),
      .passes = OptionUpTo("passes", 1, 1u << 30),
      .interrupts = OptionUpTo("irq", 0, 1) == 1,
      .write = OptionUpTo("write", 1, 1) == 1,
      .device = (unsigned)OptionUpTo("disk", 0, 31),
      .seed = OptionU64("seed", 1),
      .khz = khz,
      .timeout_ticks = OptionUpTo("timeout", 10, 100000) * khz * 1000,
  };
  if (OptionUpTo("indirect", 1, 1) == 1) test.features |= kVirtioRingIndirectDesc;
  if (OptionUpTo("event_idx", 1, 1) == 1) test.features |= kVirtioRingEventIdx;
  if (test.ops == 0 || test.queue_depth == 0 || test.bytes == 0 || test.bytes % kSectorBytes != 0 ||
      test.buffers == 0)
    FAIL_USAGE(
        "usage: ops=%lu qd=%u bytes=%u buffers=%u: all above 0, bytes= whole sectors of %u\n",
        test.ops, test.queue_depth, test.bytes, test.buffers, kSectorBytes);
  return test;
}

unsigned PayloadMain(void) {
  unsigned choice = OptionChoice("mode", kModeNames);
  const struct Mode *mode = &kModes[choice];
  struct VirtioTest test = TestFromOptions();
  InterruptsInit();
  Print("virtio: start mode=%s ops=%lu qd=%u bytes=%u irq=%u\n", kModeNames[choice], test.ops,
        test.queue_depth, test.bytes, test.interrupts);
  unsigned passed = 0, absent = 0;
  for (unsigned i = 0; i < 2 && mode->tests[i] != NULL; i++)
    if (mode->tests[i](&test) == kTestAbsent)
      absent++;
    else
      passed++;
  if (passed == 0 || (mode->all_must_be_there && absent > 0))
    VIRTIO_TEST_FAIL("no device for mode=%s on PCI bus 0\n", kModeNames[choice]);
  Print("virtio: done devices=%u\n", passed);
  return kExitOk;
}
