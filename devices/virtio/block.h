// The block device (virtio 1.2, section 5.2): one queue; takes requests off it, has its disk carry
// them out, many at a time, and answers them in any order. A request in flight is known by the head
// of its descriptor chain.
//
// Owned by the machine, each with an event loop of its own; called as device.h says.
#pragma once

#include <array>
#include <atomic>
#include <memory>
#include <string>
#include <vector>

#include "devices/virtio/block_file.h"
#include "devices/virtio/block_request.h"
#include "devices/virtio/device.h"
#include "devices/virtio/disk.h"

namespace virtio {

class Block final : public Device {
 public:
  struct Options {
    std::string id;  // for people, and the serial number where none is given
    std::string path;
    bool read_only = false;
    std::string serial;  // the first 20 bytes are what the guest sees
    BlockFile::Access access = BlockFile::Access::kAutomatic;
    bool raw = false;
    // Where given, what says how to open one says nothing.
    std::unique_ptr<Disk> disk = nullptr;
  };
  // Since the device was made; may be read from any thread.
  struct Counters {
    std::atomic<uint64_t> reads = 0, writes = 0, flushes = 0, discards = 0, write_zeroes = 0;
    std::atomic<uint64_t> read_bytes = 0, written_bytes = 0;  // of requests that succeeded
    std::atomic<uint64_t> errors = 0;                         // requests answered with any error
  };

  static base::Result<std::unique_ptr<Block>> create(Options options);
  static std::unique_ptr<Block> create(std::unique_ptr<Disk> disk, std::string id,
                                       const std::string& serial);

  DeviceType type() const override { return DeviceType::kBlock; }
  std::string_view name() const override { return id_; }
  uint64_t features() const override;
  std::vector<uint16_t> queue_sizes() const override { return {kQueueSize}; }
  void read_config(uint32_t offset, std::span<uint8_t> data) const override;
  base::Result<void> activate(Transport& transport, uint64_t features) override;
  base::Result<void> process(uint16_t queue) override;
  bool reset() override;
  void save(base::Encoder& to) const override;
  base::Result<void> restore(base::Decoder& from) override;
  void list_in_flight(uint16_t queue, std::vector<uint16_t>& heads) const override;
  base::Result<void> resume(uint16_t queue, std::span<const uint16_t> heads) override;

  const Counters& counters() const { return counters_; }
  const Disk& disk() const { return *disk_; }
  // Heads of the chains taken off the avail ring and not given back, in ascending order. With the
  // transport's lock held.
  std::vector<uint16_t> in_flight() const;

 private:
  static constexpr uint16_t kQueueSize = 256;

  // A request from pop() to push().
  struct Request : Disk::Request {
    bool busy = false;
    DescriptorChain chain;
    BlockRequest parsed;
    uint64_t bytes_in = 0;  // the guest gets, from the beginning of the writable part
  };

  Block(std::unique_ptr<Disk> disk, std::string id, const std::string& serial);

  base::Result<void> take_requests();
  base::Result<void> start_next();
  base::Result<void> start(Request& request);
  base::Result<void> give_id(Request& request);
  base::Result<void> on_event();
  base::Result<void> finish_complete();
  base::Result<void> finish(Request& request, BlockStatus status);
  void count(const Request& request, BlockStatus status);
  void release(Request& request);
  void end_reset();
  void leave_transport();

  std::string id_;
  std::array<char, 20> serial_{};
  Counters counters_;

  Transport* transport_ = nullptr;  // from activate() to the end of the reset
  bool write_through_ = false;      // the driver knows no flush: every write is made durable
  bool resetting_ = false;
  bool more_waiting_ = false;  // the avail ring was left before it was empty
  bool interrupt_ = false;     // something was pushed and not announced
  DescriptorChain next_chain_;
  std::vector<std::unique_ptr<Request>> requests_;  // by head; made when first used
  std::unique_ptr<Disk> disk_;                      // last: it waits for what uses the rest
};

}  // namespace virtio
