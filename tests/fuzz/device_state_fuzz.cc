// Saved device state from a hostile store. The first byte chooses a device; the rest is either its
// state as it is, or changes (offset, value) to the state of a device that works. Whatever is
// accepted is saved to the same bytes again, and a driver can reset the device.
#include <fcntl.h>
#include <unistd.h>

#include <string>

#include "devices/acpi_pm.h"
#include "devices/pci/root.h"
#include "devices/rtc.h"
#include "devices/serial.h"
#include "devices/virtio/balloon.h"
#include "devices/virtio/block.h"
#include "devices/virtio/console.h"
#include "devices/virtio/net.h"
#include "devices/virtio/rng.h"
#include "devices/virtio/vsock.h"
#include "tests/fuzz/fuzz_input.h"
#include "tests/support/fake_line.h"
#include "tests/support/socket_backend.h"
#include "tests/support/temporary_directory.h"
#include "tests/support/temporary_file.h"
#include "tests/support/virtio_machine.h"
#include "vmm/base/log.h"

namespace {

using testing_support::VirtioMachine;
using Bytes = std::vector<std::byte>;

constexpr uint64_t kMemory = 512 << 10;

std::unique_ptr<virtio::Device> make_virtio(uint8_t which) {
  static const test::TemporaryDirectory directory;
  static const test::TemporaryFile disk{std::string(64 << 10, 'd')};
  static unsigned sockets = 0;
  switch (which % 6) {
    case 0:
      return std::move(*virtio::Rng::create("rng"));
    case 1:
      return std::move(
          *virtio::Console::create("console", {}, base::Fd(::open("/dev/null", O_WRONLY))));
    case 2: {
      testing_support::Cable cable;
      return std::make_unique<virtio::Net>("net0", virtio::MacAddress{2, 0, 0, 0, 0, 1},
                                           cable.take_backend());
    }
    case 3:
      return std::move(*virtio::Balloon::create("balloon", {.guest_bytes = kMemory}));
    case 4:
      return std::move(
          *virtio::Vsock::create("vsock", 3, directory.file("v" + std::to_string(sockets++ % 2))));
    default:
      return std::move(*virtio::Block::create({.id = "disk0",
                                               .path = disk.path(),
                                               .read_only = true,
                                               .serial = "",
                                               .access = virtio::BlockFile::Access::kBuffered}));
  }
}

Bytes change(Bytes bytes, fuzz::Input& input) {
  while (!input.empty()) {
    size_t at = input.u16();
    auto value = static_cast<std::byte>(input.u8());
    if (!bytes.empty()) bytes[at % bytes.size()] = value;
  }
  return bytes;
}

Bytes raw(fuzz::Input& input) {
  auto rest = std::as_bytes(input.rest());
  return {rest.begin(), rest.end()};
}

void try_virtio(uint8_t which, bool as_it_is, fuzz::Input& input) {
  auto memory = std::move(*vmm::GuestMemory::create(kMemory));
  Bytes state;
  if (as_it_is) {
    state = raw(input);
  } else {
    auto device = make_virtio(which);
    VirtioMachine machine(*memory, *device);
    machine.start(0, input.u8() & 1);
    state = change(machine.save(), input);
  }
  auto device = make_virtio(which);
  VirtioMachine machine(*memory, *device);
  if (!machine.restore(state)) return;
  // One that was being reset is not any more.
  constexpr size_t kStateByte = 2;
  constexpr std::byte kResetting{3};
  if (state[kStateByte] != kResetting) FUZZ_CHECK(machine.save_frozen() == state);
  machine.wake();
  if (machine.interrupts.doorbells().empty()) return;  // its registers are out of reach
  machine.driver.set_status(0);
  for (int i = 0; i < 1000 && machine.driver.status() != 0; ++i) machine.settle();
  FUZZ_CHECK(machine.driver.status() == 0);
}

template <typename Device>
void try_device(Device& device, Device& fresh, bool as_it_is, fuzz::Input& input) {
  auto save = [](Device& from) {
    Bytes bytes;
    base::Encoder encoder(bytes);
    from.save(encoder);
    return bytes;
  };
  Bytes state = as_it_is ? raw(input) : change(save(device), input);
  base::Decoder decoder(state);
  if (!fresh.restore(decoder) || !decoder.finish("state")) return;
  FUZZ_CHECK(save(fresh) == state);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  base::set_log_level(base::LogLevel::kError);
  fuzz::Input input(data, size);
  uint8_t choice = input.u8();
  bool as_it_is = choice & 0x80;
  test::LineRecord line;
  auto make_line = [&] { return std::make_unique<test::FakeLine>(line); };
  switch (choice & 0x7F) {
    case 0: {
      devices::Serial device(make_line()), fresh(make_line());
      try_device(device, fresh, as_it_is, input);
      break;
    }
    case 1: {
      devices::Rtc device, fresh;
      try_device(device, fresh, as_it_is, input);
      break;
    }
    case 2: {
      auto stopped = [] { return uint64_t{0}; };
      devices::AcpiPm device(make_line(), {}, stopped), fresh(make_line(), {}, stopped);
      try_device(device, fresh, as_it_is, input);
      break;
    }
    case 3: {
      pci::Root device, fresh;
      try_device(device, fresh, as_it_is, input);
      break;
    }
    default:
      try_virtio(choice & 0x7F, as_it_is, input);
  }
  return 0;
}
