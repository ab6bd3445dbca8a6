// A hostile driver on one side of the console; on the other a terminal that types, reads, and goes.
#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include "devices/virtio/console.h"
#include "tests/fuzz/queue_fuzz.h"

namespace {

void make_pipe(base::Fd& read_end, base::Fd& write_end) {
  int ends[2];
  FUZZ_CHECK(::pipe2(ends, O_NONBLOCK | O_CLOEXEC) == 0);
  read_end.reset(ends[0]);
  write_end.reset(ends[1]);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  ::signal(SIGPIPE, SIG_IGN);  // blocked on a device's loop
  fuzz::Input input(data, size);
  base::Fd keyboard, screen, device_input, device_output;
  make_pipe(device_input, keyboard);
  make_pipe(screen, device_output);
  auto device =
      std::move(*virtio::Console::create("console0", std::move(device_input),
                                         std::move(device_output), virtio::Console::Size{80, 25}));
  fuzz::drive(*device, input, [&](fuzz::Input& script) {
    uint8_t action = script.u8();
    char seen[4096];
    switch (action % 8) {
      case 0:
        return keyboard.reset();
      case 1:
        return screen.reset();
      case 2:
      case 3:
        if (screen) (void)!::read(screen.get(), seen, sizeof seen);
        return;
      default: {
        auto keys = script.bytes(action / 8);
        if (keyboard && !keys.empty()) (void)!::write(keyboard.get(), keys.data(), keys.size());
      }
    }
  });
  return 0;
}
