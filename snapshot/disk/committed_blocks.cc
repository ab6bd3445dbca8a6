#include "snapshot/disk/committed_blocks.h"

namespace snapshot {
namespace {

class SnapshotBlocks : public CommittedBlocks {
 public:
  SnapshotBlocks(std::shared_ptr<const Snapshot> snapshot, Space space)
      : snapshot_(std::move(snapshot)), space_(space) {}

  base::Result<PageEntry> find(uint64_t block) const override {
    return snapshot_->find(space_, block);
  }
  base::Result<void> find_range(uint64_t first, std::span<PageEntry> into) const override {
    return snapshot_->find_range(space_, first, into);
  }
  base::Result<std::shared_ptr<File>> file(Slot slot) const override {
    return snapshot_->file(slot);
  }
  base::Result<void> check(const PageEntry& entry,
                           std::span<const std::byte> content) const override {
    return snapshot_->check(space_, entry, content);
  }

 private:
  std::shared_ptr<const Snapshot> snapshot_;
  Space space_;
};

}  // namespace

std::shared_ptr<const CommittedBlocks> committed_blocks(std::shared_ptr<const Snapshot> snapshot,
                                                        Space space) {
  return std::make_shared<SnapshotBlocks>(std::move(snapshot), space);
}

}  // namespace snapshot
