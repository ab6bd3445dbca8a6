#include "cli/snapshot_json.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace cli {
namespace {

using nlohmann::json;
using snapshot::Capture;
using snapshot::SnapshotService;

TEST(SnapshotJsonTest, ARequestComesBack) {
  SnapshotService::Request request;
  request.store_path = "/srv/store";
  request.full = true;
  request.stop = true;
  request.max_pause_ns = 5000;
  request.on_hot = Capture::OnHot::kStop;
  auto back = parse_snapshot_request(snapshot_request_json(request));
  ASSERT_TRUE(back) << back.error().text();
  EXPECT_EQ(back->store_path, "/srv/store");
  EXPECT_TRUE(back->full);
  EXPECT_TRUE(back->stop);
  EXPECT_EQ(back->max_pause_ns, 5000u);
  EXPECT_EQ(back->on_hot, Capture::OnHot::kStop);
}

TEST(SnapshotJsonTest, UnknownFieldsAndValuesAreRefused) {
  for (const char* text : {R"([])", R"({"full":true})", R"({"snapshot_type":"Half"})",
                           R"({"max_pause_ns":-1})", R"({"on_hot":"melt"})", R"({"stop":1})"}) {
    EXPECT_FALSE(parse_snapshot_request(json::parse(text))) << text;
  }
}

TEST(SnapshotJsonTest, AStatusHasProgressResultOrError) {
  SnapshotService::Status status;
  status.number = 3;
  status.running = true;
  status.pages_left = 17;
  json running = snapshot_status_json(status);
  EXPECT_EQ(running["progress"]["pages_left"], 17);
  EXPECT_FALSE(running.contains("result"));

  status.running = false;
  Capture::Outcome outcome;
  outcome.id = snapshot::Id{1, 2};
  outcome.pages.data = 5;
  outcome.pause.stop = 100;
  outcome.pause.state = 23;
  status.last = outcome;
  json done = snapshot_status_json(status);
  EXPECT_EQ(done["result"]["id"], "00000000000000010000000000000002");
  EXPECT_EQ(done["result"]["pages"], 5);
  EXPECT_EQ(done["result"]["pause_ns"], 123);
  EXPECT_EQ(done["result"]["pause_steps_ns"]["stop"], 100);
  EXPECT_NE(describe_outcome(done["result"]).find("incremental  5 pages"), std::string::npos);

  status.last = base::fail("disk full");
  EXPECT_EQ(snapshot_status_json(status)["error"], "disk full");
  EXPECT_EQ(snapshot_status_json(status)["previous"], json::array());
}

TEST(SnapshotJsonTest, WhoAsksLateIsToldOfTheOnesBefore) {
  SnapshotService::Status status;
  status.number = 8;
  status.running = true;
  Capture::Outcome outcome;
  outcome.rounds = 5;
  status.previous.emplace_back(6, outcome);
  status.previous.emplace_back(7, base::fail("disk full"));
  const json value = snapshot_status_json(status);
  ASSERT_EQ(value["previous"].size(), 2u);
  EXPECT_EQ(value["previous"][0]["number"], 6u);
  EXPECT_EQ(value["previous"][0]["result"]["rounds"], 5u);
  EXPECT_EQ(value["previous"][1]["number"], 7u);
  EXPECT_EQ(value["previous"][1]["error"], "disk full");
  EXPECT_FALSE(value.contains("result"));
}

TEST(SnapshotJsonTest, ItsProgressAsALine) {
  SnapshotService::Status status;
  status.running = true;
  status.round = 3;
  status.pages_left = 17;
  status.copied = 40'000;
  status.written_bytes = 150 << 20;
  status.elapsed_ms = 500;
  EXPECT_EQ(describe_progress(snapshot_status_json(status)),
            "round 3, 17 pages left, 40000 copied, 150 MiB written, 315 MB/s, 0.5 s");
  status.pages_left = 0;
  status.committing = true;
  status.elapsed_ms = 2000;
  EXPECT_EQ(describe_progress(snapshot_status_json(status)),
            "round 3, 0 pages left, 40000 copied, 150 MiB written, 79 MB/s, 2.0 s, committing");
}

TEST(SnapshotJsonTest, AProgressThatHasJustBegunOrIsNone) {
  SnapshotService::Status status;
  status.running = true;
  const std::string nothing = "round 0, 0 pages left, 0 copied, 0 B written, 0 MB/s, 0.0 s";
  EXPECT_EQ(describe_progress(snapshot_status_json(status)), nothing);
  for (const char* text : {"{}", R"({"progress":7})", R"({"progress":{"round":-1}})",
                           R"({"progress":{"committing":"yes","elapsed_ms":"x"}})"}) {
    EXPECT_EQ(describe_progress(json::parse(text)), nothing) << text;
  }
}

TEST(SnapshotJsonTest, AnOutcomeSaysHowLongTheGuestWasHeld) {
  Capture::Outcome outcome;
  EXPECT_EQ(describe_outcome(outcome_json(outcome)).find("held"), std::string::npos);
  outcome.slices = 7;
  outcome.held_ns = 1'400'000;
  outcome.longest_hold_ns = 250'000;
  EXPECT_EQ(outcome_json(outcome)["longest_throttle_ns"], 250'000);
  EXPECT_NE(describe_outcome(outcome_json(outcome))
                .find("the guest writes fast: held 7 times, 1.4 ms in all, 250 us at most\n"),
            std::string::npos);
}

}  // namespace
}  // namespace cli
