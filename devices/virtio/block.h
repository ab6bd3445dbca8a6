// The block device (virtio 1.2, section 5.2): one queue, requests carried out by io_uring straight
// from and to guest memory, many in flight and completed in any order. A request in flight is known
// by the head of its descriptor chain.
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
#include "devices/virtio/block_transfer.h"
#include "devices/virtio/device.h"
#include "vmm/base/io_uring.h"
#include "vmm/base/mapping.h"

namespace virtio {

class Block final : public Device {
 public:
  struct Options {
    std::string id;  // for people, and the serial number where none is given
    std::string path;
    bool read_only = false;
    std::string serial;  // the first 20 bytes are what the guest sees
    BlockFile::Access access = BlockFile::Access::kAutomatic;
  };
  // Since the device was made; may be read from any thread.
  struct Counters {
    std::atomic<uint64_t> reads = 0, writes = 0, flushes = 0, discards = 0, write_zeroes = 0;
    std::atomic<uint64_t> read_bytes = 0, written_bytes = 0;  // of requests that succeeded
    std::atomic<uint64_t> errors = 0;                         // requests answered with any error
  };

  static base::Result<std::unique_ptr<Block>> create(const Options& options);
  static base::Result<std::unique_ptr<Block>> create(BlockFile file, std::string id,
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
  const BlockFile& file() const { return file_; }
  // Heads of the chains taken off the avail ring and not given back, in ascending order. With the
  // transport's lock held.
  std::vector<uint16_t> in_flight() const;

 private:
  static constexpr uint16_t kQueueSize = 256;

  // A request from pop() to push(); has at most one operation in flight, the next one is prepared
  // when that is complete.
  struct Request : base::IoUring::Operation {
    enum class Step { kTransfer, kAllocate, kZeroes, kSync };
    bool busy = false;
    DescriptorChain chain;
    BlockRequest parsed;
    Step step = Step::kTransfer;
    BlockTransfer transfer;
    size_t range = 0;     // of parsed.ranges, the one being worked on
    uint64_t zeroed = 0;  // bytes of that range, where zeroes are written
    iovec zeroes{};
    bool durable = false;   // nothing left to sync
    uint64_t bytes_in = 0;  // the guest gets, from the beginning of the writable part
  };

  Block(BlockFile file, std::string id, const std::string& serial, base::Mapping zeroes,
        std::unique_ptr<base::IoUring> ring);

  base::Result<void> take_requests();
  base::Result<void> start_next();
  base::Result<void> start(Request& request);
  base::Result<void> begin_transfer(Request& request);
  base::Result<void> give_id(Request& request);
  base::Result<void> advance(Request& request);
  base::Result<void> prepare_transfer(Request& request);
  base::Result<void> prepare_range(Request& request);
  base::Result<void> on_event();
  base::Result<void> complete(Request& request);
  base::Result<void> fail_step(Request& request, int os_error);
  base::Result<void> finish(Request& request, BlockStatus status);
  void count(const Request& request, BlockStatus status);
  void release(Request& request);
  void end_reset();
  void leave_transport();

  std::string id_;
  std::array<char, 20> serial_{};
  BlockFile file_;
  base::Mapping zeroes_;  // never written: its pages are the kernel's zero page
  Counters counters_;
  // What the first refusal showed the file cannot do.
  bool punch_works_ = true;
  bool zero_range_works_ = true;

  Transport* transport_ = nullptr;  // from activate() to the end of the reset
  bool write_through_ = false;      // the driver knows no flush: every write is made durable
  bool resetting_ = false;
  bool more_waiting_ = false;  // the avail ring was left before it was empty
  bool interrupt_ = false;     // something was pushed and not announced
  DescriptorChain next_chain_;
  std::vector<std::unique_ptr<Request>> requests_;  // by head; made when first used
  std::unique_ptr<base::IoUring> ring_;             // last: it waits for what uses the rest
};

}  // namespace virtio
