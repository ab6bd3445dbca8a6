#include "tests/support/delayed_storage.h"

#include <gtest/gtest.h>
#include <poll.h>

#include <algorithm>
#include <string>
#include <vector>

#include "tests/support/model_storage.h"

namespace test {
namespace {

using snapshot::IoQueue;
using snapshot::Storage;

struct Transfer : IoQueue::Operation {
  std::string text;
  iovec vector{};
  std::span<const iovec> vectors() {
    vector = {text.data(), text.size()};
    return {&vector, 1};
  }
};

TEST(DelayedStorageTest, WritesFinishLateInAnotherOrderAndAllOfThem) {
  ModelFileSystem system;
  auto storage = delay_writes(system.storage(), {.longest = std::chrono::milliseconds(20)});
  auto file = std::move(*storage->create("a", Storage::Caching::kCached));
  auto queue = std::move(*storage->make_queue(16));
  std::vector<Transfer> writes(16);
  for (size_t i = 0; i < writes.size(); ++i) {
    writes[i].text = std::string(2, static_cast<char>('a' + i));
    ASSERT_TRUE(queue->writev(writes[i], *file, writes[i].vectors(), 2 * i));
  }
  ASSERT_TRUE(queue->submit());
  EXPECT_EQ(queue->in_flight(), 16u);
  std::vector<size_t> order;
  while (order.size() < writes.size()) {
    pollfd wait{queue->event().fd(), POLLIN, 0};
    ASSERT_EQ(::poll(&wait, 1, 10000), 1) << "nothing announced";
    queue->event().consume();
    while (auto* done = queue->next_completion()) {
      EXPECT_EQ(done->result, 2);
      EXPECT_FALSE(done->pending);
      order.push_back(static_cast<size_t>(static_cast<Transfer*>(done) - writes.data()));
    }
  }
  EXPECT_EQ(queue->in_flight(), 0u);
  EXPECT_FALSE(std::is_sorted(order.begin(), order.end()));
  std::string text(32, '?');
  ASSERT_TRUE(file->read(0, std::as_writable_bytes(std::span(text))));
  EXPECT_EQ(text, "aabbccddeeffgghhiijjkkllmmnnoopp");
}

// What the equality tests need: a write from memory that its owner still changes is seen.
TEST(DelayedStorageTest, AWriteTakesItsMemoryLate) {
  ModelFileSystem system;
  auto storage = delay_writes(system.storage(), {.longest = std::chrono::milliseconds(50)});
  auto file = std::move(*storage->create("a", Storage::Caching::kCached));
  auto queue = std::move(*storage->make_queue(16));
  std::vector<Transfer> writes(8);
  for (size_t i = 0; i < writes.size(); ++i) {
    writes[i].text = "o";
    ASSERT_TRUE(queue->writev(writes[i], *file, writes[i].vectors(), i));
  }
  ASSERT_TRUE(queue->submit());
  for (auto& write : writes) write.text[0] = 'n';
  while (queue->wait_completion() != nullptr) {
  }
  std::string text(8, '?');
  ASSERT_TRUE(file->read(0, std::as_writable_bytes(std::span(text))));
  EXPECT_NE(text.find('n'), std::string::npos) << text;
}

TEST(DelayedStorageTest, AQueueThatEndsHasWrittenEverything) {
  ModelFileSystem system;
  auto storage = delay_writes(system.storage(), {});
  auto file = std::move(*storage->create("a", Storage::Caching::kCached));
  auto queue = std::move(*storage->make_queue(16));
  Transfer write, sync;
  write.text = "text";
  ASSERT_TRUE(queue->writev(write, *file, write.vectors(), 0));
  ASSERT_TRUE(queue->submit());
  ASSERT_TRUE(queue->sync(sync, *file));
  queue.reset();
  EXPECT_EQ(*file->size(), 4u);
  EXPECT_EQ(write.result, 4);
  EXPECT_EQ(sync.result, 0);
}

}  // namespace
}  // namespace test
