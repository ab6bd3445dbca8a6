#include "cli/escape_keys.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace cli {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

struct Filtered {
  std::string guest;
  std::vector<KeyCommand> commands;
};

Filtered filter(EscapeKeys& keys, std::string_view typed) {
  auto bytes = std::span(reinterpret_cast<const uint8_t*>(typed.data()), typed.size());
  EscapeKeys::Keys out = keys.filter(bytes);
  return {std::string(out.guest.begin(), out.guest.end()), out.commands};
}

TEST(EscapeKeys, OtherKeysAreTheGuests) {
  EscapeKeys keys;
  Filtered out = filter(keys, "ls -l\r\x03\x1axhc");
  EXPECT_EQ(out.guest, "ls -l\r\x03\x1axhc");
  EXPECT_THAT(out.commands, IsEmpty());
}

TEST(EscapeKeys, CtrlATakesOneMoreKey) {
  EscapeKeys keys;
  EXPECT_THAT(filter(keys, "\x01x").commands, ElementsAre(KeyCommand::kStop));
  Filtered out = filter(keys,
                        "a\x01hb\x01?c\x01"
                        "cd\x01X");
  EXPECT_EQ(out.guest, "abcd");
  EXPECT_THAT(out.commands, ElementsAre(KeyCommand::kHelp, KeyCommand::kHelp, KeyCommand::kControl,
                                        KeyCommand::kStop));
}

TEST(EscapeKeys, CtrlATwiceSendsOne) {
  EscapeKeys keys;
  Filtered out = filter(keys, "\x01\x01x");
  EXPECT_EQ(out.guest, "\x01x");
  EXPECT_THAT(out.commands, IsEmpty());
}

TEST(EscapeKeys, TheSecondKeyMayComeLater) {
  EscapeKeys keys;
  EXPECT_EQ(filter(keys, "a\x01").guest, "a");
  EXPECT_THAT(filter(keys, "x").commands, ElementsAre(KeyCommand::kStop));
}

TEST(EscapeKeys, AnUnknownCommandIsDropped) {
  EscapeKeys keys;
  Filtered out = filter(keys, "\x01zy");
  EXPECT_EQ(out.guest, "y");
  EXPECT_THAT(out.commands, IsEmpty());
}

}  // namespace
}  // namespace cli
