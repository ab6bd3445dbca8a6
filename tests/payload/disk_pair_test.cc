// A guest with two disks that it writes in turn, one record after the other: every snapshot, taken
// while it does, holds both disks and the memory of one instant, and restores.
#include <gtest/gtest.h>
#include <signal.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <vector>

#include "guest-images/payloads/lib/mix.h"
#include "tests/linux/vm_process.h"
#include "tests/payload/guest.h"
#include "tests/support/temporary_directory.h"

namespace {

using linux_tests::Finished;
using linux_tests::run_minivmm;
using linux_tests::VmProcess;
using nlohmann::json;

constexpr uint64_t kRecords = 512, kRecordBytes = 4096, kSeed = 7;
constexpr size_t kDisks = 2, kSnapshots = 20;
using Record = std::array<uint64_t, kRecordBytes / 8>;

class DiskPairTest : public testing::Test {
 protected:
  void SetUp() override {
    if (auto why = payload_test::cannot_run()) GTEST_SKIP() << *why;
    ::setenv("XDG_RUNTIME_DIR", directory_.path().c_str(), 1);
    for (size_t i = 0; i < kDisks; ++i) {
      disks_.push_back(directory_.file("disk" + std::to_string(i)));
      std::ofstream(disks_[i]).close();
      std::filesystem::resize_file(disks_[i], kRecords * kRecordBytes);
    }
  }

  std::vector<std::string> with_disks(std::vector<std::string> arguments) const {
    for (const std::string& disk : disks_) arguments.insert(arguments.end(), {"--disk", disk});
    return arguments;
  }

  std::string take() {
    Finished taken = run_minivmm({"snapshot", "vm", "--json"});
    EXPECT_EQ(taken.status, 0) << taken.output;
    json result = json::parse(taken.output, nullptr, false);
    return result.is_object() ? result.value("id", "") : "";
  }

  // The number of the newest record of a disk of that snapshot. All of its places are looked at:
  // the records before it are there too.
  uint64_t newest_on(const std::string& id, size_t disk) {
    const std::string image = directory_.file("exported"), index = std::to_string(disk);
    Finished exported = run_minivmm({"export", store_ + "@" + id, "--disk", index + "=" + image,
                                     "--disk-base", index + "=" + disks_[disk]});
    EXPECT_EQ(exported.status, 0) << exported.output;
    std::ifstream file(image, std::ios::binary);
    std::vector<uint64_t> numbers;
    Record record, expected;
    while (file.read(reinterpret_cast<char*>(&record), sizeof record)) {
      const uint64_t number = record[0];
      expected.fill(0);
      if (number != 0) {
        for (uint64_t word = 0; word < expected.size(); ++word)
          expected[word] = Mix(kSeed + (number << 20) + word);
        expected[0] = number;
      }
      EXPECT_EQ(record, expected) << id << " disk " << disk << " record " << number;
      numbers.push_back(number);
    }
    EXPECT_EQ(numbers.size(), kRecords);
    std::filesystem::remove(image);
    if (numbers.empty()) return 0;
    const uint64_t newest = *std::ranges::max_element(numbers);
    for (uint64_t number = newest < kRecords ? 1 : newest - kRecords + 1; number <= newest;
         ++number) {
      EXPECT_EQ(numbers[number % kRecords], number) << id << " disk " << disk;
    }
    return newest;
  }

  test::TemporaryDirectory directory_;
  std::string store_ = directory_.file("store");
  std::vector<std::string> disks_;
};

TEST_F(DiskPairTest, BothAreOfTheSameInstant) {
  std::vector<std::string> ids;
  {
    VmProcess vm(
        with_disks({"run", "--kernel", MINIVMM_PAYLOAD_DIRECTORY "/virtio.elf", "--cmdline",
                    "mode=pair ops=" + std::to_string(kRecords) + " seed=" + std::to_string(kSeed) +
                        " timeout=100",
                    "--memory", "32M", "--store", store_, "--name", "vm"}));
    ASSERT_TRUE(vm.expect("virtio: pair records=")) << vm.output();
    while (ids.size() < kSnapshots && !HasFailure()) ids.push_back(take());
    vm.signal(SIGKILL);
    EXPECT_EQ(vm.wait(), 128 + SIGKILL) << vm.output();
  }
  std::vector<uint64_t> newest;
  for (const std::string& id : ids) {
    const uint64_t first = newest_on(id, 0), second = newest_on(id, 1);
    EXPECT_TRUE(first == second || first == second + 1) << id << ": " << first << " " << second;
    EXPECT_TRUE(newest.empty() || first > newest.back()) << id;
    newest.push_back(first);
  }
  Finished verified = run_minivmm({"verify", store_});
  EXPECT_EQ(verified.status, 0) << verified.output;
  // The guest counts in a register: what it compares is its memory's number, and beyond.
  for (size_t i = 0; i < ids.size(); i += 5) {
    SCOPED_TRACE(ids[i]);
    VmProcess vm(with_disks({"restore", store_ + "@" + ids[i], "--name", "vm"}));
    vm.send("q");
    EXPECT_EQ(vm.wait(), 0) << vm.output();
    EXPECT_NE(vm.output().find("virtio: done devices=1"), std::string::npos) << vm.output();
    const std::string last = payload_test::field(vm.output(), "last");
    ASSERT_FALSE(last.empty()) << vm.output();
    EXPECT_GE(std::stoull(last), newest[i]);
  }
}

}  // namespace
