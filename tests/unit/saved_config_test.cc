#include "cli/saved_config.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace cli {
namespace {

RunOptions machine() {
  RunOptions options;
  options.name = "job1";
  options.memory_bytes = 512ull << 20;
  options.cpus = 4;
  options.disks = {{.path = "/srv/root.img", .read_only = false, .serial = "root"},
                   {.path = "/srv/data.img", .read_only = true, .serial = ""}};
  options.nets.resize(1);
  options.rng = true;
  options.vsock = VsockOption{.cid = 7, .path = "/tmp/secret"};
  options.console = ConsoleKind::kVirtio;
  return options;
}

TEST(SavedConfigTest, WhatTheMachineIsComesBack) {
  RunOptions saved = machine();
  auto options = parse_saved_config(saved_config(saved));
  ASSERT_TRUE(options) << options.error().text();
  EXPECT_EQ(options->name, "job1");
  EXPECT_EQ(options->memory_bytes, 512ull << 20);
  EXPECT_EQ(options->cpus, 4u);
  ASSERT_EQ(options->disks.size(), 2u);
  EXPECT_EQ(options->disks[0].serial, "root");
  EXPECT_TRUE(options->disks[1].read_only);
  ASSERT_EQ(options->nets.size(), 1u);
  // The address it had, though it only followed from the name.
  EXPECT_EQ(options->nets[0].mac, mac_of(saved, 0));
  EXPECT_FALSE(options->nets[0].was_tap);
  saved.nets[0].tap = "tap7";
  options = parse_saved_config(saved_config(saved));
  EXPECT_TRUE(options->nets[0].was_tap);
  EXPECT_EQ(options->nets[0].tap, "");
  EXPECT_TRUE(options->rng);
  EXPECT_FALSE(options->balloon);
  EXPECT_EQ(options->vsock->cid, 7u);
  EXPECT_EQ(options->console, ConsoleKind::kVirtio);
}

TEST(SavedConfigTest, ItNamesNothingOfTheHost) {
  std::string text = saved_config(machine());
  EXPECT_EQ(text.find("/srv"), std::string::npos);
  EXPECT_EQ(text.find("secret"), std::string::npos);
}

TEST(SavedConfigTest, EachFieldIsChecked) {
  nlohmann::json good = nlohmann::json::parse(saved_config(machine()));
  struct Case {
    const char* field;
    nlohmann::json value;
  };
  const Case cases[] = {{"memory_mib", 0},
                        {"memory_mib", "256"},
                        {"memory_mib", -5},
                        {"memory_mib", 1u << 31},
                        {"cpus", 0},
                        {"cpus", 65},
                        {"disks", 3},
                        {"disks", {{{"serial", 1}}}},
                        {"nets", {{{"kind", "tap"}, {"mac", "x"}}}},
                        {"console", "screen"},
                        {"name", "../../etc"},
                        {"rng", 1},
                        {"vsock_cid", 2}};
  for (const Case& wrong : cases) {
    nlohmann::json changed = good;
    changed[wrong.field] = wrong.value;
    EXPECT_FALSE(parse_saved_config(changed.dump())) << changed.dump();
  }
  for (const char* field : {"memory_mib", "cpus", "disks", "nets", "rng", "balloon", "name"}) {
    nlohmann::json changed = good;
    changed.erase(field);
    EXPECT_FALSE(parse_saved_config(changed.dump())) << field;
  }
}

TEST(SavedConfigTest, WhatIsNoConfigurationIsRefused) {
  for (const std::string& text :
       {std::string(), std::string("[]"), std::string("{"), std::string("\xff\xfe"),
        std::string(kMostSavedConfig + 1, ' '), std::string(20000, '[')}) {
    EXPECT_FALSE(parse_saved_config(text));
  }
}

}  // namespace
}  // namespace cli
