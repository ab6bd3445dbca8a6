// Guest memory that many machines begin with: filled once, then sealed (memfd_create(2)) so that
// nobody can change what was checked. Each machine maps a private copy (GuestMemory::Backing); a
// page that a machine does not write is shared with the others.
//
// Made and filled by one process, inherited by the machines' processes.
#pragma once

#include <cstdint>
#include <functional>

#include "vmm/base/fd.h"
#include "vmm/base/result.h"
#include "vmm/guest_memory.h"

namespace vmm {

class MemoryTemplate {
 public:
  // `fill` writes the pages, which are zero before.
  static base::Result<MemoryTemplate> create(
      uint64_t bytes, const std::function<base::Result<void>(GuestMemory&)>& fill);

  // What a machine's memory of the same size is made with, while this object lives.
  GuestMemory::Backing copy() const { return {GuestMemory::Backing::Kind::kCopy, file_.get()}; }

 private:
  explicit MemoryTemplate(base::Fd file) : file_(std::move(file)) {}
  base::Fd file_;
};

}  // namespace vmm
