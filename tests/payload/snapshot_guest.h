// A payload guest of which snapshots are taken, restored and compared with what its memory was at
// the instant of the pause.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "snapshot/capture.h"
#include "snapshot/machine_guest.h"
#include "snapshot/pager.h"
#include "snapshot/store/store.h"
#include "tests/payload/guest.h"
#include "tests/support/temporary_directory.h"

namespace payload_test {

class SnapshotPayloadTest : public testing::Test {
 protected:
  void SetUp() override;
  // Until here the store is a plain one.
  void delay_writes(uint64_t seed);

  void boot(const Guest::Options& options);
  void boot(const std::string& command_line, uint64_t memory_bytes = 64 << 20) {
    boot({.payload = "dirty", .command_line = command_line, .memory_bytes = memory_bytes});
  }
  // Ends the guest; the one of the snapshot goes on, and its memory comes as it is touched.
  void restore_lazily(const snapshot::Id& id, snapshot::Pager::Options options);
  void end_guest();

  // Takes a snapshot and keeps what memory was at its instant in at_pause_.
  snapshot::Capture::Outcome take(snapshot::Capture::Options options = {});

  struct Pages {
    uint64_t first = 0, count = UINT64_MAX;
  };
  // By the store's reader, by what an eager and a lazy restore fill memory with, and in the
  // exported file.
  void expect_stored(const snapshot::Id& id, const std::vector<std::byte>& memory) {
    expect_stored(id, memory, {});
  }
  void expect_stored(const snapshot::Id& id, const std::vector<std::byte>& memory, Pages pages);

  test::TemporaryDirectory directory_;
  std::unique_ptr<snapshot::Store> store_;
  std::unique_ptr<Guest> guest_;
  std::unique_ptr<snapshot::Branch> branch_;
  std::unique_ptr<snapshot::MachineGuest> live_;
  std::optional<snapshot::Capture> capture_;
  std::shared_ptr<snapshot::Pager> pager_;
  snapshot::Capture::Progress progress_;
  std::vector<std::byte> at_pause_;

 private:
  void attach(std::unique_ptr<Guest> guest, std::optional<snapshot::Id> parent);

  Guest::Options options_;
};

}  // namespace payload_test
