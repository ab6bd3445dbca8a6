// A balloon whose driver is hostile, with a target that changes and statistics that are asked for.
#include "devices/virtio/balloon.h"
#include "tests/fuzz/queue_fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  fuzz::Input input(data, size);
  virtio::BalloonOptions options{.guest_bytes = 4 << 20};
  options.page_reporting = input.u8() & 1;
  auto balloon = std::move(*virtio::Balloon::create("balloon", options));
  fuzz::drive(*balloon, input, [&](fuzz::Input& more) {
    uint8_t what = more.u8();
    if (what & 1) {
      FUZZ_CHECK(balloon->set_target(what >> 1).has_value() == ((what >> 1) <= 4));
    } else {
      balloon->request_statistics();
    }
  });
  FUZZ_CHECK(balloon->target_mib() <= 4);
  return 0;
}
