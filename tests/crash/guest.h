// A guest of a few pages whose content is a number each, maybe with a disk, and the writing of its
// snapshots the way the capture does it: dirty pages through a queue into a pack, the disk frozen.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <set>
#include <span>
#include <vector>

#include "snapshot/store/store.h"
#include "snapshot/types.h"
#include "vmm/base/result.h"

namespace test {

// What each page holds: 0 is a page of zeros, another number a page full of it.
using Pages = std::vector<uint64_t>;

struct alignas(snapshot::kPageBytes) PageBytes {
  std::array<std::byte, snapshot::kPageBytes> bytes;
};
PageBytes page_bytes(uint64_t value);
// What page_bytes() was made of; fails where it was not made by it.
base::Result<uint64_t> page_value(std::span<const std::byte> bytes);

// All that a snapshot has.
struct Content {
  Pages ram;
  Pages disk;  // empty: there is none
  bool operator==(const Content&) const = default;
};

class GuestDisk;

class Guest {
 public:
  explicit Guest(Pages ram, GuestDisk* disk = nullptr) : ram_(std::move(ram)), disk_(disk) {}

  void set(uint64_t page, uint64_t value) {
    ram_[page] = value;
    dirty_.insert(page);
  }
  Content content() const;

  // A snapshot of all pages or of the dirty ones. After a failure they stay dirty. `meanwhile` runs
  // when the disk is frozen, as the guest does.
  base::Result<snapshot::Id> take(snapshot::Store& store, snapshot::Branch& branch,
                                  snapshot::Kind kind, const std::function<void()>& meanwhile = {});

 private:
  base::Result<std::shared_ptr<const snapshot::Snapshot>> commit(
      snapshot::Store& store, snapshot::Branch& branch, snapshot::Kind kind,
      const std::function<void()>& meanwhile);
  base::Result<std::vector<snapshot::PageEntry>> write_pages(snapshot::Store& store,
                                                             snapshot::Commit& commit,
                                                             const std::vector<uint64_t>& pages);
  Pages ram_;
  std::set<uint64_t> dirty_;
  GuestDisk* disk_;
};

// Reads and checks everything of a committed snapshot.
base::Result<Content> read_content(snapshot::Store& store, const snapshot::Id& id);

}  // namespace test
