// A guest's disk of a few blocks: layers over an image whose blocks hold known numbers. Each
// request is waited for, so the script decides what the disk holds.
#pragma once

#include <memory>
#include <set>
#include <string>
#include <vector>

#include "snapshot/disk/layered_disk.h"
#include "snapshot/store/store.h"
#include "tests/crash/guest.h"

namespace test {

// What the image holds; never zero.
uint64_t base_value(uint64_t block);

class GuestDisk {
 public:
  static constexpr uint32_t kDisk = 0;

  // On the image, or on a snapshot's disk.
  static std::unique_ptr<GuestDisk> boot(snapshot::Store& store, uint64_t blocks,
                                         const std::string& base = "image");
  static base::Result<std::unique_ptr<GuestDisk>> restore(snapshot::Store& store,
                                                          snapshot::Branch& branch, Pages content);

  const Pages& content() const { return content_; }
  // The errno of the request.
  int write(uint64_t block, uint64_t value);
  int discard(uint64_t block, uint64_t count);
  int flush();

  // The steps of a snapshot.
  base::Result<void> freeze(snapshot::Branch& branch);
  base::Result<void> add_to(snapshot::Commit& commit, snapshot::SnapshotNotes& notes);
  void committed(std::shared_ptr<const snapshot::Snapshot> snapshot);
  void commit_failed(const base::Error& error);

 private:
  struct Request : virtio::Disk::Request {};
  GuestDisk(Pages content, std::string base)
      : content_(std::move(content)), base_(std::move(base)) {}
  static snapshot::LayeredDisk::Options options(snapshot::Store& store, uint64_t blocks);
  int run(Request& request);

  Pages content_;
  const std::string base_;  // the image's identity
  std::unique_ptr<snapshot::LayeredDisk> disk_;
};

// The disk as the machine of a branch left it: its last snapshot, and what its layers have on top.
// A block is a list of the different numbers in it, one where it is not torn.
base::Result<std::vector<std::set<uint64_t>>> read_disk_of_head(snapshot::Store& store,
                                                                const snapshot::Head& head,
                                                                uint64_t blocks);
// The disk of a committed snapshot; empty where it has none.
base::Result<Pages> read_disk(const snapshot::Snapshot& snapshot);

}  // namespace test
