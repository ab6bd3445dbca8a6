// What a guest that works feels of a snapshot: the longest gap it sees from the beginning of a
// snapshot until its commit, beside the longest gap of windows as long without one, and of windows
// in which a thread does something else in its place: spins, or writes as many bytes to the same
// disk as the snapshot did. That is what the host does to a guest that shares it with anything
// busy. The guest is the jitter payload, which writes a working set and watches its TSC
// (guest-images/payloads).
//
//   stall PAYLOADS STORE [--memory MIB] [--size MIB] [--rate PAGES_PER_S] [--count N] [--cpus N]
//         [--max-pause US] [--every MS] [--keep N] [--fulls N] [--stop 1]
//         [--staging MIB] [--json]
//
// STORE is made, used and left; all but the newest `--keep` snapshots are pruned on the way (0:
// none is). --rate 0: as fast as the guest can. --fulls: so many full snapshots go before the
// others. --stop 1: a guest that writes too fast is stopped instead of throttled. --staging: of the
// pool for copies; 0: as much as a snapshot takes by itself.
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <chrono>
#include <cstdlib>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>
#include <vector>

#include "snapshot/machine_guest.h"
#include "snapshot/service.h"
#include "tests/payload/guest.h"
#include "vmm/base/fd.h"
#include "vmm/base/heap.h"

namespace {

using Clock = std::chrono::steady_clock;

struct Options {
  std::string payloads, store;
  std::map<std::string, uint64_t> numbers{
      {"--memory", 2048}, {"--size", 1024},     {"--rate", 10000}, {"--count", 100},
      {"--cpus", 1},      {"--max-pause", 300}, {"--every", 20},   {"--keep", 3},
      {"--fulls", 1},     {"--stop", 0},        {"--staging", 0}};
  bool json = false;
};

[[noreturn]] void fail(const std::string& what) {
  fmt::print(stderr, "stall: {}\n", what);
  std::exit(2);
}

Options parse(int argc, char** argv) {
  Options options;
  std::vector<std::string> places;
  for (int i = 1; i < argc; ++i) {
    std::string word = argv[i];
    if (word == "--json") {
      options.json = true;
    } else if (auto number = options.numbers.find(word); number != options.numbers.end()) {
      std::string value = ++i < argc ? argv[i] : "";
      auto [end, error] =
          std::from_chars(value.data(), value.data() + value.size(), number->second);
      if (error != std::errc() || *end != '\0') fail(word + " wants a number");
    } else {
      places.push_back(word);
    }
  }
  if (places.size() != 2) fail("usage: stall PAYLOADS STORE [--memory MIB] …");
  options.payloads = places[0];
  options.store = places[1];
  return options;
}

// Asks the payload, and waits for what it prints after what it printed before.
class Jitter {
 public:
  explicit Jitter(payload_test::Guest& guest) : guest_(guest) {
    seen_ = guest_.wait_for_output("jitter: filled", std::chrono::seconds(600)).size();
  }
  void clear() { ask("c", "jitter: cleared"); }
  struct Report {
    uint64_t longest_gap_ns = 0, writes_per_s = 0;
  };
  // Since clear().
  Report report() {
    std::string report = ask("r", "jitter: end");
    auto number = [](const std::string& text, const char* key) {
      return std::strtoull(payload_test::field(text, key).c_str(), nullptr, 10);
    };
    size_t at = report.find("rank=1 ");
    return {at == std::string::npos ? 0 : number(report.substr(at), "ns"),
            number(report, "writes_per_s")};
  }

 private:
  std::string ask(const char* command, const std::string& answer) {
    guest_.type(command);
    auto end = Clock::now() + std::chrono::seconds(60);
    for (;;) {
      std::string output = guest_.output().substr(seen_);
      if (output.find(answer) != std::string::npos && output.ends_with('\n')) {
        seen_ += output.size();
        return output;
      }
      if (Clock::now() > end) fail("the guest does not answer");
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
  }
  payload_test::Guest& guest_;
  size_t seen_ = 0;
};

void spin(std::chrono::nanoseconds time) {
  for (auto end = Clock::now() + time; Clock::now() < end;) {
  }
}

// What a snapshot writes, and nothing else of it: so many bytes past the page cache (where the file
// system can), then made durable.
class PlainWriter {
 public:
  explicit PlainWriter(const std::string& path)
      : file_(open(path, O_DIRECT)),
        block_(::mmap(nullptr, kBlock, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0)) {
    if (!file_) file_ = open(path, 0);
    if (!file_ || block_ == MAP_FAILED || ::unlink(path.c_str()) < 0) fail("cannot make " + path);
  }
  void write(uint64_t bytes) const {
    for (uint64_t at = 0; at < bytes; at += kBlock) {
      if (::pwrite(file_.get(), block_, kBlock, static_cast<off_t>(at)) != kBlock) {
        fail("cannot write to the store's disk");
      }
    }
    if (::fdatasync(file_.get()) < 0) fail("cannot write to the store's disk");
  }

