// A hostile operating system on the PCI bus: two virtio devices, and the fuzzer's bytes are a
// script of accesses to configuration space, to the BARs, to the queues in memory, and of kicks.
// Whatever it did, a driver that then resets a device and sets it up by the rules gets its work
// done.
#include "devices/virtio/pci_transport.h"
#include "tests/fuzz/fuzz_input.h"
#include "tests/support/driver_queue.h"
#include "tests/support/fake_device.h"
#include "tests/support/fake_interrupts.h"
#include "tests/support/pci_driver.h"
#include "vmm/base/log.h"
#include "vmm/layout.h"

namespace {

using testing_support::DriverQueue;
using testing_support::FakeDevice;
using testing_support::PciDriver;
using vmm::Gpa;

constexpr uint64_t kMemory = 256 << 10;
constexpr int kMaxSteps = 256;

class HostileSystem {
 public:
  explicit HostileSystem(fuzz::Input& input) : input_(input) {
    FUZZ_CHECK(root_.attach(pio_, mmio_));
    for (Slot& slot : slots_) {
      auto made = virtio::PciTransport::create(
          {*memory_, mmio_, interrupts_, interrupts_, root_, *loop_}, slot.device);
      FUZZ_CHECK(made);
      slot.transport = std::move(*made);
      slot.driver.probe();
      slot.home = static_cast<uint32_t>(slot.driver.bar());
      // A reset takes until the script, or the end, says that it is complete.
      slot.device.on_reset = [&slot] { return !slot.slow; };
    }
  }
  ~HostileSystem() { loop_->stop(); }

  void run() {
    for (int step = 0; step < kMaxSteps && !input_.empty(); ++step) act();
    // Both are out of each other's way first: a BAR does not go where another one is.
    for (Slot& slot : slots_) slot.driver.set_config<uint16_t>(pci::kCommand, 0);
    for (Slot& slot : slots_) expect_to_work(slot);
    FUZZ_CHECK(interrupts_.unrouted() == 0);
  }

 private:
  struct Slot {
    FakeDevice device;
    PciDriver driver;
    std::unique_ptr<virtio::PciTransport> transport = nullptr;
    uint32_t home = 0;
    bool slow = false;
  };

  void act() {
    uint8_t action = input_.u8();
    Slot& slot = slots_[action >> 7];
    std::array<uint8_t, 8> data{};
    switch (action % 12) {
      case 0:  // a register of the common structure
        return write_mmio(slot.driver.bar() + input_.u8() % 0x40);
      case 1:
        return write_mmio(slot.driver.bar() + input_.u16() % 0x9000);
      case 2: {
        uint64_t address = slot.driver.bar() + input_.u16() % 0x9000;
        mmio_.read(address, width(data));
        return;
      }
      case 3: {
        uint16_t port = static_cast<uint16_t>(0xCF8 + input_.u8() % 8);
        auto bytes = std::span(data).first(1u << (input_.u8() % 3));
        fill(bytes);
        pio_.write(port, bytes);
        pio_.read(port, bytes);
        return;
      }
      case 4:  // configuration space of this device
        return slot.driver.set_config<uint32_t>(input_.u8() & 0xFC, input_.u32());
      case 5:
        return write_mmio(vmm::layout::kPciEcam.value + input_.u32() % vmm::layout::kPciEcamSize);
      case 6:
        mmio_.read(vmm::layout::kPciEcam.value + input_.u32() % vmm::layout::kPciEcamSize,
                   width(data));
        return;
      case 7:
        interrupts_.ring(slot.driver.doorbell(input_.u8() % 3));
        return settle();
      case 8: {  // queues and anything else in memory
        Gpa at{input_.u32() % kMemory};
        (void)memory_->write(at, std::as_bytes(input_.bytes(input_.u8())));
        return;
      }
      case 9:
        slot.slow = input_.u8() & 1;
        return;
      case 10:
        return slot.transport->locked([&] {
          if (input_.u8() & 1) {
            slot.transport->config_changed();
          } else {
            slot.transport->reset_complete();
          }
        });
      case 11:
        return set_up(slot, input_.u8());
    }
  }

  void fill(std::span<uint8_t> bytes) {
    auto given = input_.bytes(bytes.size());
    std::copy(given.begin(), given.end(), bytes.begin());
  }
  std::span<uint8_t> width(std::array<uint8_t, 8>& data) {
    return std::span(data).first(1 + input_.u8() % 8);
  }
  void write_mmio(uint64_t address) {
    std::array<uint8_t, 8> data{};
    auto bytes = width(data);
    fill(bytes);
    mmio_.write(address, bytes);
  }
  void settle() {
    loop_->run([] {});
    loop_->run([] {});
  }
  // By the rules, so that the script need not find them: `which` of the two queues.
  void set_up(Slot& slot, uint8_t which) {
    slot.driver.set_status(0);
    slot.driver.negotiate(virtio::kFeatureVersion1 | virtio::kFeatureIndirect |
                          (which & 4 ? virtio::kFeatureEventIndex : 0));
    for (uint16_t queue = 0; queue < 2; ++queue) {
      if (which >> queue & 1) slot.driver.set_queue(queue, queue_of(slot, queue).layout());
    }
    slot.driver.enable_interrupts(3);
    slot.driver.go();
  }
  DriverQueue queue_of(Slot& slot, uint16_t queue) {
    auto index = static_cast<uint64_t>(&slot - slots_.data()) * 2 + queue;
    return DriverQueue(*memory_, Gpa{0x1000 * (1 + index)}, 8);
  }

  void expect_to_work(Slot& slot) {
    slot.slow = false;
    slot.driver.set_config<uint32_t>(pci::kBar0, slot.home);
    slot.driver.set_config<uint16_t>(pci::kCommand, pci::kCommandMemory);
    slot.transport->locked([&] { slot.transport->reset_complete(); });
    slot.driver.set_status(0);
    FUZZ_CHECK(slot.driver.status() == 0);
    set_up(slot, 1);
    FUZZ_CHECK(slot.driver.status() == (PciDriver::kReady | virtio::kStatusDriverOk));
    DriverQueue queue = queue_of(slot, 0);
    queue.add(0, {{Gpa{0x20000}, 16}}, {{Gpa{0x21000}, 16}});
    slot.driver.kick(0);
    settle();
    FUZZ_CHECK(queue.used_index() == 1);
    FUZZ_CHECK(slot.device.processed_without_queue == 0);
  }

  fuzz::Input& input_;
  std::unique_ptr<vmm::GuestMemory> memory_ = std::move(*vmm::GuestMemory::create(kMemory));
  vmm::Bus pio_, mmio_;
  test::FakeInterrupts interrupts_;
  pci::Root root_;
  std::unique_ptr<base::EventLoop> loop_ = std::move(*base::EventLoop::create("fuzz"));
  std::array<Slot, 2> slots_{
      Slot{FakeDevice({8, 8}), PciDriver(pio_, mmio_, interrupts_, 1)},
      Slot{FakeDevice({8, 8}), PciDriver(pio_, mmio_, interrupts_, 2)},
  };
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  base::set_log_level(base::LogLevel::kError);
  fuzz::Input input(data, size);
  HostileSystem(input).run();
  return 0;
}
