// Puts a kernel, its initrd and its command line into guest RAM and says where a vCPU starts. Takes
// a bzImage (unpacked here, or by its own stub) by the 64-bit boot protocol, and an ELF image by
// PVH, or by the 64-bit protocol where it is a vmlinux without a PVH note.
//
// Called once by the machine before the first vCPU runs, on fresh (zero) guest memory. Sources:
// Documentation/arch/x86/boot.rst, Xen's docs/misc/pvh.pandoc.
#pragma once

#include <linux/kvm.h>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include "vmm/base/result.h"
#include "vmm/guest_memory.h"

namespace vmm::boot {

enum class BootPath {
  kDirect,  // a bzImage is unpacked by us and entered at the vmlinux inside
  kStub,    // a bzImage is entered at its own decompressor
};

struct KernelSpec {
  std::string kernel_path;
  std::optional<std::string> initrd_path;
  std::string command_line;
  BootPath boot_path = BootPath::kDirect;
};

struct Entry {
  enum class Mode {
    kLong64,       // 64-bit boot protocol: identity page tables, RSI = boot_params
    kProtected32,  // PVH: flat segments, no paging, EBX = hvm_start_info
  };
  Mode mode = Mode::kLong64;
  Gpa rip;
  Gpa boot_data;  // boot_params or hvm_start_info
};

// `rsdp` is the guest address of the ACPI root pointer. The error names the file.
base::Result<Entry> load_kernel(GuestMemory& memory, const KernelSpec& spec, Gpa rsdp);

// The same for a kernel that is in memory already; `spec.kernel_path` only names it in errors.
base::Result<Entry> load_kernel_image(GuestMemory& memory, std::span<const std::byte> image,
                                      const KernelSpec& spec, Gpa rsdp);

// The boot processor's registers. Everything but the general registers, the segments, descriptor
// tables, CR0, CR3, CR4 and EFER keeps what KVM_GET_REGS and KVM_GET_SREGS gave.
void set_entry_registers(const Entry& entry, kvm_regs& regs, kvm_sregs& sregs);

}  // namespace vmm::boot
