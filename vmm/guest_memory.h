// Guest RAM, and the one door through which the host writes it. KVM's dirty log never sees a write
// made by a device model, so every host-side write ends in mark_dirty(), *after* the data is there:
// a page marked first could be copied by a snapshot between the mark and the data.
//
// Owned by the machine; used by vCPU threads and device threads at once. The region list never
// changes after creation; the guest may change any byte at any time, so nothing read here is
// trusted twice: copy, then check.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <type_traits>
#include <vector>

#include "vmm/base/mapping.h"
#include "vmm/base/result.h"
#include "vmm/base/zeroed_array.h"
#include "vmm/guest_address.h"

namespace vmm {

class GuestMemory {
 public:
  struct Region {
    Gpa start;
    uint64_t size = 0;  // bytes, a multiple of the page size
    std::byte* host = nullptr;

    bool contains(Gpa gpa, uint64_t length) const {
      return gpa >= start && length <= size && gpa.value - start.value <= size - length;
    }
  };

  // What the pages are at first.
  struct Backing {
    enum class Kind {
      kZero,    // zeroes
      kShared,  // the file itself: who fills a template (memory_template.h) writes through this
      kCopy,    // those of the file, which has the RAM pages in order; writes stay here
    };
    Kind kind = Kind::kZero;
    int fd = -1;  // not needed once the memory is made
  };

  // `bytes` of RAM laid out around the hole below 4 GiB (layout.h): at most two regions.
  static base::Result<std::unique_ptr<GuestMemory>> create(uint64_t bytes, Backing backing);
  static base::Result<std::unique_ptr<GuestMemory>> create(uint64_t bytes) {
    return create(bytes, Backing());
  }
  // Is a page that nobody touched what a template says, instead of zero?
  bool is_copy() const { return is_copy_; }

  const std::vector<Region>& regions() const { return regions_; }
  uint64_t size() const { return size_; }

  // RAM pages are the pages of all regions counted from 0 in the order of their addresses, the hole
  // left out: how snapshots number them. A region begins at a multiple of 64, so that its pages
  // fill whole words of a bitmap.
  uint64_t ram_pages() const { return size_ >> kPageShift; }
  // Nothing where `gfn` is not RAM.
  std::optional<uint64_t> ram_page(Gfn gfn) const;
  // Of a RAM page below ram_pages(). Who writes there marks the page afterwards.
  Gpa gpa_of(uint64_t ram_page) const;
  std::byte* host(uint64_t ram_page) const;
  // The RAM page at an address in this process; nothing where there is none.
  std::optional<uint64_t> ram_page_at(const std::byte* host) const;

  // A view of [gpa, gpa + length), which must lie inside one region. The guest may change what it
  // shows at any time.
  base::Result<std::span<const std::byte>> view(Gpa gpa, uint64_t length) const;

  // Where an asynchronous transfer (io_uring, recvmsg) may place data. The caller calls
  // mark_dirty() for what was written once the transfer is complete and before it tells the guest.
  base::Result<std::span<std::byte>> dma_target(Gpa gpa, uint64_t length);

  base::Result<void> read(Gpa gpa, std::span<std::byte> into) const;
  base::Result<void> write(Gpa gpa, std::span<const std::byte> from);
  base::Result<void> fill_zero(Gpa gpa, uint64_t length);

  // Gives pages back to the host: they read as zero from now on, take no memory until they are
  // touched again, and are marked dirty. [gpa, gpa + length) must be whole pages.
  //
  // False where they stay as they are: in a copy of a template each new run becomes a mapping of
  // its own, of which a process may have vm.max_map_count, 65,530 unless the host says otherwise.
  // Of a copy by one thread at a time.
  base::Result<bool> discard(Gpa gpa, uint64_t length);

  template <typename T>
    requires std::is_trivially_copyable_v<T>
  base::Result<T> load(Gpa gpa) const {
    T value;
    TRY(read(gpa, std::as_writable_bytes(std::span(&value, 1))));
    return value;
  }
  template <typename T>
    requires std::is_trivially_copyable_v<T>
  base::Result<void> store(Gpa gpa, const T& value) {
    return write(gpa, std::as_bytes(std::span(&value, 1)));
  }

  // Ring indices shared with the guest: naturally aligned, acquire and release.
  base::Result<uint16_t> load_acquire16(Gpa gpa) const;
  base::Result<void> store_release16(Gpa gpa, uint16_t value);

  // Marks every page that [gpa, gpa + length) touches; outside RAM it does nothing.
  void mark_dirty(Gpa gpa, uint64_t length);
  // Is the page marked by a host-side write since the last take_dirty()?
  bool is_dirty(Gfn gfn) const;
  // Moves the marks of region `index`, one bit per page, into `into` (OR-ed) and clears them.
  void take_dirty(size_t index, std::span<uint64_t> into);
  // The same, and the marks stay.
  void peek_dirty(size_t index, std::span<uint64_t> into) const;

 private:
  GuestMemory() = default;
  base::Result<bool> detach(std::span<std::byte> bytes);
  bool drop(std::span<std::byte> bytes) const;
  base::Result<const Region*> find(Gpa gpa, uint64_t length) const;

  struct DirtyMap {
    explicit DirtyMap(size_t count) : words(count), summary((count + 63) / 64) {}
    void mark(size_t word, uint64_t bits);
    // By atomic_ref only, which takes nothing that is const.
    mutable base::ZeroedArray<uint64_t> words;    // a bit a page
    mutable base::ZeroedArray<uint64_t> summary;  // a bit a word that may not be zero
  };
  std::vector<base::Mapping> mappings_;
  std::vector<Region> regions_;
  std::vector<DirtyMap> dirty_;  // one a region, by index
  uint64_t size_ = 0;
  bool is_copy_ = false;
  // Of a copy: pages that were discarded before and so are not the template's (a bit each), and the
  // runs in which that came about.
  base::ZeroedArray<uint64_t> replaced_;
  uint32_t replaced_runs_ = 0;
};

}  // namespace vmm
