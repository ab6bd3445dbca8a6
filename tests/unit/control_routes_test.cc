#include "cli/control_routes.h"

#include <gtest/gtest.h>

#include <fstream>
#include <set>

#include "tests/support/fake_target.h"

namespace cli {
namespace {

using nlohmann::json;

struct ControlRoutes : testing::Test {
  ControlResponse ask(const char* method, const char* path, const std::string& body = "") {
    return handle_request(target, {method, path, body});
  }
  json get(const char* path) {
    ControlResponse response = ask("GET", path);
    EXPECT_EQ(response.status, 200) << path;
    return json::parse(response.body);
  }
  // The message of a request that is refused.
  std::string refused(const char* method, const char* path, const std::string& body = "") {
    ControlResponse response = ask(method, path, body);
    EXPECT_EQ(response.status, 400) << body;
    json fault = json::parse(response.body);
    EXPECT_EQ(fault.size(), 1u);
    return fault["fault_message"];
  }
  void expect_done(const ControlResponse& response) {
    EXPECT_EQ(response.status, 204);
    EXPECT_EQ(response.body, "");
  }
  test::FakeTarget target;
};

TEST_F(ControlRoutes, TellWhatRuns) {
  EXPECT_EQ(get("/"), (json{{"app_name", "minivmm"},
                            {"id", "job1"},
                            {"state", "Running"},
                            {"vmm_version", MINIVMM_VERSION}}));
  target.paused_ = true;
  EXPECT_EQ(get("/")["state"], "Paused");
  EXPECT_EQ(get("/version"), (json{{"firecracker_version", MINIVMM_VERSION}}));
  EXPECT_EQ(
      get("/machine-config"),
      (json{
          {"vcpu_count", 2}, {"mem_size_mib", 256}, {"smt", false}, {"track_dirty_pages", false}}));
  EXPECT_EQ(get("/stats"), (json{{"disk0", {{"reads", 3}}}}));
}

TEST_F(ControlRoutes, ShowTheConfigurationInFirecrackersForm) {
  json config = get("/vm/config");
  EXPECT_EQ(config["boot-source"], (json{{"kernel_image_path", "/boot/vmlinuz"},
                                         {"boot_args", "console=ttyS0 panic=-1"}}));
  EXPECT_EQ(config["drives"], json::array());
  EXPECT_FALSE(config.contains("vsock"));

  target.options_.initrd = "/i";
  target.options_.disks = {*parse_disk("/d0"), *parse_disk("/d1,ro")};
  target.options_.nets = {*parse_net("user,mac=52:54:00:00:00:01"), *parse_net("tap=t0")};
  target.options_.vsock = VsockOption{3, "/v"};
  target.options_.rng = target.options_.balloon = true;
  config = get("/vm/config");
  EXPECT_EQ(config["boot-source"]["initrd_path"], "/i");
  EXPECT_EQ(config["drives"][1], (json{{"drive_id", "disk1"},
                                       {"path_on_host", "/d1"},
                                       {"is_root_device", false},
                                       {"is_read_only", true}}));
  EXPECT_EQ(config["network-interfaces"][0]["guest_mac"], "52:54:00:00:00:01");
  EXPECT_EQ(config["network-interfaces"][1]["host_dev_name"], "t0");
  EXPECT_EQ(config["vsock"], (json{{"guest_cid", 3}, {"uds_path", "/v"}}));
  EXPECT_TRUE(config["entropy"].is_object());
  EXPECT_TRUE(config["balloon"].is_object());
  EXPECT_EQ(config["machine-config"], get("/machine-config"));
}

TEST_F(ControlRoutes, APathThatIsNoUtf8IsNoTrouble) {
  target.options_.kernel = "\xFF\xFE";
  EXPECT_TRUE(get("/vm/config").is_object());
}

TEST_F(ControlRoutes, PauseAndResume) {
  expect_done(ask("PATCH", "/vm", R"({"state":"Paused"})"));
  EXPECT_TRUE(target.paused_);
  expect_done(ask("PATCH", "/vm", R"({"state":"Resumed"})"));
  EXPECT_FALSE(target.paused_);
  target.trouble_ = "the vCPUs do not stand";
  EXPECT_EQ(refused("PATCH", "/vm", R"({"state":"Paused"})"), "the vCPUs do not stand");
}

TEST_F(ControlRoutes, RefuseBodiesThatAreNotWhatIsAskedFor) {
  for (const char* body : {"", "{", "[]", "null", "{}", R"({"state":1})", R"({"state":"Stopped"})",
                           R"({"state":"Paused","more":1})", R"({"State":"Paused"})", "\xFF"}) {
    EXPECT_NE(refused("PATCH", "/vm", body).find("state"), std::string::npos) << body;
  }
  EXPECT_FALSE(target.paused_);
  refused("PATCH", "/vm", std::string(50000, '['));
}

TEST_F(ControlRoutes, PressThePowerButtonAndStop) {
  expect_done(ask("PUT", "/actions", R"({"action_type":"SendCtrlAltDel"})"));
  EXPECT_EQ(target.asked_, "power;");
  EXPECT_NE(refused("PUT", "/actions", R"({"action_type":"InstanceStart"})").find("runs already"),
            std::string::npos);
  expect_done(ask("PUT", "/stop"));
  EXPECT_EQ(target.asked_, "power;stop;");
}

TEST_F(ControlRoutes, NoBalloonIsSaid) {
  EXPECT_NE(refused("GET", "/balloon").find("--balloon"), std::string::npos);
  EXPECT_NE(refused("GET", "/balloon/statistics").find("--balloon"), std::string::npos);
  EXPECT_NE(refused("PATCH", "/balloon", R"({"amount_mib":1})").find("--balloon"),
            std::string::npos);
}

TEST_F(ControlRoutes, TheBalloonHasATargetAndStatistics) {
  target.balloon_ = BalloonStatus{0, 8 << 20, {{"free_memory", 77}}};
  expect_done(ask("PATCH", "/balloon", R"({"amount_mib":64})"));
  EXPECT_EQ(get("/balloon"),
            (json{{"amount_mib", 64}, {"deflate_on_oom", true}, {"stats_polling_interval_s", 0}}));
  EXPECT_EQ(get("/balloon/statistics"), (json{{"target_pages", 16384},
                                              {"actual_pages", 2048},
                                              {"target_mib", 64},
                                              {"actual_mib", 8},
                                              {"free_memory", 77}}));
  for (const char* amount : {"-1", "257", "1.5", "\"64\"", "null", "1e30"}) {
    std::string body = std::string(R"({"amount_mib":)") + amount + "}";
    EXPECT_EQ(refused("PATCH", "/balloon", body), "amount_mib must be 0 to 256") << amount;
  }
  EXPECT_EQ(target.balloon_->target_bytes, 64u << 20);
}

TEST_F(ControlRoutes, RefuseOtherPathsAndMethods) {
  EXPECT_EQ(refused("GET", "/nothing"), "Invalid request method and/or path: GET /nothing.");
  EXPECT_EQ(refused("POST", "/stop"), "Invalid request method and/or path: POST /stop.");
  refused("GET", "");
  refused("GET", "/stats/");
  refused("GET", "/stats?x");
}

// Paths are at two blanks of indentation, methods at four.
std::set<std::string> documented_routes() {
  std::ifstream file(MINIVMM_SOURCE_DIR "/docs/openapi.yaml");
  EXPECT_TRUE(file.is_open());
  std::set<std::string> routes;
  std::string line, path;
  bool in_paths = false;
  while (std::getline(file, line)) {
    if (!line.empty() && line[0] != ' ') in_paths = line == "paths:";
    if (!in_paths) continue;
    if (line.starts_with("  /")) path = line.substr(2, line.size() - 3);
    if (line.size() > 5 && line.starts_with("    ") && line[4] != ' ') {
      std::string method = line.substr(4, line.size() - 5);
      for (char& c : method) c = static_cast<char>(std::toupper(c));
      routes.insert(method + " " + path);
    }
  }
  return routes;
}

TEST(OpenApi, DocumentsWhatIsServedAndNothingElse) {
  std::set<std::string> served;
  for (const Route& route : control_routes()) {
    served.insert(std::string(route.method) + " " + std::string(route.path));
  }
  EXPECT_EQ(served, documented_routes());
  EXPECT_EQ(served.size(), control_routes().size());
}

TEST_F(ControlRoutes, SnapshotsAreBegunWatchedAndCancelled) {
  ControlResponse begun =
      ask("PUT", "/snapshots", R"({"snapshot_type":"Full","snapshot_path":"/s"})");
  EXPECT_EQ(begun.status, 202);
  EXPECT_EQ(json::parse(begun.body), (json{{"number", 1}}));
  EXPECT_TRUE(target.request_.full);
  EXPECT_EQ(target.request_.store_path, "/s");

  target.snapshots_.running = true;
  target.snapshots_.round = 4;
  EXPECT_EQ(get("/snapshots")["progress"]["round"], 4);
  expect_done(ask("DELETE", "/snapshots"));
  EXPECT_EQ(target.asked_, "cancel;");
  target.snapshots_.running = false;
  target.snapshots_.last = base::fail("the disk is full");
  EXPECT_EQ(get("/snapshots")["error"], "the disk is full");
  EXPECT_NE(refused("PUT", "/snapshots", R"({"snapshot_type":"Half"})").find("snapshot_type"),
            std::string::npos);
  target.trouble_ = "a snapshot is being taken";
  EXPECT_EQ(refused("PUT", "/snapshots"), "a snapshot is being taken");
}

}  // namespace
}  // namespace cli
