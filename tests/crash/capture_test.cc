// The capture itself, its pool and its pack writer, on a disk that fails or is cut off while the
// guest writes: pages leave the pool, are written again and go over their older copies, whose
// writes are late and finish in any order.
#include "snapshot/capture.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

#include "snapshot/store/store.h"
#include "tests/crash/busy_guest.h"
#include "tests/crash/faults.h"
#include "tests/crash/script.h"

namespace test {
namespace {

using snapshot::Capture;
using snapshot::Id;
using ::testing::HasSubstr;

// A pool of so many pages leaves up to 64 of them in flight while the next ones are copied.
constexpr uint64_t kPoolPages = 1600;

struct Shape {
  uint64_t ram_pages = 400;
  uint64_t pool_pages = kPoolPages;
};

// A machine whose snapshots a capture takes. `seed` orders what is in flight at the same time, and
// the guest's writes.
class CaptureScript {
 public:
  explicit CaptureScript(uint64_t seed, const Shape& shape = {})
      : shape_(shape), guest_(shape.ram_pages, seed) {
    system_.set_schedule(seed);
    system_.set_alignment(4096);
    promise("nothing yet");
    store_ = *snapshot::Store::create(system_.storage());
    branch_ = *store_->create_branch({}, "guest");
    capture_.emplace(guest_, *store_, *branch_);
    now_.store = true;
    promise("machine made");
    guest_.work(2 * shape.ram_pages, 0, shape.ram_pages);
    guest_.written = [this] { promise("pages written"); };
  }

  base::Result<Id> try_take(bool full) {
    Capture::Progress progress;
    auto outcome = capture_->take({.full = full,
                                   .max_pause_ns = 1,
                                   .staging_bytes = shape_.pool_pages * snapshot::kPageBytes,
                                   .config = "{}",
                                   .in_pause = [this] { in_pause(); }},
                                  progress);
    if (!outcome) {
      promise("failed: " + outcome.error().text());
      return std::unexpected(outcome.error());
    }
    last_ = *outcome;
    now_.must[outcome->id] = guest_.content_at_pause();
    promise("committed");
    return outcome->id;
  }
  void take(bool full) {
    auto taken = try_take(full);
    ASSERT_TRUE(taken) << taken.error().text();
  }

  BusyGuest& guest() { return guest_; }
  ModelFileSystem& system() { return system_; }
  // Of the last one that was taken.
  const Capture::Outcome& last() const { return last_; }
  Recorded recorded() const { return {system_.start(), system_.recording(), promises_}; }
  size_t position() const { return system_.recording().size(); }
  // What the store of the running machine shows are the snapshots that were taken.
  void expect_listed() {
    std::set<Id> listed, taken;
    auto infos = store_->list();
    ASSERT_TRUE(infos) << infos.error().text();
    for (const auto& info : *infos) {
      EXPECT_EQ(info.damage, "");
      listed.insert(info.id);
    }
    for (const auto& [id, content] : now_.must) taken.insert(id);
    EXPECT_EQ(listed, taken);
  }
  void expect_kept() {
    EXPECT_EQ(system_.misuse(), "");
    EXPECT_EQ(broken_promise(system_.image(), now_), "");
  }

 private:
  void promise(const std::string& what) {
    system_.mark(std::to_string(promises_.size()) + " " + what);
    promises_.push_back(now_);
  }
  // From here on a snapshot of this memory may be there.
  void in_pause() {
    now_.may_appear.push_back(guest_.content());
    promise("pause");
  }

  const Shape shape_;
  ModelFileSystem system_;
  std::unique_ptr<snapshot::Store> store_;
  std::unique_ptr<snapshot::Branch> branch_;
  BusyGuest guest_;
  std::optional<Capture> capture_;
  Capture::Outcome last_;
  Promises now_;
  std::vector<Promises> promises_;
};

class CaptureFaultTest : public ::testing::TestWithParam<Way> {
 protected:
  // With one snapshot behind it, and most of its memory written since.
  static std::unique_ptr<CaptureScript> start() {
    auto script = std::make_unique<CaptureScript>(3);
    script->take(true);
    script->guest().work(300, 20, 350);
    return script;
  }

