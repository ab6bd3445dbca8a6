#include "devices/serial.h"

#include <gtest/gtest.h>

#include <string>

#include "tests/support/fake_line.h"
#include "tests/support/registers.h"

namespace devices {
namespace {

constexpr uint8_t kLcrDivisorLatch = 0x80;
constexpr uint8_t kMcrRts = 0x02;
constexpr uint8_t kMcrOut2 = 0x08;
constexpr uint8_t kMcrLoopback = 0x10;

class SerialTest : public testing::Test {
 protected:
  uint8_t in(uint64_t offset) { return test::read_register<uint8_t>(serial_, offset); }
  void out(uint64_t offset, uint8_t value) { test::write_register(serial_, offset, value); }
  void collect_output() {
    serial_.set_output_listener([this] { wakes_++; });
  }
  std::string output() {
    std::vector<uint8_t> bytes;
    serial_.take_output(bytes);
    return {bytes.begin(), bytes.end()};
  }
  size_t type(std::string_view text) {
    return serial_.push_input({reinterpret_cast<const uint8_t*>(text.data()), text.size()});
  }
  std::string received() {
    std::string text;
    while (in(5) & 0x01) text.push_back(static_cast<char>(in(0)));
    return text;
  }

  test::LineRecord line_;
  int wakes_ = 0;
  Serial serial_{std::make_unique<test::FakeLine>(line_)};
};

TEST_F(SerialTest, WakesTheHostOnceForABurst) {
  collect_output();
  for (char c : std::string("hello\n")) out(0, static_cast<uint8_t>(c));
  EXPECT_EQ(wakes_, 1);
  EXPECT_EQ(output(), "hello\n");
  EXPECT_EQ(output(), "");
  out(0, 'x');
  EXPECT_EQ(wakes_, 2);
}

TEST_F(SerialTest, ThrowsOutputAwayWhereNobodyListens) {
  for (size_t i = 0; i < 2 * Serial::kOutputLimit; i++) out(0, 'x');
  EXPECT_EQ(in(5) & 0x60, 0x60);
  EXPECT_EQ(output(), "");
}

TEST_F(SerialTest, TransmitterIsBusyUntilASlowHostTakesTheOutput) {
  collect_output();
  out(4, kMcrOut2);
  for (size_t i = 0; i + 1 < Serial::kOutputHighWater; i++) out(0, 'x');
  EXPECT_EQ(in(5) & 0x60, 0x60);
  out(0, 'y');
  EXPECT_EQ(in(5) & 0x60, 0);
  out(1, 0x02);
  EXPECT_EQ(in(2), 0x01) << "no interrupt while THR is full";
  EXPECT_FALSE(line_.high);
  // A guest that writes all the same loses nothing for a long while, and never more memory.
  for (size_t i = 0; i < Serial::kOutputLimit; i++) out(0, 'z');
  std::string all = output();
  EXPECT_EQ(all.size(), Serial::kOutputLimit);
  EXPECT_EQ(all[Serial::kOutputHighWater - 1], 'y');
  EXPECT_EQ(all[Serial::kOutputHighWater], 'z');
  EXPECT_TRUE(line_.high);
  EXPECT_EQ(in(2), 0x02);
  EXPECT_FALSE(line_.high) << "reading IIR takes the interrupt";
}

// The steps of Linux's 8250 autoconfig that tell a 16550A from its relatives.
TEST_F(SerialTest, IsIdentifiedAsA16550A) {
  out(1, 0x00);
  EXPECT_EQ(in(1), 0x00);
  out(1, 0xFF);
  EXPECT_EQ(in(1), 0x0F) << "no bits of an XScale or 16750";
  out(1, 0x00);

  out(4, kMcrLoopback | 0x0A);
  EXPECT_EQ(in(6) & 0xF0, 0x90) << "loopback: RTS shows as CTS, OUT2 as DCD";
  out(4, 0x00);
  EXPECT_EQ(in(6) & 0xF0, 0xB0) << "CTS, DSR and DCD are up";

  out(2, 0x01);
  EXPECT_EQ(in(2) >> 6, 3) << "FIFOs work";
  out(2, 0x21);
  EXPECT_EQ(in(2) & 0x20, 0) << "no 64-byte FIFO";
  for (uint8_t line_control : {0xBF, 0x80}) {
    out(3, line_control);
    EXPECT_NE(in(2), 0) << "no EFR";
  }
  out(3, 0x00);
  out(2, 0x00);
  EXPECT_EQ(in(2) >> 6, 0);
  out(7, 0xA5);
  EXPECT_EQ(in(7), 0xA5);
}

TEST_F(SerialTest, LoopbackFillsTheFifoAndOverruns) {
  collect_output();
  out(2, 0x07);
  out(4, kMcrLoopback);
  for (int i = 0; i < 20; i++) out(0, static_cast<uint8_t>('a' + i));
  EXPECT_EQ(in(5), 0x63) << "data, overrun, transmitter empty";
  EXPECT_EQ(in(5), 0x61) << "the read cleared the overrun";
  EXPECT_EQ(received(), "abcdefghijklmnop");
  EXPECT_EQ(output(), "") << "nothing leaves the port";
}

TEST_F(SerialTest, WithoutFifosTheLatestByteStays) {
  out(4, kMcrLoopback);
  out(0, 'a');
  out(0, 'b');
  EXPECT_EQ(in(5) & 0x03, 0x03);
  EXPECT_EQ(received(), "b");
}

TEST_F(SerialTest, DivisorLatchHidesDataAndInterruptEnable) {
  collect_output();
  out(3, kLcrDivisorLatch | 0x03);
  out(0, 0x34);
  out(1, 0x12);
  EXPECT_EQ(in(0), 0x34);
  EXPECT_EQ(in(1), 0x12);
  out(3, 0x03);
  EXPECT_EQ(in(1), 0x00);
  EXPECT_EQ(output(), "");
  EXPECT_EQ(in(3), 0x03);
}

TEST_F(SerialTest, ThrEmptyInterruptComesWithEnableAndAfterEachByte) {
  collect_output();
  out(4, kMcrOut2);
  out(1, 0x02);
  EXPECT_TRUE(line_.high);
  EXPECT_EQ(in(2), 0x02);
  EXPECT_FALSE(line_.high);
  EXPECT_EQ(in(2), 0x01);
  out(1, 0x00);
  out(1, 0x02);  // Linux falls back to a timer where this does not raise it again
  EXPECT_EQ(in(2), 0x02);
  out(0, 'x');
  EXPECT_TRUE(line_.high);
  EXPECT_EQ(line_.rises, 3u);
  out(1, 0x00);
  EXPECT_FALSE(line_.high);
}

TEST_F(SerialTest, Out2KeepsInterruptsFromTheLine) {
  out(1, 0x02);
  EXPECT_EQ(in(2) & 0x0F, 0x02);
  out(1, 0x00);
  out(1, 0x02);
  EXPECT_FALSE(line_.high);
  out(4, kMcrOut2);
  EXPECT_TRUE(line_.high);
}

TEST_F(SerialTest, ReceivesByTriggerLevelAndTimeout) {
  out(2, 0x41);  // FIFOs, trigger at 4
  out(4, kMcrOut2 | kMcrRts);
  out(1, 0x01);
  EXPECT_EQ(type("ab"), 2u);
  EXPECT_TRUE(line_.high);
  EXPECT_EQ(in(2), 0xCC) << "below the trigger level: timeout";
  EXPECT_EQ(type("cd"), 2u);
  EXPECT_EQ(in(2), 0xC4);
  EXPECT_EQ(received(), "abcd");
  EXPECT_FALSE(line_.high);
  EXPECT_EQ(in(2), 0xC1);
}

TEST_F(SerialTest, InterruptCausesHaveTheirPriority) {
  collect_output();
  out(2, 0x01);
  out(4, kMcrLoopback);
  for (int i = 0; i < 17; i++) out(0, 'x');
  out(4, kMcrOut2);  // the modem inputs change, the transmitter is empty, there is data
  out(1, 0x0F);
  EXPECT_EQ(in(2) & 0x0F, 0x06);
  in(5);
  EXPECT_EQ(in(2) & 0x0F, 0x04);
  EXPECT_EQ(received().size(), 16u);
  EXPECT_EQ(in(2) & 0x0F, 0x02);
  EXPECT_EQ(in(2) & 0x0F, 0x00);
  EXPECT_EQ(in(6), 0xBB) << "CTS, DSR and DCD changed";
  EXPECT_EQ(in(2) & 0x0F, 0x01);
  EXPECT_EQ(in(6), 0xB0);
}

TEST_F(SerialTest, InputWaitsOutsideUntilTheGuestWantsIt) {
  out(2, 0x01);
  EXPECT_EQ(type("typed before the port was opened"), 32u);
  EXPECT_EQ(in(5) & 0x01, 0);
  out(2, 0x07);  // opening the port clears its FIFOs
  out(4, kMcrRts);
  EXPECT_EQ(received(), "typed before the port was opened");
  EXPECT_EQ(in(5) & 0x02, 0) << "no overrun";
}

TEST_F(SerialTest, RefusesInputBeyondItsQueueAndSaysWhenToGoOn) {
  int calls = 0;
  serial_.set_input_listener([&] { calls++; });
  std::string text(Serial::kInputLimit + 10, 'x');
  EXPECT_EQ(type(text), Serial::kInputLimit);
  EXPECT_EQ(type("y"), 0u);
  out(2, 0x01);
  out(4, kMcrRts);
  EXPECT_EQ(calls, 0);
  for (size_t i = 0; i < Serial::kInputLimit / 2; i++) EXPECT_EQ(in(0), 'x');
  EXPECT_EQ(calls, 1);
  EXPECT_EQ(type("z"), 1u);
  EXPECT_EQ(received().back(), 'z');
  EXPECT_EQ(calls, 1);
}

TEST_F(SerialTest, WideAccessesAreBytesInARow) {
  collect_output();
  test::write_register<uint32_t>(serial_, 0, 0x03'01'00'41u);  // THR, IER, FCR, LCR
  EXPECT_EQ(output(), "A");
  EXPECT_EQ(in(3), 0x03);
  EXPECT_EQ(test::read_register<uint64_t>(serial_, 0), 0x00'B0'60'00'03'C1'00'00u);
}

TEST_F(SerialTest, StateGoesRound) {
  collect_output();
  out(3, kLcrDivisorLatch);
  out(0, 1);
  out(1, 0);
  out(3, 0x1B);
  out(2, 0x81);
  out(4, kMcrLoopback | kMcrOut2 | kMcrRts);
  for (int i = 0; i < 20; i++) out(0, static_cast<uint8_t>('a' + i));
  out(1, 0x07);
  out(7, 0x5A);
  Serial::State state = serial_.save();

  test::LineRecord line;
  Serial copy(std::make_unique<test::FakeLine>(line));
  ASSERT_TRUE(copy.restore(state));
  EXPECT_EQ(copy.save(), state);
  EXPECT_TRUE(line.high);

  std::vector<std::byte> bytes, again;
  base::Encoder encoder(bytes), other(again);
  serial_.save(encoder);
  base::Decoder decoder(bytes);
  ASSERT_TRUE(copy.restore(decoder) && decoder.finish("serial port"));
  copy.save(other);
  EXPECT_EQ(again, bytes);
  EXPECT_EQ(test::read_register<uint8_t>(copy, 2), 0xC6);
  EXPECT_EQ(test::read_register<uint8_t>(copy, 5), 0x63);
  for (int i = 0; i < 16; i++) {
    EXPECT_EQ(test::read_register<uint8_t>(copy, 0), static_cast<uint8_t>('a' + i));
  }
  EXPECT_EQ(test::read_register<uint8_t>(copy, 7), 0x5A);
}

TEST_F(SerialTest, AGuestThatWaitedForTheHostIsWokenByTheRestore) {
  collect_output();
  out(4, kMcrOut2);
  out(1, 0x02);
  for (size_t i = 0; i < Serial::kOutputHighWater; i++) out(0, 'x');
  EXPECT_FALSE(line_.high);
  Serial::State state = serial_.save();
  test::LineRecord line;
  Serial copy(std::make_unique<test::FakeLine>(line));
  ASSERT_TRUE(copy.restore(state));
  EXPECT_TRUE(line.high);
}

TEST_F(SerialTest, RefusesStatesThatNoPortCanHave) {
  auto refuses = [&](auto change) {
    Serial::State state;
    change(state);
    return !serial_.restore(state);
  };
  EXPECT_FALSE(refuses([](Serial::State&) {}));
  EXPECT_TRUE(refuses([](Serial::State& s) { s.rx_count = 2; }));
  EXPECT_TRUE(refuses([](Serial::State& s) { s.fifo_control = 1, s.rx_count = 17; }));
  EXPECT_TRUE(refuses([](Serial::State& s) { s.interrupt_enable = 0x10; }));
  EXPECT_TRUE(refuses([](Serial::State& s) { s.fifo_control = 0x02; }));
  EXPECT_TRUE(refuses([](Serial::State& s) { s.modem_control = 0x20; }));
  EXPECT_TRUE(refuses([](Serial::State& s) { s.line_errors = 0x01; }));
  EXPECT_TRUE(refuses([](Serial::State& s) { s.modem_deltas = 0x10; }));
  EXPECT_TRUE(refuses([](Serial::State& s) { s.thr_empty_pending = 2; }));
}

}  // namespace
}  // namespace devices
