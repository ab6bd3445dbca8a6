#include "vmm/base/log.h"

#include <gtest/gtest.h>

namespace base {
namespace {

std::string stderr_of(auto&& action) {
  testing::internal::CaptureStderr();
  action();
  return testing::internal::GetCapturedStderr();
}

struct LogTest : testing::Test {
  ~LogTest() override { set_log_level(LogLevel::kWarning); }
};

TEST_F(LogTest, DropsWhatIsLessImportant) {
  std::string text = stderr_of([] {
    set_log_level(LogLevel::kWarning);
    log_info("one");
    log_warning("two");
    log_error("three");
    set_log_level(LogLevel::kDebug);
    log_debug("four");
    set_log_level(LogLevel::kOff);
    log_error("five");
  });
  EXPECT_EQ(text, "minivmm: warning: two\nminivmm: error: three\nminivmm: debug: four\n");
}

TEST_F(LogTest, AMessageStaysOneLine) {
  EXPECT_EQ(stderr_of([] { log_error("a\n{}", "b\x1b[2Jc"); }), "minivmm: error: a?b?[2Jc\n");
}

TEST_F(LogTest, BracesAreText) {
  EXPECT_EQ(stderr_of([] { log_error("{}", "{} {x}"); }), "minivmm: error: {} {x}\n");
}

TEST(LogLevel, HasNames) {
  EXPECT_EQ(parse_log_level("off"), LogLevel::kOff);
  EXPECT_EQ(parse_log_level("info"), LogLevel::kInfo);
  EXPECT_EQ(parse_log_level("Info"), std::nullopt);
  EXPECT_EQ(parse_log_level(""), std::nullopt);
}

}  // namespace
}  // namespace base