  static std::vector<Call> calls_of_a_take(bool full) {
    auto script = start();
    std::vector<Call> calls;
    script->system().set_faults([&](const CallSite& site) -> std::optional<Fault> {
      calls.push_back(site.call);
      return std::nullopt;
    });
    script->take(full);
    script->system().set_faults({});
    EXPECT_GE(script->last().rounds, 2u);
    EXPECT_GT(script->last().pages.rewritten, 10u);
    EXPECT_GT(script->last().residue, 0u);
    return calls;
  }

  static void fail_at(bool full, uint64_t number) {
    auto script = start();
    FaultAt fault(script->system(), number, GetParam());
    auto taken = script->try_take(full);
    fault.end();
    SCOPED_TRACE("call " + std::to_string(number) + ": " + fault.text());
    ASSERT_TRUE(fault.failed());
    if (!taken) {
      EXPECT_THAT(taken.error().text(), HasSubstr(fault.name()));
    }
    script->expect_listed();
    script->guest().set(7, 707);
    script->take(false);
    script->expect_listed();
    script->expect_kept();
  }

  static void at_every_call(bool full) {
    auto calls = calls_of_a_take(full);
    EXPECT_GT(calls.size(), 60u);
    for (uint64_t number = 0; number < calls.size(); ++number) {
      if (GetParam().applies(calls[number])) fail_at(full, number);
      if (HasFatalFailure()) break;
    }
  }
};

TEST_P(CaptureFaultTest, AtEveryCallOfAFullOne) { at_every_call(true); }

TEST_P(CaptureFaultTest, AtEveryCallOfAnIncrementalOne) { at_every_call(false); }

INSTANTIATE_TEST_SUITE_P(Ways, CaptureFaultTest, ::testing::ValuesIn(ways()),
                         [](const auto& way) { return way_name(way.param); });

// Of two snapshots, from the mark `what` of the second one on; all of both where it is empty.
void expect_kept_in_crashes(const Shape& shape, const std::string& what, CrashPlan plan) {
  CaptureScript script(plan.seed, shape);
  script.take(true);
  size_t from = script.position();
  script.guest().work(shape.ram_pages, 0, shape.ram_pages);
  script.take(false);
  EXPECT_GT(script.last().pages.rewritten, 0u);
  script.expect_kept();
  Recorded recorded = script.recorded();
  while (!what.empty() && !(recorded.recording[from].kind == Event::Kind::kMark &&
                            recorded.recording[from].text.ends_with(" " + what))) {
    ++from;
  }
  auto failure = find_crash_failure(recorded, plan, what.empty() ? 0 : from);
  EXPECT_EQ(failure.text, "") << "seed " << plan.seed << ", after " << failure.states << " states";
  ::testing::Test::RecordProperty("states", std::to_string(failure.states));
}

TEST(CaptureCrashTest, AtEveryMomentOfTwo) {
  for (uint64_t seed : {1, 2, 3, 4}) {
    expect_kept_in_crashes({.ram_pages = 250}, "", {.samples = 1, .seed = seed, .each = false});
  }
}

// Each write by itself, when all have been made and their syncs come.
TEST(CaptureCrashTest, InTheCommit) {
  expect_kept_in_crashes({.ram_pages = 200}, "pages written", {.samples = 2, .seed = 1});
}

// The smallest pool, gone round more than once.
TEST(CaptureCrashTest, WithTheSmallestPool) {
  for (uint64_t seed : {1, 2, 3, 4}) {
    expect_kept_in_crashes({.ram_pages = 1300, .pool_pages = 1}, "pages written",
                           {.samples = 1, .seed = seed, .each = false});
  }
}

}  // namespace
}  // namespace test
