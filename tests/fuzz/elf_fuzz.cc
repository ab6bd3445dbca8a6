// Hostile ELF images of both classes, with and without a PVH note: raw bytes, or a good image with
// patches.
#include <cstddef>
#include <cstdint>

#include "tests/fuzz/boot_fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  enum Shape : uint8_t { k32Bit = 1, kNote = 2, kTwoSegments = 4, kWideNote = 8, kRaw = 16 };
  fuzz::Input input(data, size);
  uint8_t shape = input.u8();
  test::Bytes image;
  if (shape & kRaw) {
    auto bytes = std::as_bytes(input.rest());
    image.assign(bytes.begin(), bytes.end());
  } else {
    test::ElfSpec spec = test::small_vmlinux(600);
    spec.is_64bit = !(shape & k32Bit);
    spec.machine = spec.is_64bit ? EM_X86_64 : EM_386;
    if (shape & kNote) spec.pvh_entry = 0x100'0010;
    if (shape & kWideNote) spec.note_alignment = 8;
    if (shape & kTwoSegments) {
      spec.segments.push_back(
          {.paddr = 0x180'0000, .vaddr = 0, .content = test::code_like(300, 2), .memsz = 0x1'0000});
    }
    image = test::make_elf(spec);
    fuzz::patch(image, input.rest());
  }
  fuzz::load_hostile_kernel(image, vmm::boot::BootPath::kDirect);
  return 0;
}