 private:
  static base::Fd open(const std::string& path, int flags) {
    return base::Fd(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | flags, 0600));
  }
  static constexpr size_t kBlock = 256 << 10;
  base::Fd file_;
  void* block_;
};

uint64_t at(std::vector<uint64_t> values, double part) {
  std::ranges::sort(values);
  return values.empty()
             ? 0
             : values[static_cast<size_t>(part * static_cast<double>(values.size() - 1))];
}

struct Series {
  // Nanoseconds, one a snapshot.
  std::vector<uint64_t> began;  // on the monotonic clock
  std::vector<uint64_t> with, without, busy, written, pause, clear, total;
  std::map<std::string, std::vector<uint64_t>> steps;  // of the pause
  std::vector<uint64_t> bytes;                         // committed
  uint64_t pages = 0, unchanged = 0, rewritten = 0, rounds = 0, slices = 0, held_ns = 0;
  std::vector<uint64_t> full_total, full_bytes, full_pause;  // of full ones, before all others
  snapshot::LiveGuest::PauseTimes first_pause;
  uint64_t staging_bytes = 0, writes_per_s = 0, quiet_writes_per_s = 0;

  void add(const snapshot::Capture::Outcome& outcome) {
    pause.push_back(outcome.pause.total());
    clear.push_back(outcome.longest_clear_ns);
    total.push_back(outcome.total_ns);
    bytes.push_back(outcome.bytes);
    steps["stop"].push_back(outcome.pause.stop);
    steps["barrier"].push_back(outcome.pause.barrier);
    steps["log"].push_back(outcome.pause.log);
    steps["stage"].push_back(outcome.pause.stage);
    steps["state"].push_back(outcome.pause.state);
    steps["run"].push_back(outcome.pause.run);
    pages += outcome.pages.data;
    unchanged += outcome.pages.unchanged;
    rewritten += outcome.pages.rewritten;
    rounds += outcome.rounds;
    slices += outcome.slices;
    held_ns += outcome.held_ns;
    staging_bytes = outcome.staging_bytes;
  }
};

void print_table(const Series& series) {
  auto row = [](const char* name, const std::vector<uint64_t>& values) {
    auto us = [&](double part) { return static_cast<double>(at(values, part)) / 1e3; };
    fmt::print("{:<30} p50 {:>9.1f} us   p99 {:>9.1f} us   max {:>9.1f} us\n", name, us(0.5),
               us(0.99), us(1));
  };
  row("longest gap, with a snapshot", series.with);
  row("longest gap, without", series.without);
  row("longest gap, a thread spins", series.busy);
  row("longest gap, a thread writes", series.written);
  row("pause, as the host measures it", series.pause);
  for (const char* step : {"stop", "barrier", "log", "stage", "state", "run"}) {
    row(fmt::format("  {}", step).c_str(), series.steps.at(step));
  }
  row("longest clear outside of it", series.clear);
  row("whole snapshot", series.total);
  const auto& first = series.first_pause;
  auto mean = [n = series.with.size()](uint64_t sum) {
    return static_cast<double>(sum) / static_cast<double>(n);
  };
  fmt::print(
      "a snapshot: {:.0f} pages ({:.0f} copies had not changed, {:.0f} were written twice), {:.0f} "
      "bytes, {:.1f} rounds, held {:.1f} times for {:.0f} us in all\n"
      "a full one: {:.2f} s; the first pause: stop {} + barrier {} + log {} + stage {} + state {} "
      "+ "
      "run {} us\n"
      "pool {} MiB; the guest wrote {} pages/s with snapshots, {} without\n",
      mean(series.pages), mean(series.unchanged), mean(series.rewritten),
      static_cast<double>(at(series.bytes, 0.5)), mean(series.rounds), mean(series.slices),
      mean(series.held_ns) / 1e3, static_cast<double>(at(series.full_total, 0.5)) / 1e9,
      first.stop / 1000, first.barrier / 1000, first.log / 1000, first.stage / 1000,
      first.state / 1000, first.run / 1000, series.staging_bytes >> 20, series.writes_per_s,
      series.quiet_writes_per_s);
}

void print_json(const Options& options, const Series& series) {
  nlohmann::json json = {{"options", options.numbers},
                         {"began_ns", series.began},
                         {"with_ns", series.with},
                         {"without_ns", series.without},
                         {"busy_ns", series.busy},
                         {"written_ns", series.written},
                         {"pause_ns", series.pause},
                         {"steps_ns", series.steps},
                         {"clear_ns", series.clear},
                         {"total_ns", series.total},
                         {"bytes", series.bytes},
                         {"pages", series.pages},
                         {"unchanged", series.unchanged},
                         {"rewritten", series.rewritten},
                         {"rounds", series.rounds},
                         {"held_ns", series.held_ns},
                         {"slices", series.slices},
                         {"full_total_ns", series.full_total},
                         {"full_bytes", series.full_bytes},
                         {"full_pause_ns", series.full_pause},
                         {"writes_per_s", series.writes_per_s},
                         {"quiet_writes_per_s", series.quiet_writes_per_s}};
  fmt::print("{}\n", json.dump());
}

}  // namespace

