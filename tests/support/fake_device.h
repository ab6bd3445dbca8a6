// A virtio device that records what its transport does with it, and does what the test says.
#pragma once

#include <array>
#include <functional>
#include <map>
#include <vector>

#include "devices/virtio/device.h"

namespace testing_support {

class FakeDevice : public virtio::Device {
 public:
  explicit FakeDevice(std::vector<uint16_t> queue_sizes = {16, 8})
      : queue_sizes_(std::move(queue_sizes)) {}

  virtio::DeviceType type() const override { return virtio::DeviceType::kBlock; }
  std::string_view name() const override { return "fake"; }
  uint64_t features() const override { return 0x5; }
  std::vector<uint16_t> queue_sizes() const override { return queue_sizes_; }
  void read_config(uint32_t offset, std::span<uint8_t> data) const override {
    virtio::read_config_bytes(config, offset, data);
  }
  void write_config(uint32_t offset, std::span<const uint8_t> data) override {
    for (size_t i = 0; i < data.size() && offset + i < config.size(); ++i) {
      config[offset + i] = data[i];
    }
  }
  base::Result<void> activate(virtio::Transport& given, uint64_t accepted) override {
    transport = &given;
    features_accepted = accepted;
    ++activations;
    return on_activate();
  }
  // Gives every request back at once, `written` as long as its writable part.
  base::Result<void> process(uint16_t queue) override {
    ++processed[queue];
    if (!transport->has_queue(queue)) {
      ++processed_without_queue;
      return {};
    }
    TRY(on_process(queue));
    return echo(queue);
  }
  bool reset() override {
    ++resets;
    return on_reset();
  }

  // State is a number; requests in flight are what the test says.
  void save(base::Encoder& to) const override { to.u32(state); }
  base::Result<void> restore(base::Decoder& from) override {
    state = from.u32();
    return state == 0xBAD ? base::fail("a bad state") : base::Result<void>{};
  }
  void list_in_flight(uint16_t queue, std::vector<uint16_t>& heads) const override {
    auto found = in_flight.find(queue);
    if (found != in_flight.end()) {
      heads.insert(heads.end(), found->second.begin(), found->second.end());
    }
  }
  base::Result<void> resume(uint16_t queue, std::span<const uint16_t> heads) override {
    in_flight[queue].assign(heads.begin(), heads.end());
    return {};
  }

  base::Result<void> echo(uint16_t index) {
    virtio::Virtqueue& queue = transport->queue(index);
    for (;;) {
      TRY_ASSIGN(bool popped, queue.pop(chain_));
      if (!popped) break;
      TRY(queue.push(chain_.head, static_cast<uint32_t>(chain_.writable_bytes())));
    }
    return transport->interrupt(index);
  }

  // All under the transport's lock.
  std::array<uint8_t, 8> config{1, 2, 3, 4, 5, 6, 7, 8};
  virtio::Transport* transport = nullptr;
  uint64_t features_accepted = 0;
  int activations = 0;
  int resets = 0;
  std::array<int, 16> processed{};
  int processed_without_queue = 0;
  uint32_t state = 0;
  std::map<uint16_t, std::vector<uint16_t>> in_flight;
  std::function<base::Result<void>()> on_activate = [] { return base::Result<void>{}; };
  std::function<base::Result<void>(uint16_t)> on_process = [](uint16_t) {
    return base::Result<void>{};
  };
  std::function<bool()> on_reset = [] { return true; };

 private:
  std::vector<uint16_t> queue_sizes_;
  virtio::DescriptorChain chain_;
};

}  // namespace testing_support
