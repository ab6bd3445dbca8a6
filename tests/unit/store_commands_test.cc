// The commands on a store, as a person and a program call them.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "cli/command_line.h"
#include "cli/exit_status.h"
#include "cli/store_json.h"
#include "tests/support/small_store.h"

namespace cli {
namespace {

using nlohmann::json;
using snapshot::Id;
using snapshot::Kind;
using snapshot_test::SmallStore;
using testing::HasSubstr;
using testing::Not;

struct StoreCommands : testing::Test {
  StoreCommands() {
    ids.push_back(store.take(Kind::kFull, {{0, 1}, {1, 1}, {2, 1}}, {{3, 1}}));
    ids.push_back(store.take(Kind::kIncremental, {{1, 2}, {4499, 2}}, {{5, 2}}));
  }
  int run(const std::vector<std::string>& words) {
    std::vector<const char*> arguments{"minivmm"};
    for (const std::string& word : words) arguments.push_back(word.c_str());
    testing::internal::CaptureStdout();
    testing::internal::CaptureStderr();
    int status = run_command_line(static_cast<int>(arguments.size()), arguments.data());
    std::fflush(nullptr);
    out = testing::internal::GetCapturedStdout();
    err = testing::internal::GetCapturedStderr();
    return status;
  }
  json run_json(std::vector<std::string> words, int expected = kSuccess) {
    words.push_back("--json");
    EXPECT_EQ(run(words), expected) << err;
    return json::parse(out);
  }
  std::string at(size_t index) const { return store.path() + "@" + ids[index].text(); }
  void damage(const std::string& path) {
    std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(static_cast<std::streamoff>(std::filesystem::file_size(path) / 2));
    file.put('#');
  }
  void damage_all(const char* folder) {
    for (const auto& entry : std::filesystem::directory_iterator(store.path() + "/" + folder))
      damage(entry.path());
  }
  SmallStore store;
  std::vector<Id> ids;
  std::string out, err;
};

TEST_F(StoreCommands, ListShowsTheChain) {
  EXPECT_EQ(run({"list", store.path()}), kSuccess) << err;
  EXPECT_THAT(out, HasSubstr(ids[0].text().substr(0, 8)));
  EXPECT_THAT(out, HasSubstr("full"));
  EXPECT_THAT(out, HasSubstr("incremental"));
  EXPECT_THAT(out, HasSubstr("187 us"));
  EXPECT_THAT(out, HasSubstr("job1 runs"));
  json listed = run_json({"list", store.path()});
  ASSERT_EQ(listed["snapshots"].size(), 2u);
  EXPECT_EQ(listed["snapshots"][0]["id"], ids[0].text());
  EXPECT_EQ(listed["snapshots"][0]["parent"], json());
  EXPECT_EQ(listed["snapshots"][1]["parent"], ids[0].text());
  EXPECT_EQ(listed["snapshots"][1]["ram_pages"], 2);
  EXPECT_EQ(listed["snapshots"][1]["disk_pages"], 1);
  EXPECT_EQ(listed["snapshots"][1]["vm_name"], "job1");
  ASSERT_EQ(listed["branches"].size(), 1u);
  EXPECT_EQ(listed["branches"][0]["parent"], ids[1].text());
  EXPECT_EQ(listed["branches"][0]["running"], true);
}

TEST_F(StoreCommands, ListSaysWhatIsDamaged) {
  damage(store.path() + "/snap/" + ids[0].text());
  EXPECT_EQ(run({"list", store.path()}), kFailure);
  EXPECT_THAT(out, HasSubstr("DAMAGED"));
  EXPECT_THAT(out, HasSubstr(ids[1].text().substr(0, 8)));
  json listed = run_json({"list", store.path()}, kFailure);
  EXPECT_EQ(std::ranges::count_if(listed["snapshots"],
                                  [](const json& row) { return row.contains("damage"); }),
            1);
}

TEST_F(StoreCommands, ListShowsAMachineWithoutDisksThatTakesSnapshots) {
  auto branch = store.store().create_branch(ids[0], "job2").value();
  EXPECT_EQ(run_json({"list", store.path()})["branches"].size(), 1u) << "it has no file there";
  branch->begin(snapshot::Kind::kFull).value()->abandon();
  EXPECT_EQ(run({"list", store.path()}), kSuccess) << err;
  EXPECT_THAT(out, HasSubstr(": job2 runs\n"));
  json listed = run_json({"list", store.path()});
  ASSERT_EQ(listed["branches"].size(), 2u);
  EXPECT_EQ(std::ranges::count_if(listed["branches"],
                                  [](const json& row) {
                                    return row["vm_name"] == "job2" && row["running"] == true &&
                                           row["layers"] == 0;
                                  }),
            1);
  branch.reset();
  EXPECT_EQ(run_json({"list", store.path()})["branches"].size(), 1u);
}

// Killed without disk layers, or before it had any.
TEST_F(StoreCommands, AMachineThatLeftNothingIsNoDamage) {
  const std::string branch(32, 'a');
  std::ofstream(store.path() + "/heads/" + branch + ".lock") << "";
  EXPECT_EQ(run({"list", store.path()}), kSuccess) << err;
  EXPECT_THAT(out, Not(HasSubstr("DAMAGED")));
  json listed = run_json({"list", store.path()});
  ASSERT_EQ(listed["branches"].size(), 2u);
  const bool first = listed["branches"][0]["branch"] == branch;
  EXPECT_EQ(listed["branches"][first ? 0 : 1]["running"], false);
  for (const json& row : listed["branches"]) EXPECT_FALSE(row.contains("damage"));
}

TEST_F(StoreCommands, InspectExplainsASnapshot) {
  EXPECT_EQ(run({"inspect", at(1)}), kSuccess) << err;
  EXPECT_THAT(out, HasSubstr("Snapshot " + ids[1].text() + " of job1"));
  EXPECT_THAT(out, HasSubstr("4500 pages: 4 with data (16 KiB), 4496 zero; 2 inherited"));
  EXPECT_THAT(out, HasSubstr("0x000100000000"));
  EXPECT_THAT(out, HasSubstr("in the base image"));
  EXPECT_THAT(out, HasSubstr("serial                   version 2"));
  EXPECT_THAT(out, HasSubstr("machine-config       {\"vcpu_count\":2}"));
  json inspected = run_json({"inspect", store.path()});
  EXPECT_EQ(inspected["id"], ids[1].text());  // the newest
  EXPECT_EQ(inspected["chain"], json({ids[0].text()}));
  EXPECT_EQ(inspected["ram"]["data"], 4);
  EXPECT_EQ(inspected["ram"]["zero"], SmallStore::kRamPages - 4);
  EXPECT_EQ(inspected["ram"]["files"].size(), 2u);
  EXPECT_EQ(inspected["disks"][0]["data"], 2);
  EXPECT_EQ(inspected["disks"][0]["base"], SmallStore::kDiskPages - 2);
  EXPECT_EQ(inspected["disks"][0]["bytes"], SmallStore::kDiskBytes);
  EXPECT_EQ(inspected["config"]["machine-config"]["vcpu_count"], 2);
  EXPECT_EQ(inspected["sections"][0], (json{{"tag", "clock"}, {"version", 1}, {"bytes", 8}}));
}

// Whatever a store from elsewhere has for text: no crash, nothing for the terminal to obey.
TEST_F(StoreCommands, HostileTextIsOnlyText) {
  std::string deep(500'000, '[');
  for (const std::string& config :
       {std::string("{\"a\xff\":1}"), std::string("\x1b]0;owned\x07"), deep, "{\"k\":" + deep,
        std::string(1 << 20, 'x'), std::string("{\"a\":\"\x1b[2J\xc2\x9b\"}"),
        std::string("{\"a\\u001b[2J\":1}"), std::string(), std::string("\0{}", 3)}) {
    store.set_config(config);
    Id id = store.take(Kind::kIncremental, {});
    std::string name = store.path() + "@" + id.text();
    EXPECT_EQ(run({"inspect", name}), kSuccess) << err;
    EXPECT_THAT(out, Not(HasSubstr("\x1b")));
    EXPECT_THAT(out, Not(HasSubstr("\xc2\x9b")));
    EXPECT_THAT(out, Not(HasSubstr("\xff")));
    EXPECT_EQ(run_json({"inspect", name})["id"], id.text());
  }
  store.set_vm_name("job\xff\x1b[2J\n1");
  store.take(Kind::kFull, {{1, 1}});
  EXPECT_EQ(run({"list", store.path()}), kSuccess) << err;
  EXPECT_THAT(out, HasSubstr("job??[2J?1"));
  EXPECT_THAT(out, Not(HasSubstr("\x1b")));
  run_json({"list", store.path()});
}

TEST_F(StoreCommands, VerifyFindsNothingInAGoodStore) {
  EXPECT_EQ(run({"verify", store.path()}), kSuccess) << err;
  EXPECT_THAT(out, HasSubstr("2 snapshots"));
  EXPECT_THAT(out, HasSubstr("all good"));
  json report = run_json({"verify", at(0)});
  EXPECT_EQ(report["good"], true);
  EXPECT_EQ(report["snapshots"], 1);
}

TEST_F(StoreCommands, VerifyNamesDamage) {
  for (const auto& entry : std::filesystem::directory_iterator(store.path() + "/packs")) {
    std::fstream file(entry.path(), std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(snapshot::kPackHeaderBytes + 5);
    file.put('#');
  }
  EXPECT_EQ(run({"verify", store.path()}), kFailure);
  EXPECT_THAT(out, HasSubstr("DAMAGED packs/"));
  json report = run_json({"verify", store.path()}, kFailure);
  EXPECT_EQ(report["good"], false);
  EXPECT_EQ(report["damages"].size(), 2u);
}

TEST_F(StoreCommands, DiffNamesAddresses) {
  EXPECT_EQ(run({"diff", at(0), ids[1].text()}), kSuccess) << err;
  EXPECT_THAT(out, HasSubstr("RAM: 2 of 4500 pages differ (8 KiB): 1 changed, 1 were zero"));
  EXPECT_THAT(out, HasSubstr("0x000000001000  4 KiB"));
  EXPECT_THAT(out, HasSubstr("disk 0: 1 of 41 pages differ"));
  json spaces = run_json({"diff", at(0), ids[1].text()})["spaces"];
  uint64_t last = SmallStore::kHighStart + (SmallStore::kHighPages - 1) * 4096;
  EXPECT_EQ(spaces[0]["ranges"],
            (json{{{"start", 4096}, {"bytes", 4096}}, {{"start", last}, {"bytes", 4096}}}));
  EXPECT_EQ(spaces[1]["ranges"], (json{{{"start", 5 * 4096}, {"bytes", 4096}}}));
}

TEST_F(StoreCommands, PruneSaysWhatItWouldDoAndDoesIt) {
  json report = run_json({"prune", store.path(), "--keep", "1", "--dry-run"});
  EXPECT_EQ(report["removed"], json({ids[0].text()}));
  EXPECT_EQ(run_json({"list", store.path()})["snapshots"].size(), 2u);
  report = run_json({"prune", store.path(), "--keep", "1"});
  EXPECT_EQ(report["removed"], json({ids[0].text()}));
  json listed = run_json({"list", store.path()});
  ASSERT_EQ(listed["snapshots"].size(), 1u);
  EXPECT_EQ(listed["snapshots"][0]["id"], ids[1].text());
  EXPECT_EQ(run({"verify", store.path()}), kSuccess) << out;
  EXPECT_EQ(run({"inspect", store.path()}), kSuccess) << err;
  EXPECT_THAT(out, HasSubstr("(pruned)"));
}

TEST_F(StoreCommands, PruneKeepsWhatAMachineContinues) {
  json report = run_json({"prune", store.path(), "--delete", ids[1].text()}, kFailure);
  EXPECT_EQ(report["removed"], json::array());
  EXPECT_EQ(report["in_use"], json({ids[1].text()}));
  report = run_json({"prune", store.path(), "--delete", ids[1].text(), "--dry-run"}, kFailure);
  EXPECT_EQ(report["in_use"], json({ids[1].text()}));
  EXPECT_EQ(run_json({"list", store.path()})["snapshots"].size(), 2u);
}

TEST_F(StoreCommands, PruneForgetsAMachineThatEnded) {
  store.write_disk({{9, 5}});
  std::string branch = store.branch().id().text();
  std::vector<std::string> words{"prune", store.path(), "--head", branch.substr(0, 8)};
  EXPECT_EQ(run(words), kFailure);
  EXPECT_THAT(err, HasSubstr("runs: stop it first"));
  store.stop_machine();
  words.insert(words.end(), {"--delete", "00000000", "--head", branch.substr(0, 6)});
  EXPECT_NE(run(words), kSuccess);
  EXPECT_EQ(run_json({"list", store.path()})["branches"].size(), 1u) << "nothing went before";
  words[5] = ids[1].text();
  words.push_back("--dry-run");
  json report = run_json(words);
  EXPECT_EQ(report["forgotten"], json({branch}));
  EXPECT_EQ(report["removed"], json({ids[1].text()}));
  EXPECT_EQ(run_json({"list", store.path()})["branches"].size(), 1u);
  words.pop_back();
  report = run_json(words);
  EXPECT_EQ(report["forgotten"], json({branch}));
  EXPECT_EQ(report["removed"], json({ids[1].text()})) << "nobody continues it any more";
  json listed = run_json({"list", store.path()});
  EXPECT_EQ(listed["branches"].size(), 0u);
  EXPECT_EQ(listed["snapshots"].size(), 1u);
  EXPECT_EQ(run({"verify", store.path()}), kSuccess) << out;
}

TEST_F(StoreCommands, PruneSaysBeforehandWhatAHeadTakes) {
  store.write_disk({{9, 5}});
  const std::string branch = store.branch().id().text();
  store.stop_machine();
  const json planned = run_json({"prune", store.path(), "--head", branch, "--dry-run"});
  EXPECT_GT(planned["freed_bytes"], 0);
  const json report = run_json({"prune", store.path(), "--head", branch});
  EXPECT_EQ(report["freed_bytes"], planned["freed_bytes"]);
}

TEST_F(StoreCommands, ExportWritesAndRefusesToOverwrite) {
  std::string memory = store.file("memory"), disk = store.file("disk");
  EXPECT_EQ(run({"export", at(0), "--memory", memory, "--disk", "0=" + disk, "--disk-base",
                 "0=" + store.base_path()}),
            kSuccess)
      << err;
  EXPECT_EQ(out, memory + "\n" + disk + "\n");
  std::ifstream file(disk, std::ios::binary);
  std::string content{std::istreambuf_iterator<char>(file), {}};
  EXPECT_TRUE(content == store.disk(ids[0]));
  EXPECT_EQ(run({"export", at(0), "--memory", memory}), kFailure);
  EXPECT_THAT(err, HasSubstr("--force"));
  EXPECT_EQ(run({"export", at(0), "--memory", memory, "--force"}), kSuccess);
}

TEST_F(StoreCommands, ExportsTheDiskOfAMachineThatEnded) {
  store.write_disk({{9, 5}});
  std::string branch = store.branch().id().text().substr(0, 8), disk = store.file("disk");
  std::vector<std::string> words{"export", store.path(), "--head",      branch,
                                 "--disk", "0=" + disk,  "--disk-base", "0=" + store.base_path()};
  EXPECT_EQ(run(words), kFailure);
  EXPECT_THAT(err, HasSubstr("its machine runs"));
  store.stop_machine();
  EXPECT_EQ(run(words), kSuccess) << err;
  std::ifstream file(disk, std::ios::binary);
  std::string content{std::istreambuf_iterator<char>(file), {}};
  EXPECT_TRUE(content == store.disk_now());
  EXPECT_EQ(run({"list", store.path()}), kSuccess);
  EXPECT_THAT(out, HasSubstr("job1 ended, continues"));
  EXPECT_EQ(run({"export", store.path(), "--head", branch, "--memory", "m"}), kFailure);
  EXPECT_THAT(err, HasSubstr("no memory"));
}

TEST_F(StoreCommands, ACoreNeedsTheStateOfVcpus) {
  EXPECT_EQ(run({"export", at(1), "--core", store.file("core")}), kFailure);
  EXPECT_THAT(err, HasSubstr("no vCPU"));
  EXPECT_FALSE(std::filesystem::exists(store.file("core")));
}

TEST_F(StoreCommands, ExportSaysWhatIsMissing) {
  EXPECT_EQ(run({"export", store.path()}), kFailure);
  EXPECT_THAT(err, HasSubstr("nothing to export"));
  EXPECT_EQ(run({"export", store.path(), "--disk", "vda=x"}), kBadInput);
  EXPECT_EQ(run({"export", store.path(), "--memory", "m", "--disk-base", "0=x"}), kFailure);
  EXPECT_THAT(err, HasSubstr("there is no --disk 0"));
  EXPECT_EQ(run({"export", store.path(), "--memory", "m", "--core", "m"}), kFailure);
  EXPECT_THAT(err, HasSubstr("two things are to be exported to m"));
}

TEST_F(StoreCommands, CommitNamesTheSnapshotsThatWouldBeLost) {
  std::vector<std::string> words{"commit", at(1), "--disk", "0", "--base", store.base_path()};
  EXPECT_EQ(run(words), kFailure);
  EXPECT_THAT(err, HasSubstr(ids[0].text().substr(0, 8)));
  EXPECT_THAT(err, HasSubstr("--force"));
  words.push_back("--force");
  EXPECT_EQ(run(words), kSuccess) << err;
  std::ifstream file(store.base_path(), std::ios::binary);
  std::string content{std::istreambuf_iterator<char>(file), {}};
  EXPECT_TRUE(content == store.disk(ids[1]));
}

// What a machine flushed after its last snapshot stands on the image as much as snapshots do.
TEST_F(StoreCommands, CommitDoesNotLoseWhatAMachineWroteLast) {
  std::vector<std::string> words{"prune", store.path(), "--delete", ids[0].text()};
  EXPECT_EQ(run(words), kSuccess) << err;
  store.write_disk({{9, 5}});
  const std::string branch = store.branch().id().text();
  store.stop_machine();
  words = {"commit", at(1), "--disk", "0", "--base", store.base_path()};
  EXPECT_EQ(run(words), kFailure);
  EXPECT_THAT(err, HasSubstr(branch.substr(0, 8)));
  EXPECT_THAT(err, HasSubstr("export --head"));
  const std::string disk = store.file("disk");
  EXPECT_EQ(run({"export", store.path(), "--head", branch, "--disk", "0=" + disk, "--disk-base",
                 "0=" + store.base_path()}),
            kSuccess)
      << err;
  words.push_back("--force");
  const json report = run_json(words);
  EXPECT_EQ(report["lost_branches"], json::array({branch}));
  EXPECT_EQ(report["not_restorable"], json::array());
}

TEST_F(StoreCommands, CommitAsksNothingWhereNothingFollowed) {
  EXPECT_EQ(run({"prune", store.path(), "--delete", ids[0].text()}), kSuccess) << err;
  store.stop_machine();
  EXPECT_EQ(run({"commit", at(1), "--disk", "0", "--base", store.base_path()}), kSuccess) << err;
}

TEST_F(StoreCommands, ExportDoesNotReplaceABaseImage) {
  const std::string image = "0=" + store.base_path();
  EXPECT_EQ(run({"export", at(1), "--disk", image, "--disk-base", image, "--force"}), kFailure);
  EXPECT_THAT(err, HasSubstr("another file"));
}

// Nobody is to go on with something old and not know it.
TEST_F(StoreCommands, ADamagedNewestOneIsNotPassedOver) {
  damage(store.path() + "/snap/" + ids[1].text());
  for (const std::vector<std::string>& words :
       {std::vector<std::string>{"inspect", store.path()},
        {"export", store.path(), "--memory", store.file("m")}}) {
    EXPECT_EQ(run(words), kFailure) << words[0];
    EXPECT_THAT(err, HasSubstr(ids[1].text() + ", which is damaged"));
    EXPECT_THAT(err, HasSubstr("the newest whole one is " + ids[0].text()));
  }
  EXPECT_EQ(run({"inspect", at(0)}), kSuccess) << err;
  EXPECT_EQ(run_json({"list", store.path()}, kFailure)["snapshots"][1]["id"], ids[1].text());
}

// What its children were may be pruned; by its file it is older. It is named all the same.
TEST_F(StoreCommands, DamageOfLongAgoIsNamedAndNoHindrance) {
  const std::string path = store.path() + "/snap/" + ids[0].text();
  const Id third = store.take(Kind::kIncremental, {{2, 3}}, {{6, 3}});
  EXPECT_EQ(run({"prune", store.path(), "--delete", ids[1].text()}), kSuccess) << err;
  damage(path);
  EXPECT_EQ(run({"inspect", store.path()}), kFailure);
  std::filesystem::last_write_time(
      path, std::filesystem::file_time_type::clock::now() - std::chrono::hours(24 * 365));
  EXPECT_EQ(run_json({"inspect", store.path()})["id"], third.text());
  EXPECT_THAT(err, HasSubstr(ids[0].text() + " is damaged"));
}

TEST_F(StoreCommands, ADamagedOlderOneIsNoHindrance) {
  damage(store.path() + "/snap/" + ids[0].text());
  EXPECT_EQ(run_json({"inspect", store.path()})["id"], ids[1].text());
}

TEST_F(StoreCommands, WhatCannotBeSaidIsAFailure) {
  std::fflush(stdout);
  const int saved = ::dup(STDOUT_FILENO), full = ::open("/dev/full", O_WRONLY);
  ::dup2(full, STDOUT_FILENO);
  const std::string path = store.path();
  const std::array words{"minivmm", "list", path.c_str()};
  testing::internal::CaptureStderr();
  const int status = run_command_line(static_cast<int>(words.size()), words.data());
  err = testing::internal::GetCapturedStderr();
  std::clearerr(stdout);
  ::dup2(saved, STDOUT_FILENO);
  ::close(saved);
  ::close(full);
  EXPECT_EQ(status, kFailure);
  EXPECT_THAT(err, HasSubstr("standard output: No space left on device"));
}

TEST_F(StoreCommands, WhatIsNoStoreIsSaidInOneLine) {
  for (const char* command : {"list", "inspect", "verify"}) {
    for (const std::string& path : {store.file("missing"), store.file("base.img")}) {
      EXPECT_EQ(run({command, path}), kFailure) << command;
      EXPECT_THAT(err, testing::StartsWith("minivmm: "));
      EXPECT_EQ(std::ranges::count(err, '\n'), 1) << err;
      EXPECT_EQ(out, "");
    }
  }
  EXPECT_EQ(run({"inspect", store.path() + "@ffffffffffffffffffffffffffffffff"}), kFailure);
  EXPECT_EQ(run({"inspect", store.path() + "@latest"}), kFailure);
}

TEST_F(StoreCommands, ADamagedStoreIsASentenceForEveryCommand) {
  for (const char* folder : {"runs", "snap"}) {
    damage_all(folder);
    for (const std::vector<std::string>& words : {std::vector<std::string>{"inspect", at(1)},
                                                  {"diff", at(0), ids[1].text()},
                                                  {"export", at(1), "--memory", store.file("m")}}) {
      EXPECT_EQ(run(words), kFailure) << words[0] << " " << folder;
      EXPECT_EQ(std::ranges::count(err, '\n'), 1) << err;
    }
    EXPECT_EQ(run({"verify", store.path()}), kFailure);
    EXPECT_FALSE(std::filesystem::exists(store.file("m")));
  }
}

}  // namespace
}  // namespace cli
