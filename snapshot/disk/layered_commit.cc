// A layered disk's part of a snapshot.
#include "snapshot/disk/layered_disk.h"

namespace snapshot {

using base::Result;

Result<void> LayeredDisk::add_to(Commit& commit, uint32_t disk) const {
  TRY_ASSIGN(Sealed sealed, this->sealed());
  std::vector<Slot> slots;
  slots.reserve(sealed.layers.size());
  for (const auto& layer : sealed.layers) {
    slots.push_back(commit.add_layer(disk, layer->id(), layer->commit_data(), &layer->sync_failed));
  }
  for (PageEntry& entry : sealed.entries) {
    if (entry.slot != kSlotZero) entry.slot = slots[entry.slot];
  }
  return commit.set_pages(disk_space(disk), blocks(), std::move(sealed.entries));
}

}  // namespace snapshot
