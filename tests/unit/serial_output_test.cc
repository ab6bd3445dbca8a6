#include "devices/serial_output.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <string>
#include <thread>

#include "tests/support/fake_line.h"
#include "tests/support/registers.h"

namespace devices {
namespace {

class SerialOutputTest : public testing::Test {
 protected:
  void print(std::string_view text) {
    for (char c : text) test::write_register(serial_, 0, static_cast<uint8_t>(c));
  }
  static std::string read_all(int fd) {
    std::string all;
    char buffer[4096];
    for (ssize_t n; (n = read(fd, buffer, sizeof buffer)) > 0;) all.append(buffer, n);
    return all;
  }

  test::LineRecord line_;
  Serial serial_{std::make_unique<test::FakeLine>(line_)};
};

TEST_F(SerialOutputTest, WritesToAPipeWithoutWaitingForTheEnd) {
  int ends[2];
  ASSERT_EQ(pipe2(ends, O_CLOEXEC), 0);
  auto output = SerialOutput::start(serial_, ends[1]);
  ASSERT_TRUE(output) << output.error().text();
  print("login: ");
  std::string seen;
  char buffer[64];
  while (seen.size() < 7) {  // blocks until the prompt comes, which has no newline
    ssize_t n = read(ends[0], buffer, sizeof buffer);
    ASSERT_GT(n, 0);
    seen.append(buffer, n);
  }
  EXPECT_EQ(seen, "login: ");
  EXPECT_EQ(fcntl(ends[1], F_GETFL) & O_NONBLOCK, 0) << "the caller's flags are left alone";
  close(ends[0]);
  close(ends[1]);
}

TEST_F(SerialOutputTest, WritesWhatCameBeforeItBeganEvenIfItNeverDoes) {
  for (bool begins : {true, false}) {
    int ends[2];
    ASSERT_EQ(pipe2(ends, O_CLOEXEC), 0);
    {
      auto target = SerialOutput::open(ends[1]);
      ASSERT_TRUE(target) << target.error().text();
      SerialOutput output(serial_, std::move(*target));
      print("early");
      if (begins) {
        ASSERT_TRUE(output.begin());
      }
    }
    close(ends[1]);
    EXPECT_EQ(read_all(ends[0]), "early") << begins;
    close(ends[0]);
  }
}

TEST_F(SerialOutputTest, WritesOutTheLastLinesWhenItEnds) {
  FILE* file = tmpfile();
  ASSERT_NE(file, nullptr);
  int fd = fileno(file);
  ASSERT_EQ(write(fd, "before\n", 7), 7);
  std::string text;
  {
    auto output = SerialOutput::start(serial_, fd);
    ASSERT_TRUE(output);
    for (int i = 0; i < 1000; i++) text += "line " + std::to_string(i) + "\n";
    print(text);
  }
  ASSERT_EQ(lseek(fd, 0, SEEK_SET), 0);
  EXPECT_EQ(read_all(fd), "before\n" + text) << "appended at the descriptor's own offset";
  fclose(file);
}

TEST_F(SerialOutputTest, AStoppedReaderLosesNothing) {
  int ends[2];
  ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
  int small = 4096;
  ASSERT_EQ(setsockopt(ends[1], SOL_SOCKET, SO_SNDBUF, &small, sizeof small), 0);
  std::string text;
  auto output = SerialOutput::start(serial_, ends[1]);
  ASSERT_TRUE(output);
  // Nobody reads: the port fills up until it says so.
  while (test::read_register<uint8_t>(serial_, 5) & 0x20) {
    std::string piece = std::to_string(text.size()) + " ";
    text += piece;
    print(piece);
  }
  std::string seen(text.size(), '\0');
  size_t at = 0;
  while (at < seen.size()) {
    ssize_t n = read(ends[0], seen.data() + at, seen.size() - at);
    ASSERT_GT(n, 0);
    at += static_cast<size_t>(n);
  }
  EXPECT_EQ(seen, text);
  output->reset();
  close(ends[0]);
  close(ends[1]);
}

TEST_F(SerialOutputTest, AReaderThatWentAwayStopsNobody) {
  int ends[2];
  ASSERT_EQ(pipe2(ends, O_CLOEXEC), 0);
  auto output = SerialOutput::start(serial_, ends[1]);
  ASSERT_TRUE(output);
  close(ends[0]);
  // More than the port's queue and the pipe hold: somebody takes it.
  for (size_t sent = 0; sent < 4 * Serial::kOutputLimit;) {
    if (!(test::read_register<uint8_t>(serial_, 5) & 0x20)) continue;
    print("x");
    sent++;
  }
  output->reset();
  close(ends[1]);
}

TEST_F(SerialOutputTest, WhatIsLostIsToldOnce) {
  base::Fd full(open("/dev/full", O_WRONLY | O_CLOEXEC));
  ASSERT_TRUE(full);
  testing::internal::CaptureStderr();
  auto output = SerialOutput::start(serial_, full.get());
  ASSERT_TRUE(output) << output.error().text();
  print("first");
  std::this_thread::sleep_for(10 * SerialOutput::kLinger);  // most likely written on its own
  print("second");
  output->reset();
  const std::string told = testing::internal::GetCapturedStderr();
  EXPECT_NE(told.find("No space left on device: what the guest prints is lost"), std::string::npos)
      << told;
  EXPECT_EQ(std::ranges::count(told, '\n'), 1) << told;
}

TEST_F(SerialOutputTest, RefusesADescriptorThatIsNone) {
  auto output = SerialOutput::start(serial_, -1);
  ASSERT_FALSE(output);
  EXPECT_NE(output.error().text().find("serial output"), std::string::npos);
}

}  // namespace
}  // namespace devices
