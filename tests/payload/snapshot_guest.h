// A payload guest of which snapshots are taken, restored and compared with what its memory was at
// the instant of the pause.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "snapshot/capture.h"
#include "snapshot/disk/layered_disk.h"
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
  void restore_lazily(const snapshot::Id& id, snapshot::Pager::Ahead ahead);
  void end_guest();

  // Takes a snapshot and keeps what memory was at its instant in at_pause_.
  snapshot::Capture::Outcome take(snapshot::Capture::Options options = {});

  // Bytes of the guest's memory, from its beginning on.
  struct Extent {
    uint64_t offset = 0, bytes = 0;
  };
  struct Pages {
    uint64_t first = 0, count = UINT64_MAX;
    std::vector<Extent> except = {};  // what may be anything
  };
  // By the store's reader, by what an eager and a lazy restore fill memory with, and in the
  // exported file.
  void expect_stored(const snapshot::Id& id, const std::vector<std::byte>& memory) {
    expect_stored(id, memory, {});
  }
  void expect_stored(const snapshot::Id& id, const std::vector<std::byte>& memory,
                     const Pages& pages);

  struct Disks {
    Guest::Disks devices;
    std::vector<snapshot::LayeredDisk*> layered;
    std::vector<snapshot::Disk> described;
  };
  // Those of the guest that is made now, on branch_: one that boots, or (not null) of a snapshot.
  virtual Disks make_disks(const std::shared_ptr<const snapshot::Snapshot>& /*of*/) { return {}; }

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
  void attach(std::unique_ptr<Guest> guest, const Disks& disks);

  Guest::Options options_;
};

}  // namespace payload_test
