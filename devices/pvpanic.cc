#include "devices/pvpanic.h"

#include "vmm/base/endian.h"

namespace devices {
namespace {

constexpr uint8_t kPanicked = 1 << 0;
constexpr uint8_t kCrashLoaded = 1 << 1;

}  // namespace

void Pvpanic::read(uint64_t, std::span<uint8_t> data) {
  base::store_register(data, kPanicked | kCrashLoaded);
}

void Pvpanic::write(uint64_t, std::span<const uint8_t> data) {
  if (base::load_register(data) & kPanicked) on_panic_();
}

}  // namespace devices
