// Snapshots of a Linux guest that works and checks itself: every one of a chain restores after the
// machine was killed, memory and disk are of the same moment, and the guest's world goes on.

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <stdexcept>
#include <thread>

#include "tests/linux/sockets.h"
#include "tests/linux/workload_guest.h"

namespace linux_tests {
namespace {

constexpr size_t kChain = 20;

// A snapshot, and what the console had said before it was asked for and after it was there.
struct Point {
  Taken taken;
  Beat before, after;
};

std::vector<Point> take_chain(VmProcess& vm, const std::string& name, size_t length) {
  std::vector<Point> chain;
  while (chain.size() < length) {
    Point point;
    point.before = last_beat(vm);
    try {
      point.taken = WorkloadGuest::snapshot(name);
    } catch (const std::exception& error) {
      vm.read_available();
      throw std::runtime_error(error.what() + tail(vm));
    }
    point.after = last_beat(vm);
    chain.push_back(point);
  }
  return chain;
}

// The machine goes on at the moment of the snapshot: its next beat is the one that followed then.
void expect_goes_on(VmProcess& vm, const Point& point) {
  auto beat = next_beat(vm);
  ASSERT_TRUE(beat) << point.taken.id << ": " << tail(vm);
  EXPECT_GT(beat->number, point.before.number) << point.taken.id;
  // One may have been on its way when the console was looked at, one follows it.
  EXPECT_LE(beat->number, point.after.number + 2) << point.taken.id;
  for (size_t i = 0; i < 2; ++i) EXPECT_GE(beat->records[i], point.before.records[i]);
  auto following = next_beat(vm);
  ASSERT_TRUE(following) << point.taken.id << ": " << tail(vm);
  EXPECT_EQ(following->number, beat->number + 1);
  expect_verified(vm);
}

class SnapshotChainTest : public ::testing::TestWithParam<int> {};

TEST_P(SnapshotChainTest, EveryOneRestoresAfterTheMachineWasKilled) {
  WorkloadGuest guest;
  std::vector<Point> chain;
  {
    auto vm = guest.run("chain", {"--cpus", std::to_string(GetParam())});
    chain = take_chain(*vm, "chain", kChain);
    expect_verified(*vm);
    kill_now(*vm);
  }
  EXPECT_TRUE(chain.front().taken.full);
  for (size_t i = 1; i < chain.size(); ++i) {
    EXPECT_FALSE(chain[i].taken.full);
    EXPECT_LT(chain[i].taken.pages, chain.front().taken.pages);
  }
  Finished verified = run_minivmm({"verify", guest.store()});
  EXPECT_EQ(verified.status, 0) << verified.output;

  for (const Point& point : chain) {
    SCOPED_TRACE(point.taken.id);
    auto vm = guest.restore(point.taken.id, "restored");
    expect_goes_on(*vm, point);
    kill_now(*vm);
    guest.expect_disk(point.taken.id, point.before);
  }
}

INSTANTIATE_TEST_SUITE_P(Cpus, SnapshotChainTest, ::testing::Values(1, 4),
                         [](const ::testing::TestParamInfo<int>& cpus) {
                           return "cpus_" + std::to_string(cpus.param);
                         });

TEST(SnapshotBranchTest, AnOlderOneBeginsABranchAndTheNewerStay) {
  WorkloadGuest guest;
  std::vector<Point> chain;
  {
    auto vm = guest.run("trunk");
    chain = take_chain(*vm, "trunk", 3);
    kill_now(*vm);
  }
  Point branched;
  {
    auto vm = guest.restore(chain[0].taken.id, "branch", {"--eager"});
    expect_goes_on(*vm, chain[0]);
    branched = take_chain(*vm, "branch", 1).front();
    EXPECT_FALSE(branched.taken.full) << "a restored machine continues its chain";
    // Both at once, on the same base image.
    auto newest = guest.restore(chain[2].taken.id, "newest");
    expect_goes_on(*newest, chain[2]);
    EXPECT_TRUE(next_beat(*vm)) << tail(*vm);
    kill_now(*vm);
    // And the branch while the other one runs.
    auto again = guest.restore(branched.taken.id, "again");
    expect_goes_on(*again, branched);
    // The guest ends in the usual way: unmounts, and switches its machine off.
    again->send("stop\n");
    EXPECT_TRUE(again->expect("workload: stopped ok")) << tail(*again);
    EXPECT_EQ(again->wait(), 0) << tail(*again);
  }
  guest.expect_disk(branched.taken.id, branched.before);
  guest.expect_disk(chain[1].taken.id, chain[1].before);
}

TEST(SnapshotPlanTest, LongRunsKeepTheLastFew) {
  WorkloadGuest guest;
  auto vm = guest.run("plan", {"--snapshot-every", "1s", "--keep", "3"});
  for (int i = 0; i < 8; ++i) ASSERT_TRUE(next_beat(*vm)) << tail(*vm);
  Beat before = last_beat(*vm);
  Point last{.taken = WorkloadGuest::snapshot("plan", {"--stop"}), .before = before, .after = {}};
  EXPECT_FALSE(last.taken.full);
  last.after = last_beat(*vm);
  vm->wait();
  auto restored = guest.restore(last.taken.id, "plan");
  expect_goes_on(*restored, last);
}

class SnapshotClockTest : public ::testing::TestWithParam<const char*> {};

uint64_t host_ms() {
  return static_cast<uint64_t>(std::chrono::duration_cast<std::chrono::milliseconds>(
                                   std::chrono::system_clock::now().time_since_epoch())
                                   .count());
}

TEST_P(SnapshotClockTest, MovesAsChosen) {
  constexpr uint64_t kAway_ms = 20'000, kSlack_ms = 2'000;
  WorkloadGuest guest;
  auto vm = guest.run("clock");
  auto before = next_beat(*vm);
  ASSERT_TRUE(before);
  uint64_t seen_ms = host_ms();
  Taken taken = WorkloadGuest::snapshot("clock");
  uint64_t taken_ms = host_ms();
  kill_now(*vm);
  std::this_thread::sleep_for(std::chrono::milliseconds(kAway_ms));

  uint64_t restore_ms = host_ms();
  auto restored = guest.restore(taken.id, "clock", {std::string("--clock=") + GetParam()});
  auto after = next_beat(*restored);
  ASSERT_TRUE(after) << tail(*restored);
  uint64_t now_ms = host_ms();
  // Time in which the guest was running, at most.
  uint64_t ran_ms = now_ms - restore_ms + taken_ms - seen_ms;
  uint64_t real_ms = after->real_ms - before->real_ms;
  uint64_t monotonic_ms = after->monotonic_ms - before->monotonic_ms;
  if (GetParam() == std::string("continue")) {
    EXPECT_LE(real_ms, ran_ms + kSlack_ms);
    EXPECT_LE(monotonic_ms, ran_ms + kSlack_ms);
  } else {
    EXPECT_GE(real_ms, kAway_ms) << "the time away is missing";
    EXPECT_GE(after->real_ms + kSlack_ms, restore_ms);
    EXPECT_LE(after->real_ms, now_ms + kSlack_ms);
  }
  // Timers are still in time by the guest's clock, none is lost: the workload looks.
  expect_verified(*restored);
}

INSTANTIATE_TEST_SUITE_P(Policies, SnapshotClockTest, ::testing::Values("continue", "catchup"),
                         [](const auto& policy) { return std::string(policy.param); });

TEST(SnapshotClonesTest, HaveTheirOwnRandomNumbersAndConnections) {
  // Debian's 6.1 cloud kernel is built without the driver of the VM generation ID.
  WorkloadGuest guest(
      "udhcpc -i eth0 -n -q >/dev/null 2>&1\n"
      "mkfifo /tmp/hold; sleep 100000 >/tmp/hold &\n",
      "backports-cloud");
  std::string socket = guest.files().path("vsock"), other = guest.files().path("other");
  Socket stream = Socket::listen_unix(socket + "_6000");
  uint16_t port = 0;
  Socket tcp = Socket::listen_tcp(port);
  ASSERT_TRUE(stream && tcp);
  auto vm = guest.run("original", {"--net", "user", "--rng", "--vsock", "cid=5,path=" + socket});
  // Connections out of the machine are open at the snapshot.
  run_in_guest(*vm, "(vsock connect 2 6000 </tmp/hold; echo vsock-''ended) &");
  run_in_guest(*vm, "((while sleep 1; do echo x; done) | nc 10.0.2.2 " + std::to_string(port) +
                        "; echo tcp-''ended) &");
  Socket stream_peer = stream.accept(), tcp_peer = tcp.accept();
  ASSERT_TRUE(stream_peer && tcp_peer);
  EXPECT_EQ(tcp_peer.read_line(), "x\n");
  std::string reseeds = "dmesg | grep -c 'crng reseeded due to virtual machine fork'";
  EXPECT_EQ(std::stoi(run_in_guest(*vm, reseeds)), 0);
  Taken taken = WorkloadGuest::snapshot("original");
  EXPECT_TRUE(next_beat(*vm)) << "connections of the original stay as they are";
  EXPECT_EQ(vm->output().find("-ended"), std::string::npos);
  kill_now(*vm);

  auto first = guest.restore(taken.id, "first", {"--vsock-path", socket});
  auto second = guest.restore(taken.id, "second", {"--vsock-path", other, "--vsock-cid", "77"});
  std::string random[2];
  for (size_t i = 0; i < 2; ++i) {
    SCOPED_TRACE(i);
    VmProcess& clone = i == 0 ? *first : *second;
    // Of the snapshot's peers nobody is there any more, and the guest is told.
    EXPECT_TRUE(clone.expect("-ended")) << tail(clone);
    EXPECT_TRUE(clone.expect("-ended")) << tail(clone);
    EXPECT_EQ(std::stoi(run_in_guest(clone, reseeds)), 1);
    EXPECT_EQ(std::stoi(run_in_guest(clone, "vsock cid")), i == 0 ? 5 : 77);
    random[i] = run_in_guest(clone, "head -c 32 /dev/urandom | od -An -tx1");
    EXPECT_EQ(std::ranges::count(random[i], ' '), 32) << random[i];
  }
  EXPECT_NE(random[0], random[1]);

  // New connections are made in both directions of the network and of vsock.
  run_in_guest(*first, "(echo over vsock | vsock connect 2 6000 >/dev/null) &");
  EXPECT_EQ(stream.accept().read_line(), "over vsock\n");
  run_in_guest(*first, "(echo over tcp | nc 10.0.2.2 " + std::to_string(port) + ") &");
  std::string line;
  // The queue of the listener may hold connections of before.
  for (int i = 0; i < 5 && line != "over tcp\n"; ++i) line = tcp.accept().read_line();
  EXPECT_EQ(line, "over tcp\n");
  expect_verified(*first);
  expect_verified(*second);
}

// Short, for hosts whose KVM has no nested paging: with shadow page tables other code tracks what
// is dirty (CMakeLists.txt says why that is not the lab).
TEST(SnapshotShadowTest, OneChainRestores) {
  WorkloadGuest guest;
  auto vm = guest.run("shadow", {"--cpus", "2"});
  std::vector<Point> chain = take_chain(*vm, "shadow", 4);
  kill_now(*vm);
  for (size_t i : {size_t{0}, chain.size() - 1}) {
    auto restored = guest.restore(chain[i].taken.id, "shadow");
    expect_goes_on(*restored, chain[i]);
    kill_now(*restored);
  }
}

}  // namespace
}  // namespace linux_tests
