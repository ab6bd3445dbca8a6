#include "cli/progress_bar.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>

#include "cli/size.h"

namespace cli {

Interruptible::Interruptible() {
  sigemptyset(&waited_for_);
  for (int signal : {SIGINT, SIGTERM, SIGHUP}) sigaddset(&waited_for_, signal);
  pthread_sigmask(SIG_BLOCK, &waited_for_, &before_);
}

Interruptible::~Interruptible() { pthread_sigmask(SIG_SETMASK, &before_, nullptr); }

bool Interruptible::interrupted() {
  timespec now{};
  if (sigtimedwait(&waited_for_, nullptr, &now) > 0) interrupted_ = true;
  return interrupted_;
}

ProgressBar::ProgressBar(std::string what)
    : what_(std::move(what)),
      visible_(::isatty(STDERR_FILENO) == 1),
      start_(std::chrono::steady_clock::now()),
      last_(start_) {}

ProgressBar::~ProgressBar() {
  if (drawn_) fmt::print(stderr, "\r\x1b[K");
}

bool ProgressBar::report(uint64_t done, uint64_t total) {
  constexpr std::chrono::milliseconds kInterval{100};
  auto now = std::chrono::steady_clock::now();
  if (now - last_ < kInterval) return !interruptible_.interrupted();
  last_ = now;
  if (visible_) {
    double seconds = std::chrono::duration<double>(now - start_).count();
    fmt::print(stderr, "\r{}\x1b[K", progress_line(what_, done, total, seconds));
    drawn_ = true;
  }
  return !interruptible_.interrupted();
}

std::string progress_line(const std::string& what, uint64_t done, uint64_t total, double seconds) {
  constexpr unsigned kWidth = 24;
  double part = total == 0 ? 1 : std::min(1.0, double(done) / double(total));
  auto filled = static_cast<unsigned>(part * kWidth);
  std::string line =
      fmt::format("{} [{:#<{}}{: <{}}] {:3.0f} %  {} of {}", what, "", filled, "", kWidth - filled,
                  100 * part, format_size(done), format_size(total));
  if (seconds <= 0 || done == 0) return line;
  double rate = double(done) / seconds;
  return line + fmt::format("  {}/s  {:.0f} s left", format_size(static_cast<uint64_t>(rate)),
                            double(total - std::min(done, total)) / rate);
}

}  // namespace cli
