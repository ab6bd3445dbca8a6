#include "cli/snapshot_name.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "tests/support/temporary_directory.h"

namespace cli {
namespace {

using testing::HasSubstr;

void expect_name(const char* text, const char* store, const char* id_prefix) {
  auto name = parse_snapshot_name(text);
  ASSERT_TRUE(name) << name.error().text();
  EXPECT_EQ(name->store, store);
  EXPECT_EQ(name->id_prefix, id_prefix);
}

TEST(SnapshotNameTest, StoreAndId) {
  expect_name("job", "job", "");
  expect_name("/var/lib/job1.store", "/var/lib/job1.store", "");
  expect_name("job@a91f", "job", "a91f");
  expect_name("dir/job@0", "dir/job", "0");
  expect_name("job@0123456789abcdef0123456789abcdef", "job", "0123456789abcdef0123456789abcdef");
}

TEST(SnapshotNameTest, AnAtSignInAPath) {
  expect_name("user@host/job", "user@host/job", "");
  expect_name("user@host/job@a", "user@host/job", "a");
  expect_name("a@b/", "a@b/", "");
}

// A directory of that name is a store, whatever its name looks like.
TEST(SnapshotNameTest, ADirectoryWithAnAtSign) {
  test::TemporaryDirectory directory;
  const std::string store = directory.file("st@re"), id = directory.file("job@a91f");
  std::filesystem::create_directory(store);
  std::filesystem::create_directory(id);
  expect_name(store.c_str(), store.c_str(), "");
  expect_name((store + "@a91f").c_str(), store.c_str(), "a91f");
  expect_name(id.c_str(), id.c_str(), "");
}

TEST(SnapshotNameTest, WhatIsNoId) {
  for (const char* text : {"job@", "job@latest", "job@A91F", "job@-1", "job@0x1",
                           "job@0123456789abcdef0123456789abcdef0"}) {
    auto name = parse_snapshot_name(text);
    ASSERT_FALSE(name) << text;
    EXPECT_THAT(name.error().text(), HasSubstr("not the beginning of an id"));
  }
  EXPECT_FALSE(parse_snapshot_name(""));
  EXPECT_THAT(parse_snapshot_name("@a91f").error().text(), HasSubstr("no store named"));
}

}  // namespace
}  // namespace cli
