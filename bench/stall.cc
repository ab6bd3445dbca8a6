// What a guest that works feels of a snapshot: the longest gap it sees from the beginning of a
// snapshot until its commit, beside the longest gap of windows as long without one. The guest is
// the jitter payload, which writes a working set and watches its TSC (guest-images/payloads).
//
//   stall PAYLOADS STORE [--memory MIB] [--size MIB] [--rate PAGES_PER_S] [--count N] [--cpus N]
//         [--max-pause US] [--json]
//
// STORE is made, used and left; each snapshot but the newest few is pruned on the way.
#include <fmt/format.h>
#include <sys/mman.h>

#include <algorithm>
#include <charconv>
#include <chrono>
#include <cstdlib>
#include <map>
#include <string>
#include <thread>
#include <vector>

#include "snapshot/machine_guest.h"
#include "snapshot/service.h"
#include "tests/payload/guest.h"

namespace {

using Clock = std::chrono::steady_clock;

struct Options {
  std::string payloads, store;
  std::map<std::string, uint64_t> numbers{{"--memory", 2048}, {"--size", 1024},
                                          {"--rate", 10000},  {"--count", 100},
                                          {"--cpus", 1},      {"--max-pause", 300}};
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
  // The longest gap since clear(), ns.
  uint64_t longest() {
    std::string report = ask("r", "jitter: end");
    size_t at = report.find("rank=1 ");
    if (at == std::string::npos) return 0;
    std::string ns = payload_test::field(report.substr(at), "ns");
    return std::strtoull(ns.c_str(), nullptr, 10);
  }
  uint64_t writes_per_s() {
    return std::strtoull(payload_test::field(ask("r", "jitter: end"), "writes_per_s").c_str(),
                         nullptr, 10);
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

uint64_t at(std::vector<uint64_t> values, double part) {
  std::ranges::sort(values);
  return values.empty()
             ? 0
             : values[static_cast<size_t>(part * static_cast<double>(values.size() - 1))];
}

struct Series {
  std::vector<uint64_t> with, without, pause, clear, total;
  std::map<std::string, std::vector<uint64_t>> steps;
  uint64_t pages = 0, bytes = 0, rounds = 0, slices = 0, held_ns = 0;
};

void print(const Options& options, const Series& series, uint64_t first_ns, uint64_t writes) {
  auto row = [&](const char* name, const std::vector<uint64_t>& values) {
    if (options.json) {
      fmt::print(
          "{{\"name\":\"{}\",\"unit\":\"us\",\"p50\":{:.1f},\"p99\":{:.1f},\"max\":{:.1f},"
          "\"n\":{}}}\n",
          name, at(values, 0.5) / 1e3, at(values, 0.99) / 1e3, at(values, 1) / 1e3, values.size());
    } else {
      fmt::print("{:<34} p50 {:>9.1f} us   p99 {:>9.1f} us   max {:>9.1f} us\n", name,
                 at(values, 0.5) / 1e3, at(values, 0.99) / 1e3, at(values, 1) / 1e3);
    }
  };
  row("longest gap, with a snapshot", series.with);
  row("longest gap, without", series.without);
  row("pause, as measured by the host", series.pause);
  for (const auto& [name, values] : series.steps) row(("  " + name).c_str(), values);
  row("longest clear outside the pause", series.clear);
  row("whole snapshot", series.total);
  double n = static_cast<double>(series.with.size());
  if (options.json) return;
  fmt::print(
      "a snapshot: {:.0f} pages, {:.0f} bytes, {:.1f} rounds, held {:.1f} times for {:.0f} us; "
      "the first (full) took {:.2f} s; the guest wrote {} pages/s\n",
      series.pages / n, series.bytes / n, series.rounds / n, series.slices / n,
      series.held_ns / n / 1e3, first_ns / 1e9, writes);
}

}  // namespace

int main(int argc, char** argv) {
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
  auto service =
      snapshot::SnapshotService::start({.vm_name = "stall",
                                        .store_path = options.store,
                                        .options = {.max_pause_ns = numbers["--max-pause"] * 1000},
                                        .keep = 3},
                                       std::move(*live), nullptr, nullptr);
  if (!service) fail(service.error().text());
  (*guest)->machine().run();
  Jitter jitter(**guest);
  auto take = [&] {
    auto number = (*service)->request({});
    if (!number) fail(number.error().text());
    auto outcome = (*service)->wait(*number);
    if (!outcome) fail(outcome.error().text());
    return *outcome;
  };
  uint64_t first_ns = take().total_ns;
  Series series;
  for (uint64_t i = 0; i < numbers["--count"]; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    jitter.clear();
    auto outcome = take();
    series.with.push_back(jitter.longest());
    jitter.clear();
    std::this_thread::sleep_for(std::chrono::nanoseconds(outcome.total_ns));
    series.without.push_back(jitter.longest());
    series.pause.push_back(outcome.pause.total());
    series.clear.push_back(outcome.longest_clear_ns);
    series.total.push_back(outcome.total_ns);
    series.steps["1 stop"].push_back(outcome.pause.stop);
    series.steps["2 barrier"].push_back(outcome.pause.barrier);
    series.steps["3 log"].push_back(outcome.pause.log);
    series.steps["4 stage"].push_back(outcome.pause.stage);
    series.steps["5 state"].push_back(outcome.pause.state);
    series.steps["6 run"].push_back(outcome.pause.run);
    series.pages += outcome.pages.data;
    series.bytes += outcome.bytes;
    series.rounds += outcome.rounds;
    series.slices += outcome.slices;
    series.held_ns += outcome.held_ns;
  }
  print(options, series, first_ns, jitter.writes_per_s());
}
