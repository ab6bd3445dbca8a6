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
}

}  // namespace
}  // namespace cli
