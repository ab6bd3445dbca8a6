#include "cli/syntax.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <optional>

namespace cli {
namespace {

using testing::ElementsAre;

base::Result<int> parse_digit(std::string_view text) {
  if (text.size() == 1 && text[0] >= '0' && text[0] <= '9') return text[0] - '0';
  return base::fail("'" + std::string(text) + "' is no digit");
}

struct SyntaxTest : testing::Test {
  SyntaxTest() {
    syntax.argument("STORE", store, "where");
    syntax.flag("--json", json, "for programs").short_name("-j");
    Option& many = syntax.option("--count", count, parse_digit, "how many", "N");
    syntax.list("--disk", disks, parse_digit, "which", "N");
    syntax.flag("--warm", warm, "ahead").needs(many).excludes(syntax.flag("--cold", cold, "late"));
  }
  // What it says of the words: "help", "" or the error.
  std::string said(std::vector<const char*> words) {
    auto help = syntax.parse(words);
    if (!help) return help.error().text();
    return *help ? "help" : "";
  }
  Syntax syntax{"test", "a command"};
  std::string store;
  bool json = false, warm = false, cold = false;
  std::optional<int> count;
  std::vector<int> disks;
};

TEST_F(SyntaxTest, TakesOptionsAndArgumentsInAnyOrder) {
  EXPECT_EQ(said({"--disk", "1", "s", "-j", "--count=7", "--disk=2"}), "");
  EXPECT_EQ(store, "s");
  EXPECT_TRUE(json);
  EXPECT_EQ(count, 7);
  EXPECT_THAT(disks, ElementsAre(1, 2));
}

TEST_F(SyntaxTest, AfterTwoDashesThereAreArgumentsOnly) {
  EXPECT_EQ(said({"--", "--json"}), "");
  EXPECT_EQ(store, "--json");
  EXPECT_FALSE(json);
}

TEST_F(SyntaxTest, AValueMayLookLikeAnOption) {
  EXPECT_EQ(said({"s", "--count", "--json"}), "--count: '--json' is no digit");
  EXPECT_EQ(said({"s", "--disk", "--help"}), "--disk: '--help' is no digit");
  EXPECT_EQ(said({"--", "-h"}), "");
  EXPECT_EQ(store, "-h");
}

TEST_F(SyntaxTest, OneDashIsAnArgument) {
  EXPECT_EQ(said({"-"}), "");
  EXPECT_EQ(store, "-");
}

TEST_F(SyntaxTest, SaysWhatIsWrongAndWhereToLook) {
  EXPECT_EQ(said({}), "STORE is missing: see minivmm test --help");
  EXPECT_EQ(said({"s", "t"}), "unexpected argument t: see minivmm test --help");
  for (auto [words, what] : std::initializer_list<std::pair<std::vector<const char*>, const char*>>{
           {{"--coun", "1"}, "unknown option --coun"},  // no abbreviations
           {{"-x"}, "unknown option -x"},
           {{"--color=red"}, "unknown option --color"},
           {{"--json=1"}, "--json takes no value"},
           {{"--count"}, "--count needs a value, N"},
           {{"--count", "1", "--count=2"}, "--count is given twice"}}) {
    EXPECT_EQ(said(words), std::string(what) + ": see minivmm test --help");
  }
}

TEST_F(SyntaxTest, KeepsOptionsTogetherAndApart) {
  EXPECT_EQ(said({"s", "--warm"}), "--warm needs --count: see minivmm test --help");
}

TEST_F(SyntaxTest, OfTwoThatExcludeEachOtherBothAreNamed) {
  EXPECT_EQ(said({"s", "--cold", "--count", "1", "--warm"}),
            "--warm and --cold exclude each other: see minivmm test --help");
}

TEST_F(SyntaxTest, HelpIsGivenWhateverIsMissing) {
  EXPECT_EQ(said({"--warm", "-h", "--nonsense"}), "help");
  EXPECT_EQ(said({"s", "--help"}), "help");
  EXPECT_THAT(syntax.help(), testing::HasSubstr("Usage: minivmm test [OPTIONS] STORE\n"));
  EXPECT_THAT(syntax.help(), testing::HasSubstr("\n  -j, --json                  for programs\n"));
  EXPECT_THAT(syntax.help(), testing::HasSubstr("\n  --count N                   how many\n"));
}

}  // namespace
}  // namespace cli
