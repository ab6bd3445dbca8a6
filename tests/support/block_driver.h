// A block device under a fake transport, and a driver that makes its requests: header, data and
// status byte in one descriptor each, at fixed places of guest memory, unless a test lays them out
// itself.
#pragma once

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "devices/virtio/block.h"
#include "tests/support/fake_transport.h"

namespace test {

class BlockDriver {
 public:
  enum Type : uint32_t {
    kIn = 0,
    kOut = 1,
    kFlush = 4,
    kGetId = 8,
    kDiscard = 11,
    kWriteZeroes = 13,
  };
  static constexpr uint8_t kNoStatus = 0xEE;  // what the status byte is before the answer

  explicit BlockDriver(std::unique_ptr<virtio::Block> block, uint64_t without_features = 0)
      : block_(std::move(block)), transport_(*block_, 4 << 20, kQueueSize) {
    EXPECT_TRUE(transport_.activate(without_features));
  }

  // Slot n: header at a page of its own, status at the next one, data from kData + n * 256 KiB on.
  static vmm::Gpa header(unsigned slot) { return vmm::Gpa{0x40000 + 0x2000 * slot}; }
  static vmm::Gpa status_at(unsigned slot) { return header(slot) + 0x1000; }
  static vmm::Gpa data(unsigned slot) { return vmm::Gpa{0x100000 + 0x40000 * slot}; }

  virtio::Block& block() { return *block_; }
  testing_support::FakeTransport& transport() { return transport_; }
  vmm::GuestMemory& memory() { return transport_.memory(); }
  testing_support::DriverQueue& queue() { return transport_.driver(0); }

  void put(vmm::Gpa gpa, const std::string& bytes) {
    ASSERT_TRUE(memory().write(gpa, std::as_bytes(std::span(bytes))));
  }
  std::string get(vmm::Gpa gpa, size_t size) {
    auto view = *memory().view(gpa, size);
    return {reinterpret_cast<const char*>(view.data()), size};
  }
  uint8_t status(unsigned slot) { return static_cast<uint8_t>(get(status_at(slot), 1)[0]); }

  void put_header(vmm::Gpa gpa, uint32_t type, uint64_t sector) {
    struct {
      uint32_t type, reserved;
      uint64_t sector;
    } header{type, 0, sector};
    ASSERT_TRUE(memory().store(gpa, header));
  }
  // Publishes a request; `bytes` of data, written by the device where the type says so.
  void add(unsigned slot, uint32_t type, uint64_t sector, uint32_t bytes) {
    put_header(header(slot), type, sector);
    put(status_at(slot), std::string(1, static_cast<char>(kNoStatus)));
    std::vector<virtio::Buffer> out{{header(slot), 16}}, in;
    if (bytes > 0) (type == kIn || type == kGetId ? in : out).push_back({data(slot), bytes});
    in.push_back({status_at(slot), 1});
    queue().add(static_cast<uint16_t>(3 * slot), out, in);
  }
  // Kicks and waits until `count` requests in all were given back.
  void kick_and_wait(uint16_t count) {
    transport_.kick(0);
    wait(count);
  }
  void wait(uint16_t count) {
    while (!transport_.failure() && queue().used_index() != count) {
      if (!transport_.poll(10000)) break;
    }
    ASSERT_FALSE(transport_.failure()) << *transport_.failure();
    ASSERT_EQ(queue().used_index(), count);
  }
  // One request from start to end; its status.
  uint8_t request(uint32_t type, uint64_t sector, uint32_t bytes) {
    add(0, type, sector, bytes);
    kick_and_wait(static_cast<uint16_t>(queue().used_index() + 1));
    return status(0);
  }
  struct Segment {
    uint64_t sector;
    uint32_t sectors, flags;
  };
  uint8_t request_ranges(uint32_t type, const std::vector<Segment>& segments) {
    auto bytes = static_cast<uint32_t>(segments.size() * sizeof(Segment));
    EXPECT_TRUE(memory().write(data(0), std::as_bytes(std::span(segments))));
    return request(type, 0, bytes);
  }

  void forget_dirty() {
    std::vector<uint64_t> sink(1024);
    memory().take_dirty(0, sink);
  }
  // The numbers of the pages marked since forget_dirty(), but those of the rings.
  std::vector<uint64_t> dirty_pages() {
    std::vector<uint64_t> pages;
    for (uint64_t page = 0x20; page < memory().size() / vmm::kPageSize; ++page) {
      if (memory().is_dirty(vmm::Gfn{page})) pages.push_back(page);
    }
    return pages;
  }

 private:
  static constexpr uint16_t kQueueSize = 128;
  std::unique_ptr<virtio::Block> block_;
  testing_support::FakeTransport transport_;
};

}  // namespace test
