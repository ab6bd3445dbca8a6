#include "vmm/memory_template.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

namespace vmm {

using base::fail_errno;
using base::Result;

Result<MemoryTemplate> MemoryTemplate::create(
    uint64_t bytes, const std::function<Result<void>(GuestMemory&)>& fill) {
  base::Fd file(::memfd_create("minivmm-template", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!file) return fail_errno("memory template");
  if (::ftruncate(file.get(), static_cast<off_t>(bytes)) < 0) return fail_errno("memory template");
  {
    // The last shared mapping has to be gone before writes can be sealed.
    TRY_ASSIGN(auto memory, GuestMemory::create(bytes, {.kind = GuestMemory::Backing::Kind::kShared,
                                                        .fd = file.get()}));
    TRY(fill(*memory));
  }
  constexpr int kSeals = F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;
  if (::fcntl(file.get(), F_ADD_SEALS, kSeals) < 0) return fail_errno("seal the memory template");
  return MemoryTemplate(std::move(file));
}

}  // namespace vmm
