// Hostile bzImages, unpacked here or started by their stub: whatever the bytes, loading ends with
// an entry point in RAM or with an error. The input is raw bytes, or a good image in one of the
// packings with patches before and after packing.
#include <cstddef>
#include <cstdint>
#include <iterator>

#include "tests/fuzz/boot_fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  constexpr uint8_t kStubFlag = 0x80;
  constexpr size_t kPatchSize = 3;
  fuzz::Input input(data, size);
  uint8_t shape = input.u8();
  auto path = shape & kStubFlag ? vmm::boot::BootPath::kStub : vmm::boot::BootPath::kDirect;
  // One past the packings: raw bytes.
  size_t packing = (shape & ~kStubFlag) % (std::size(test::kAllPackings) + 1);
  if (packing == std::size(test::kAllPackings)) {
    fuzz::load_hostile_kernel(std::as_bytes(input.rest()), path);
    return 0;
  }
  test::Bytes vmlinux = test::make_elf(test::small_vmlinux(1'000));
  fuzz::patch(vmlinux, input.bytes(input.u8() % 8 * kPatchSize));
  test::Bytes image = test::make_bzimage(test::kAllPackings[packing], vmlinux);
  fuzz::patch(image, input.rest());
  fuzz::load_hostile_kernel(image, path);
  return 0;
}
