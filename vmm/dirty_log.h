// Which pages of guest RAM were written: KVM's dirty log of every memory slot, which sees what the
// guest writes, and the marks of GuestMemory, which see what the host writes for it. Bitmaps are
// in RAM pages (GuestMemory::ram_page), bit n of word n / 64.
//
// A machine begins without KVM's part of it, where its first snapshot is a full one anyway: until
// then KVM maps its memory by huge pages, and no first write to a page has to be noticed. start()
// turns it on under a running guest, and then every page is in it: KVM protects nothing at once,
// but piece by piece, where it is cleared. (Turned on empty it would protect all of memory in one
// call.) A restored machine logs from its first instruction on, and begins with an empty log.
//
// KVM's bits are only read by fetch() and peek() and stay until clear(), which write-protects the
// pages again: a snapshot clears a piece at a time, each just before it copies it. Clearing all
// at once would keep a writing guest out of its pages for milliseconds.
//
// Owned by the machine. Used by one thread at a time, while the guest and devices write or not;
// nothing here allocates.
#pragma once

#include <cstdint>
#include <span>

#include "vmm/base/result.h"
#include "vmm/guest_memory.h"
#include "vmm/kvm.h"

namespace vmm {

class DirtyLog {
 public:
  // Most pages of one clear(): how long it may keep the guest's page faults waiting.
  static constexpr uint64_t kMostPages = 512;

  // Makes slot i of the VM from region i of the memory. Both outlive the log.
  static base::Result<DirtyLog> create(const KvmVm& vm, GuestMemory& memory, bool start);

  uint64_t pages() const { return memory_->ram_pages(); }
  size_t words() const { return (pages() + 63) / 64; }

  bool started() const { return started_; }
  // Every page is in the log afterwards, those too that were never written.
  base::Result<void> start();

  // Only once it has started.
  //
  // Pages written since they were last cleared. `bitmap` has words() words and is overwritten. The
  // host's marks are taken: data marked by then is in memory, so a copy made later has it.
  base::Result<void> fetch(std::span<uint64_t> bitmap) { return read(bitmap, true); }
  // The same, and the host's marks stay as KVM's do: what is read in a pause and copied without
  // being cleared is dirty for the next time as well.
  base::Result<void> peek(std::span<uint64_t> bitmap) { return read(bitmap, false); }

  // Makes KVM log the next write to each of the pages whose bit is set; bit 0 is `first_page`, a
  // multiple of 64. `count` is at most kMostPages and a multiple of 64, or ends with the RAM.
  base::Result<void> clear(uint64_t first_page, uint64_t count, std::span<const uint64_t> bits);

 private:
  DirtyLog(const KvmVm& vm, GuestMemory& memory) : vm_(&vm), memory_(&memory) {}
  base::Result<void> make_slots(uint32_t flags) const;
  base::Result<void> read(std::span<uint64_t> bitmap, bool take_marks);

  const KvmVm* vm_;
  GuestMemory* memory_;
  bool started_ = false;
};

}  // namespace vmm
