// virtio memory balloon (virtio 1.2, section 5.5): memory the guest gives up, because it was told
// to (inflate, up to the target) or by itself as it becomes free (free page reporting). Given up
// pages go back to the host at once and are zero when the guest touches them again.
//
// Owned by the machine; called by its transport under the transport's lock. What is said to be for
// any thread is for the control server.
#pragma once

#include <array>
#include <atomic>
#include <memory>
#include <optional>
#include <string>

#include "devices/virtio/device.h"
#include "vmm/base/fd.h"

namespace virtio {

struct BalloonOptions {
  uint64_t guest_bytes = 0;  // RAM of the guest: no target is larger
  bool deflate_on_oom = true;
  bool page_reporting = true;
};

// Pages of 4 KiB since the device was made.
struct BalloonCounters {
  uint64_t inflated = 0;
  uint64_t deflated = 0;
  uint64_t reported = 0;
  uint64_t refused = 0;  // page numbers that are not RAM
};

// What the guest's kernel says of its memory, by tag (virtio 1.2, 5.5.6.4); empty where it did not.
using BalloonStatistics = std::array<std::optional<uint64_t>, 16>;

class Balloon : public Device {
 public:
  // Longest request taken; Linux sends 256 page numbers at once.
  static constexpr uint32_t kMaxRequestPages = 16 << 10;
  // What one turn of the loop does before other devices have theirs.
  static constexpr uint64_t kTurnPages = 1 << 10;
  static constexpr int kTurnRequests = 64;

  static base::Result<std::unique_ptr<Balloon>> create(std::string name,
                                                       const BalloonOptions& options);

  // The size the balloon is to have. The guest is told, and works towards it as it can. Any thread.
  base::Result<void> set_target(uint64_t mib);
  uint64_t target_mib() const { return target_pages_.load() / kPagesPerMib; }
  // The size it has, as the guest says. Any thread.
  uint64_t actual_mib() const { return actual_pages_.load() / kPagesPerMib; }
  BalloonCounters counters() const;
  // Asks the guest for new statistics; those at hand are of the last time. Any thread.
  void request_statistics();
  // With the transport's lock held.
  const BalloonStatistics& statistics() const { return statistics_; }

  DeviceType type() const override { return DeviceType::kBalloon; }
  std::string_view name() const override { return name_; }
  uint64_t features() const override;
  // Inflate, deflate, statistics, free page hints (never offered), free page reports.
  std::vector<uint16_t> queue_sizes() const override { return {128, 128, 16, 32, 32}; }
  void read_config(uint32_t offset, std::span<uint8_t> data) const override;
  void write_config(uint32_t offset, std::span<const uint8_t> data) override;
  base::Result<void> activate(Transport& transport, uint64_t features) override;
  base::Result<void> process(uint16_t queue) override;
  bool reset() override;
  void save(base::Encoder& to) const override;
  base::Result<void> restore(base::Decoder& from) override;
  void list_in_flight(uint16_t queue, std::vector<uint16_t>& heads) const override;
  base::Result<void> resume(uint16_t queue, std::span<const uint16_t> heads) override;

 private:
  static constexpr uint64_t kPagesPerMib = 256;
  static constexpr uint16_t kStatisticsQueue = 2;
  enum class Role { kInflate, kDeflate, kStatistics, kReport };

  Balloon(std::string name, const BalloonOptions& options, base::EventFd again, base::EventFd asked)
      : name_(std::move(name)),
        options_(options),
        again_(std::move(again)),
        asked_(std::move(asked)) {}

  Role role(uint16_t queue) const;
  std::array<uint8_t, 16> config() const;
  base::Result<void> finish_queues();
  base::Result<void> empty_queue(uint16_t queue);
  base::Result<uint64_t> handle(Role role, const DescriptorChain& chain);
  base::Result<uint64_t> inflate(const DescriptorChain& chain);
  base::Result<uint64_t> report(const DescriptorChain& chain);
  base::Result<uint64_t> discard(vmm::Gfn first, uint64_t pages);
  base::Result<void> take_statistics();
  base::Result<void> answer_control();

  std::string name_;
  BalloonOptions options_;
  base::EventFd again_;  // wakes the loop for what a turn left undone
  base::EventFd asked_;  // wakes the loop for what another thread asked
  Transport* transport_ = nullptr;
  uint64_t accepted_ = 0;    // features
  uint32_t unfinished_ = 0;  // queues a turn left undone, one bit each
  DescriptorChain chain_;
  BalloonStatistics statistics_;
  std::optional<uint16_t> statistics_buffer_;  // head; given back, it asks for new ones

  std::atomic<uint32_t> target_pages_ = 0;
  std::atomic<uint32_t> actual_pages_ = 0;
  std::atomic<bool> target_changed_ = false;
  std::atomic<bool> statistics_wanted_ = false;
  std::atomic<uint64_t> inflated_ = 0, deflated_ = 0, reported_ = 0, refused_ = 0;
};

}  // namespace virtio
