#include "cli/progress_bar.h"

#include <gtest/gtest.h>

namespace cli {
namespace {

TEST(ProgressBarTest, TheLineSaysWhatIsDone) {
  EXPECT_EQ(progress_line("verify", 0, 1 << 20, 0),
            "verify [                        ]   0 %  0 B of 1 MiB");
  EXPECT_EQ(progress_line("verify", 1 << 19, 1 << 20, 2),
            "verify [############            ]  50 %  512 KiB of 1 MiB  256 KiB/s  2 s left");
  EXPECT_EQ(progress_line("export", 4096, 4096, 1),
            "export [########################] 100 %  4 KiB of 4 KiB  4 KiB/s  0 s left");
}

TEST(ProgressBarTest, NothingToDoAndMoreThanSaid) {
  EXPECT_EQ(progress_line("x", 0, 0, 1), "x [########################] 100 %  0 B of 0 B");
  EXPECT_NE(progress_line("x", 20, 10, 1).find("100 %"), std::string::npos);
}

TEST(ProgressBarTest, ASignalIsAskedForAndDoesNotStrike) {
  auto run = [](int signal) {
    ProgressBar bar("x");
    snapshot::Progress progress = bar.progress();
    EXPECT_TRUE(progress(1, 2));
    ::raise(signal);
    EXPECT_FALSE(progress(1, 2));
    EXPECT_FALSE(progress(2, 2));  // and stays
    EXPECT_FALSE(snapshot::report(progress, 2, 2));
  };
  for (int signal : {SIGINT, SIGTERM, SIGHUP}) run(signal);
  ProgressBar after("x");
  EXPECT_TRUE(after.progress()(1, 2));
}

}  // namespace
}  // namespace cli