int main(int argc, char** argv) {
  base::use_one_heap();  // as minivmm
  Options options = parse(argc, argv);
  auto& numbers = options.numbers;
  auto guest = payload_test::Guest::create(
      {.payload = "jitter",
       .command_line = fmt::format("size={}M rate={} poll=2", numbers["--size"], numbers["--rate"]),
       .memory_bytes = numbers["--memory"] << 20,
       .cpus = static_cast<uint32_t>(numbers["--cpus"]),
       .payload_directory = options.payloads});
  if (!guest) fail(guest.error().text());
  auto live = snapshot::MachineGuest::create((*guest)->machine(), (*guest)->platform(), {}, {});
  if (!live) fail(live.error().text());
  snapshot::SnapshotService::Config config;
  config.vm_name = "stall";
  config.store_path = options.store;
  config.options.max_pause_ns = numbers["--max-pause"] * 1000;
  config.options.staging_bytes = numbers["--staging"] << 20;
  if (numbers["--stop"] != 0) config.options.on_hot = snapshot::Capture::OnHot::kStop;
  config.keep = static_cast<uint32_t>(numbers["--keep"]);
  auto service =
      snapshot::SnapshotService::create(std::move(config), std::move(*live), nullptr, nullptr);
  if (!service) fail(service.error().text());
  if (auto begun = (*service)->begin(); !begun) fail(begun.error().text());
  (*guest)->machine().run();
  Jitter jitter(**guest);
  auto take = [&](bool full) {
    snapshot::SnapshotService::Request request;
    request.full = full;
    auto number = (*service)->request(request);
    if (!number) fail(number.error().text());
    auto outcome = (*service)->wait(*number);
    if (!outcome) fail(outcome.error().text());
    return *outcome;
  };
  const PlainWriter writer(options.store + ".written");
  Series series;
  for (uint64_t i = 0; i < numbers["--fulls"]; ++i) {
    auto outcome = take(true);
    if (i == 0) series.first_pause = outcome.pause;
    series.full_total.push_back(outcome.total_ns);
    series.full_bytes.push_back(outcome.bytes);
    series.full_pause.push_back(outcome.pause.total());
  }
  for (uint64_t i = 0; i < numbers["--count"]; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(numbers["--every"]));
    jitter.clear();
    series.began.push_back(
        static_cast<uint64_t>(std::chrono::nanoseconds(Clock::now().time_since_epoch()).count()));
    auto outcome = take(false);
    auto [gap, writes] = jitter.report();
    const std::chrono::nanoseconds window(outcome.total_ns);
    jitter.clear();
    std::this_thread::sleep_for(window);
    auto [quiet_gap, quiet_writes] = jitter.report();
    jitter.clear();
    spin(window);
    series.busy.push_back(jitter.report().longest_gap_ns);
    jitter.clear();
    auto end = Clock::now() + window;
    writer.write(outcome.bytes);
    std::this_thread::sleep_until(end);
    series.written.push_back(jitter.report().longest_gap_ns);
    series.with.push_back(gap);
    series.without.push_back(quiet_gap);
    series.writes_per_s += writes;
    series.quiet_writes_per_s += quiet_writes;
    series.add(outcome);
  }
  uint64_t windows = std::max<uint64_t>(1, numbers["--count"]);
  series.writes_per_s /= windows;
  series.quiet_writes_per_s /= windows;
  if (options.json) {
    print_json(options, series);
  } else {
    print_table(series);
  }
}
