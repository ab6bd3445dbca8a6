#include "devices/virtio/rng.h"
#include "tests/fuzz/queue_fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  fuzz::Input input(data, size);
  auto device = std::move(*virtio::Rng::create("rng0"));
  fuzz::drive(*device, input);
  return 0;
}
