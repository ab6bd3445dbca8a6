// RAII handles of the KVM API (Documentation/virt/kvm/api.rst): the system, a virtual machine, a
// vCPU. Each function is one ioctl; errors name it.
#pragma once

#include <linux/kvm.h>

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "vmm/base/fd.h"
#include "vmm/base/mapping.h"
#include "vmm/base/result.h"
#include "vmm/guest_address.h"

namespace vmm {

// kvm_msrs: a count, a reserved word, then entries, in one piece of memory made once. Spelled out
// because the flexible array of some versions of <linux/kvm.h> gets its size wrong in C++.
class MsrTable {
 public:
  MsrTable() = default;
  explicit MsrTable(std::span<const uint32_t> indices);
  std::span<kvm_msr_entry> entries() {
    return {reinterpret_cast<kvm_msr_entry*>(words_.data() + 1), count()};
  }
  std::span<const kvm_msr_entry> entries() const {
    return {reinterpret_cast<const kvm_msr_entry*>(words_.data() + 1), count()};
  }
  size_t count() const { return words_.empty() ? 0 : (words_.size() - 1) / kEntryWords; }

 private:
  friend class KvmVcpu;
  static constexpr size_t kEntryWords = sizeof(kvm_msr_entry) / sizeof(uint64_t);
  std::vector<uint64_t> words_;
};

// A vCPU's descriptor and the kvm_run page shared with the kernel.
class KvmVcpu {
 public:
  KvmVcpu(base::Fd fd, base::Mapping run) : fd_(std::move(fd)), run_(std::move(run)) {}

  int fd() const { return fd_.get(); }
  kvm_run& run() const { return *reinterpret_cast<kvm_run*>(run_.data()); }

  // KVM_RUN; returns errno, 0 for an exit that kvm_run describes.
  int enter() const;
  base::Result<void> set_cpuid(const std::vector<kvm_cpuid_entry2>& entries) const;
  base::Result<void> set_msrs(const std::vector<kvm_msr_entry>& entries) const;
  // `entries` name MSRs and get their values. Returns how many were read: KVM stops at the first
  // that it does not have. Allocates nothing.
  base::Result<size_t> get_msrs(MsrTable& table) const;
  // Frequency of the guest's TSC; 0 where KVM does not say.
  uint32_t tsc_khz() const;
  base::Result<void> set_tsc_khz(uint32_t khz) const;
  // What KVM adds to the host's TSC (KVM_VCPU_TSC_OFFSET, Linux 5.16).
  base::Result<uint64_t> tsc_offset() const;
  base::Result<void> set_tsc_offset(uint64_t offset) const;
  // `area` has at least as many bytes as KVM_CAP_XSAVE2 says.
  base::Result<void> get_xsave(std::span<std::byte> area) const;
  base::Result<void> set_xsave(std::span<const std::byte> area) const;
  // Tells the guest's watchdogs that it stood still; nothing where it does not use kvmclock.
  base::Result<void> tell_stopped() const;
  // Any other ioctl with a structure of fixed size.
  template <typename T>
  base::Result<void> control(unsigned long request, T* argument, const char* name) const {
    return control_raw(request, argument, name);
  }

 private:
  base::Result<void> control_raw(unsigned long request, void* argument, const char* name) const;
  base::Fd fd_;
  base::Mapping run_;
};

class KvmVm {
 public:
  KvmVm(base::Fd fd, uint64_t run_bytes) : fd_(std::move(fd)), run_bytes_(run_bytes) {}

  int fd() const { return fd_.get(); }
  base::Result<void> set_memory(uint32_t slot, Gpa gpa, std::byte* host, uint64_t bytes,
                                uint32_t flags) const;
  // KVM_GET_DIRTY_LOG of a slot then only reads, and clear_dirty_log() clears (api.rst, 7.18
  // KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2); to be called before a slot is made that logs. When a slot
  // begins to log, all its pages are in the log (`all_at_first`) or none.
  base::Result<void> enable_manual_dirty_log(bool all_at_first) const;
  // One bit a page, bit 0 the slot's first; `bitmap` holds all of the slot's, in whole words.
  base::Result<void> get_dirty_log(uint32_t slot, std::span<uint64_t> bitmap) const;
  // Clears the log of those of `pages` pages from `first` (a multiple of 64, within the slot) that
  // have their bit set. `pages` is a multiple of 64 or ends where the slot does.
  base::Result<void> clear_dirty_log(uint32_t slot, uint64_t first, uint32_t pages,
                                     std::span<const uint64_t> bits) const;
  // Local APICs, IOAPIC and PICs in the kernel; to be called before any vCPU is created.
  base::Result<void> create_irqchip() const;
  base::Result<void> set_identity_map(Gpa identity_map, Gpa tss) const;
  base::Result<KvmVcpu> create_vcpu(uint32_t id) const;
  base::Result<void> set_irq_line(uint32_t gsi, bool high) const;
  base::Result<void> set_routing(const std::vector<kvm_irq_routing_entry>& entries) const;
  base::Result<void> set_irqfd(const base::EventFd& event, uint32_t gsi, bool attach) const;
  // A write of any width to `address` signals `event`.
  base::Result<void> set_ioeventfd(const base::EventFd& event, Gpa address, bool attach) const;
  // The value of a capability of this VM, 0 where it is absent.
  int capability(long name) const;
  // For capabilities that are switched on by name alone, or with `argument`.
  base::Result<void> enable(uint32_t capability, uint64_t argument, const char* name) const;
  // Any other ioctl with a structure of fixed size.
  template <typename T>
  base::Result<void> control(unsigned long request, T* argument, const char* name) const {
    return control_raw(request, argument, name);
  }

 private:
  base::Result<void> control_raw(unsigned long request, const void* argument,
                                 const char* name) const;
  base::Fd fd_;
  uint64_t run_bytes_;
};

class Kvm {
 public:
  // Checks the API version. The error says what to do where the device is missing or closed to us.
  static base::Result<Kvm> open(const std::string& path = "/dev/kvm");

  int capability(long name) const;
  base::Result<KvmVm> create_vm() const;
  // The same for all machines of a host, so a process and those forked from it ask once.
  base::Result<std::vector<kvm_cpuid_entry2>> supported_cpuid() const;
  // The MSRs a vCPU's state may have; which it has depends on its CPUID.
  base::Result<std::vector<uint32_t>> msr_indices() const;

 private:
  explicit Kvm(base::Fd fd) : fd_(std::move(fd)) {}
  base::Fd fd_;
};

}  // namespace vmm
