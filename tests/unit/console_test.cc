#include "devices/virtio/console.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/support/fake_transport.h"

namespace virtio {
namespace {

using testing_support::FakeTransport;
using vmm::Gpa;

constexpr Gpa kData{0x100000};
constexpr uint16_t kRx = Console::kReceiveQueue, kTx = Console::kTransmitQueue;

std::pair<base::Fd, base::Fd> make_pipe() {
  int ends[2];
  EXPECT_EQ(::pipe2(ends, O_NONBLOCK | O_CLOEXEC), 0);
  return {base::Fd(ends[0]), base::Fd(ends[1])};
}

std::string make_text(size_t size, char first = 'a') {
  std::string text(size, ' ');
  for (size_t i = 0; i < size; ++i) text[i] = static_cast<char>(first + (i + i / 26) % 26);
  return text;
}

struct ConsoleTest : ::testing::Test {
  base::Fd keyboard_, screen_;  // the host's ends
  std::unique_ptr<Console> console_;
  std::unique_ptr<FakeTransport> transport_;

  void SetUp() override {
    auto [input, keyboard] = make_pipe();
    auto [screen, output] = make_pipe();
    keyboard_ = std::move(keyboard);
    screen_ = std::move(screen);
    console_ = std::move(*Console::create("console0", std::move(input), std::move(output)));
    transport_ = std::make_unique<FakeTransport>(*console_);
    ASSERT_TRUE(transport_->activate());
  }
  void type(std::string_view text) {
    ASSERT_EQ(::write(keyboard_.get(), text.data(), text.size()),
              static_cast<ssize_t>(text.size()));
  }
  // All that is on the screen and was not read before.
  std::string read_screen() {
    std::string all;
    char piece[4096];
    for (ssize_t n; (n = ::read(screen_.get(), piece, sizeof piece)) > 0;) {
      all.append(piece, static_cast<size_t>(n));
    }
    return all;
  }
  std::string text_at(Gpa gpa, size_t size) {
    auto view = *transport_->memory().view(gpa, size);
    return {reinterpret_cast<const char*>(view.data()), view.size()};
  }
  void put(Gpa gpa, std::string_view text) {
    ASSERT_TRUE(transport_->memory().write(gpa, std::as_bytes(std::span(text))));
  }
  auto& rx() { return transport_->driver(kRx); }
  auto& tx() { return transport_->driver(kTx); }
  bool dirty(Gpa gpa) { return transport_->memory().is_dirty(gpa.gfn()); }
};

TEST_F(ConsoleTest, OutputOfSeveralBuffersReachesTheScreen) {
  put(kData, "hello, ");
  put(kData + 0x1000, "world\n");
  tx().add(4, {{kData, 7}, {kData + 0x1000, 6}}, {});
  transport_->kick(kTx);
  EXPECT_EQ(read_screen(), "hello, world\n");
  ASSERT_EQ(tx().used_index(), 1);
  EXPECT_EQ(tx().used(0).id, 4u);
  EXPECT_EQ(tx().used(0).length, 0u);
  EXPECT_EQ(transport_->interrupts(kTx), 1);
  EXPECT_EQ(console_->counters().output_bytes, 13u);
}

TEST_F(ConsoleTest, InputFillsTheBuffersAndMarksThemDirty) {
  rx().add(2, {}, {{kData, 4}, {kData + 0x2000, 100}});
  rx().add(5, {}, {{kData + 0x3000, 100}});
  std::vector<uint64_t> sink(1024);
  transport_->memory().take_dirty(0, sink);
  type("some keys");
  ASSERT_TRUE(transport_->poll());
  ASSERT_EQ(rx().used_index(), 1);
  EXPECT_EQ(rx().used(0).id, 2u);
  EXPECT_EQ(rx().used(0).length, 9u);
  EXPECT_EQ(text_at(kData, 4) + text_at(kData + 0x2000, 5), "some keys");
  EXPECT_EQ(transport_->interrupts(kRx), 1);
  EXPECT_TRUE(dirty(kData));
  EXPECT_TRUE(dirty(kData + 0x2000));
  EXPECT_FALSE(dirty(kData + 0x3000));
  EXPECT_EQ(console_->counters().input_bytes, 9u);
}

TEST_F(ConsoleTest, InputWaitsForBuffers) {
  type("typed too early");
  ASSERT_TRUE(transport_->poll());
  EXPECT_FALSE(transport_->poll(0));  // it no longer looks at the keyboard
  EXPECT_EQ(rx().used_flags(), 0);    // and wants a kick
  rx().add(0, {}, {{kData, 5}});
  rx().add(1, {}, {{kData + 0x1000, 100}});
  transport_->kick(kRx);
  ASSERT_EQ(rx().used_index(), 2);
  EXPECT_EQ(text_at(kData, 5) + text_at(kData + 0x1000, 10), "typed too early");
  rx().add(2, {}, {{kData, 100}});
  transport_->kick(kRx);
  type("more");
  ASSERT_TRUE(transport_->poll());
  EXPECT_EQ(text_at(kData, 4), "more");
}

TEST_F(ConsoleTest, OneRequestTakesABoundedPieceOfInput) {
  type(make_text(6000));
  rx().add(0, {}, {{kData, 1 << 20}});
  rx().add(1, {}, {{kData + 0x10000, 1 << 20}});
  while (transport_->poll(0)) {
  }
  ASSERT_EQ(rx().used_index(), 2);
  EXPECT_EQ(rx().used(0).length, Console::kMaxReadBytes);
  EXPECT_EQ(text_at(kData, 4096) + text_at(kData + 0x10000, 6000 - 4096), make_text(6000));
}

TEST_F(ConsoleTest, ASlowReaderLosesNothingAndNothingSpins) {
  std::string text = make_text(300'000);  // more than a pipe takes
  put(kData, text);
  tx().add(0, {{kData, 100'000}, {kData + 100'000, 200'000}}, {});
  put(kData + 0x80000, "the end");
  tx().add(2, {{kData + 0x80000, 7}}, {});
  transport_->kick(kTx);
  EXPECT_EQ(tx().used_index(), 0);
  while (transport_->poll(0)) {
  }
  std::string seen;
  for (int turns = 0; tx().used_index() < 2; ++turns) {
    ASSERT_LT(turns, 100);
    EXPECT_FALSE(transport_->poll(0));  // full: it waits
    seen += read_screen();
    while (transport_->poll(0)) {
    }
  }
  seen += read_screen();
  EXPECT_EQ(seen, text + "the end");
  EXPECT_FALSE(transport_->poll(0));  // no longer waits for room
}

TEST_F(ConsoleTest, ALongQueueIsWrittenInTurns) {
  // 16 requests of 20 pieces each are more than one turn.
  base::Fd null = *base::open_file("/dev/null", O_RDWR | O_NONBLOCK);
  auto console = std::move(*Console::create("console1", base::Fd(), std::move(null)));
  FakeTransport transport(*console);
  ASSERT_TRUE(transport.activate());
  for (uint16_t i = 0; i < 16; ++i) {
    transport.driver(kTx).add(i, {{kData, 20 * Console::kMaxWriteBytes}}, {});
  }
  transport.kick(kTx);
  EXPECT_EQ(transport.driver(kTx).used_index(), Console::kTurnRequests / 20);
  while (transport.poll(0)) {
  }
  EXPECT_EQ(transport.driver(kTx).used_index(), 16);
  EXPECT_EQ(console->counters().output_bytes, 16u * 20 * Console::kMaxWriteBytes);
}

TEST_F(ConsoleTest, OutputIsThrownAwayWhenTheReaderIsGone) {
  // On the device's loop SIGPIPE is blocked; here it is not.
  auto before = ::signal(SIGPIPE, SIG_IGN);
  screen_.reset();
  put(kData, "nobody");
  tx().add(0, {{kData, 6}}, {});
  transport_->kick(kTx);
  tx().add(1, {{kData, 6}}, {});
  transport_->kick(kTx);
  ::signal(SIGPIPE, before);
  EXPECT_EQ(tx().used_index(), 2);
  EXPECT_EQ(console_->counters().thrown_away_bytes, 12u);
  EXPECT_FALSE(transport_->failure());
}

TEST_F(ConsoleTest, TheEndOfInputIsQuiet) {
  rx().add(0, {}, {{kData, 100}});
  type("bye");
  keyboard_.reset();
  while (transport_->poll(0)) {
  }
  EXPECT_EQ(rx().used_index(), 1);
  EXPECT_EQ(text_at(kData, 3), "bye");
  rx().add(1, {}, {{kData, 100}});
  transport_->kick(kRx);
  EXPECT_FALSE(transport_->poll(0));
  EXPECT_FALSE(transport_->failure());
}

TEST_F(ConsoleTest, AHangUpWhileInputWaitsDoesNotSpin) {
  type("x");
  ASSERT_TRUE(transport_->poll());
  keyboard_.reset();
  EXPECT_FALSE(transport_->poll(0));
  rx().add(0, {}, {{kData, 100}});
  transport_->kick(kRx);
  EXPECT_EQ(text_at(kData, 1), "x");
}

TEST_F(ConsoleTest, EmptyRequests) {
  tx().add(0, {{kData, 0}}, {});
  tx().add(1, {}, {{kData, 100}});  // nothing to read in it
  transport_->kick(kTx);
  EXPECT_EQ(tx().used_index(), 2);
  EXPECT_EQ(read_screen(), "");
  rx().add(0, {}, {{kData, 0}});
  type("x");
  ASSERT_TRUE(transport_->poll());
  ASSERT_TRUE(transport_->failure());
  EXPECT_EQ(*transport_->failure(), "console input buffer of 0 bytes");
}

TEST_F(ConsoleTest, ARequestThatShrinksWhileItIsWrittenStopsTheDevice) {
  put(kData, make_text(300'000));
  tx().add(0, {{kData, 300'000}}, {});
  transport_->kick(kTx);
  while (transport_->poll(0)) {
  }
  tx().set_descriptor(0, {kData.value, 10, 0, 0});
  read_screen();
  ASSERT_TRUE(transport_->poll());
  ASSERT_TRUE(transport_->failure());
  EXPECT_EQ(*transport_->failure(), "console output changed while it was written");
}

TEST_F(ConsoleTest, ResetForgetsAHalfWrittenRequest) {
  put(kData, make_text(300'000));
  tx().add(0, {{kData, 300'000}}, {});
  transport_->kick(kTx);
  ASSERT_TRUE(transport_->reset_device());
  EXPECT_EQ(transport_->watches(), 0u);
  read_screen();
  put(kData, "fresh");
  tx().set_avail_index(0);
  tx().add(0, {{kData, 5}}, {});
  ASSERT_TRUE(transport_->activate());
  transport_->kick(kTx);
  EXPECT_EQ(read_screen(), "fresh");
}

TEST(Console, TellsItsSize) {
  auto console = std::move(*Console::create("c", {}, {}, Console::Size{132, 43}));
  EXPECT_EQ(console->features(), kConsoleSize);
  std::array<uint8_t, 6> config;
  console->read_config(0, config);
  EXPECT_EQ(config, (std::array<uint8_t, 6>{132, 0, 43, 0, 0, 0}));
  EXPECT_EQ((*Console::create("c", {}, {}))->features(), 0u);
}

TEST(Console, TakesNullButNoFileAsInput) {
  auto null = *base::open_file("/dev/null", O_RDWR | O_NONBLOCK);
  EXPECT_TRUE(Console::create("console0", std::move(null), {}));
  char path[] = "/tmp/minivmm-console-XXXXXX";
  base::Fd file(::mkstemp(path));
  ASSERT_TRUE(file);
  ::unlink(path);
  auto refused = Console::create("console0", std::move(file), {});
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().text(),
            "console0: a regular file cannot be waited on: give its content through a pipe");
}

}  // namespace
}  // namespace virtio
