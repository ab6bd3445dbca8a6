#include "vmm/kvm.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/ioctl.h>

#include <algorithm>
#include <cassert>
#include <cerrno>
#include <memory>
#include <mutex>

namespace vmm {

using base::fail;
using base::fail_errno;
using base::Result;

namespace {

// kvm_cpuid2, kvm_msrs and kvm_irq_routing: a count, a reserved word, then entries. Spelled out
// here because the flexible arrays of some versions of <linux/kvm.h> (6.1's __DECLARE_FLEX_ARRAY)
// add four bytes to the structure in C++, and with them to the number of the ioctl.
struct CountedHeader {
  uint32_t count;
  uint32_t reserved;
};
template <typename Entry>
struct Counted {
  explicit Counted(size_t count)
      : bytes(std::make_unique<std::byte[]>(sizeof(CountedHeader) + count * sizeof(Entry))) {
    header()->count = static_cast<uint32_t>(count);
  }
  explicit Counted(const std::vector<Entry>& from) : Counted(from.size()) {
    std::copy(from.begin(), from.end(), entries());
  }
  CountedHeader* header() { return reinterpret_cast<CountedHeader*>(bytes.get()); }
  Entry* entries() { return reinterpret_cast<Entry*>(bytes.get() + sizeof(CountedHeader)); }
  std::unique_ptr<std::byte[]> bytes;
};

constexpr unsigned long kGetSupportedCpuid = _IOWR(KVMIO, 0x05, CountedHeader);
constexpr unsigned long kSetGsiRouting = _IOW(KVMIO, 0x6A, CountedHeader);
constexpr unsigned long kSetMsrs = _IOW(KVMIO, 0x89, CountedHeader);
constexpr unsigned long kGetMsrIndexList = _IOWR(KVMIO, 0x02, uint32_t);
constexpr unsigned long kGetMsrs = _IOWR(KVMIO, 0x88, CountedHeader);
// kvm_xsave, whose flexible array has the same problem.
struct XsaveRegion {
  uint32_t words[1024];
};
constexpr unsigned long kSetXsave = _IOW(KVMIO, 0xA5, XsaveRegion);
constexpr unsigned long kGetXsave2 = _IOR(KVMIO, 0xCF, XsaveRegion);
constexpr unsigned long kSetCpuid2 = _IOW(KVMIO, 0x90, CountedHeader);

}  // namespace

int KvmVcpu::enter() const { return ::ioctl(fd_.get(), KVM_RUN, 0) < 0 ? errno : 0; }

Result<void> KvmVcpu::control_raw(unsigned long request, void* argument, const char* name) const {
  if (::ioctl(fd_.get(), request, argument) < 0) return fail_errno(name);
  return {};
}

Result<void> KvmVcpu::set_cpuid(const std::vector<kvm_cpuid_entry2>& entries) const {
  Counted<kvm_cpuid_entry2> table(entries);
  return control(kSetCpuid2, table.header(), "KVM_SET_CPUID2");
}

Result<void> KvmVcpu::set_msrs(const std::vector<kvm_msr_entry>& entries) const {
  Counted<kvm_msr_entry> table(entries);
  // Returns how many were set: it stops at the first that is refused.
  int set = ::ioctl(fd_.get(), kSetMsrs, table.header());
  if (set < 0) return fail_errno("KVM_SET_MSRS");
  if (static_cast<size_t>(set) < entries.size()) {
    return fail(fmt::format("KVM_SET_MSRS refuses MSR {:#x}", entries[set].index));
  }
  return {};
}

MsrTable::MsrTable(std::span<const uint32_t> indices) : words_(1 + indices.size() * kEntryWords) {
  words_[0] = indices.size();  // the count, and zeros above it
  for (size_t i = 0; i < indices.size(); ++i) entries()[i].index = indices[i];
}

Result<size_t> KvmVcpu::get_msrs(MsrTable& table) const {
  if (table.count() == 0) return 0;
  int got = ::ioctl(fd_.get(), kGetMsrs, table.words_.data());
  if (got < 0) return fail_errno("KVM_GET_MSRS");
  return static_cast<size_t>(got);
}

Result<void> KvmVcpu::set_tsc_khz(uint32_t khz) const {
  if (::ioctl(fd_.get(), KVM_SET_TSC_KHZ, khz) < 0) return fail_errno("KVM_SET_TSC_KHZ");
  return {};
}

Result<uint64_t> KvmVcpu::tsc_offset() const {
  uint64_t offset = 0;
  kvm_device_attr attribute{};
  attribute.group = KVM_VCPU_TSC_CTRL;
  attribute.attr = KVM_VCPU_TSC_OFFSET;
  attribute.addr = reinterpret_cast<uint64_t>(&offset);
  TRY(control(KVM_GET_DEVICE_ATTR, &attribute, "get KVM_VCPU_TSC_OFFSET (Linux 5.16 or newer)"));
  return offset;
}

Result<void> KvmVcpu::set_tsc_offset(uint64_t offset) const {
  kvm_device_attr attribute{};
  attribute.group = KVM_VCPU_TSC_CTRL;
  attribute.attr = KVM_VCPU_TSC_OFFSET;
  attribute.addr = reinterpret_cast<uint64_t>(&offset);
  return control(KVM_SET_DEVICE_ATTR, &attribute, "set KVM_VCPU_TSC_OFFSET (Linux 5.16 or newer)");
}

Result<void> KvmVcpu::get_xsave(std::span<std::byte> area) const {
  return control(kGetXsave2, area.data(), "KVM_GET_XSAVE2 (Linux 5.17 or newer)");
}

Result<void> KvmVcpu::set_xsave(std::span<const std::byte> area) const {
  return control(kSetXsave, const_cast<std::byte*>(area.data()), "KVM_SET_XSAVE");
}

Result<void> KvmVcpu::tell_stopped() const {
  if (::ioctl(fd_.get(), KVM_KVMCLOCK_CTRL, 0) < 0 && errno != EINVAL) {
    return fail_errno("KVM_KVMCLOCK_CTRL");
  }
  return {};
}

uint32_t KvmVcpu::tsc_khz() const {
  int khz = ::ioctl(fd_.get(), KVM_GET_TSC_KHZ, 0);
  return khz < 0 ? 0 : static_cast<uint32_t>(khz);
}

Result<void> KvmVm::control_raw(unsigned long request, const void* argument,
                                const char* name) const {
  if (::ioctl(fd_.get(), request, argument) < 0) return fail_errno(name);
  return {};
}

Result<void> KvmVm::set_memory(uint32_t slot, Gpa gpa, std::byte* host, uint64_t bytes,
                               uint32_t flags) const {
  kvm_userspace_memory_region region{};
  region.slot = slot;
  region.flags = flags;
  region.guest_phys_addr = gpa.value;
  region.memory_size = bytes;
  region.userspace_addr = reinterpret_cast<uint64_t>(host);
  return control(KVM_SET_USER_MEMORY_REGION, &region, "KVM_SET_USER_MEMORY_REGION");
}

Result<void> KvmVm::enable_manual_dirty_log(bool all_at_first) const {
  uint64_t flags = KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE;
  if (all_at_first) flags |= KVM_DIRTY_LOG_INITIALLY_SET;
  return enable(KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2, flags,
                "KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2 (Linux 5.7 or newer)");
}

Result<void> KvmVm::enable(uint32_t capability, uint64_t argument, const char* name) const {
  kvm_enable_cap cap{};
  cap.cap = capability;
  cap.args[0] = argument;
  return control(KVM_ENABLE_CAP, &cap, name);
}

Result<void> KvmVm::get_dirty_log(uint32_t slot, std::span<uint64_t> bitmap) const {
  kvm_dirty_log log{};
  log.slot = slot;
  log.dirty_bitmap = bitmap.data();
  return control(KVM_GET_DIRTY_LOG, &log, "KVM_GET_DIRTY_LOG");
}

Result<void> KvmVm::clear_dirty_log(uint32_t slot, uint64_t first, uint32_t pages,
                                    std::span<const uint64_t> bits) const {
  assert(first % 64 == 0 && bits.size() * 64 >= pages);
  kvm_clear_dirty_log log{};
  log.slot = slot;
  log.first_page = first;
  log.num_pages = pages;
  log.dirty_bitmap = const_cast<uint64_t*>(bits.data());  // read only by the kernel
  return control(KVM_CLEAR_DIRTY_LOG, &log, "KVM_CLEAR_DIRTY_LOG");
}

Result<void> KvmVm::create_irqchip() const {
  return control_raw(KVM_CREATE_IRQCHIP, nullptr, "KVM_CREATE_IRQCHIP");
}

Result<void> KvmVm::set_identity_map(Gpa identity_map, Gpa tss) const {
  TRY(control(KVM_SET_IDENTITY_MAP_ADDR, &identity_map.value, "KVM_SET_IDENTITY_MAP_ADDR"));
  // This one takes its argument by value.
  if (::ioctl(fd_.get(), KVM_SET_TSS_ADDR, tss.value) < 0) return fail_errno("KVM_SET_TSS_ADDR");
  return {};
}

Result<KvmVcpu> KvmVm::create_vcpu(uint32_t id) const {
  base::Fd fd(::ioctl(fd_.get(), KVM_CREATE_VCPU, id));
  if (!fd) return fail_errno("KVM_CREATE_VCPU " + std::to_string(id));
  TRY_ASSIGN(base::Mapping run, base::Mapping::shared(fd.get(), run_bytes_));
  return KvmVcpu(std::move(fd), std::move(run));
}

Result<void> KvmVm::set_irq_line(uint32_t gsi, bool high) const {
  kvm_irq_level level{};
  level.irq = gsi;
  level.level = high;
  return control(KVM_IRQ_LINE, &level, "KVM_IRQ_LINE");
}

Result<void> KvmVm::set_routing(const std::vector<kvm_irq_routing_entry>& entries) const {
  Counted<kvm_irq_routing_entry> table(entries);
  return control(kSetGsiRouting, table.header(), "KVM_SET_GSI_ROUTING");
}

Result<void> KvmVm::set_irqfd(const base::EventFd& event, uint32_t gsi, bool attach) const {
  kvm_irqfd irqfd{};
  irqfd.fd = static_cast<uint32_t>(event.fd());
  irqfd.gsi = gsi;
  irqfd.flags = attach ? 0 : KVM_IRQFD_FLAG_DEASSIGN;
  return control(KVM_IRQFD, &irqfd, "KVM_IRQFD");
}

Result<void> KvmVm::set_ioeventfd(const base::EventFd& event, Gpa address, bool attach) const {
  kvm_ioeventfd ioeventfd{};
  ioeventfd.fd = event.fd();
  ioeventfd.addr = address.value;
  ioeventfd.len = 0;  // any width (KVM_CAP_IOEVENTFD_ANY_LENGTH)
  ioeventfd.flags = attach ? 0 : KVM_IOEVENTFD_FLAG_DEASSIGN;
  return control(KVM_IOEVENTFD, &ioeventfd, "KVM_IOEVENTFD");
}

int KvmVm::capability(long name) const {
  int value = ::ioctl(fd_.get(), KVM_CHECK_EXTENSION, name);
  return value < 0 ? 0 : value;
}

Result<Kvm> Kvm::open(const std::string& path) {
  base::Fd fd(::open(path.c_str(), O_RDWR | O_CLOEXEC));
  if (!fd) {
    switch (errno) {
      case ENOENT:
        return fail(path +
                    ": no such device: load the module (modprobe kvm_intel or kvm_amd), or enable "
                    "virtualisation in the firmware; `minivmm doctor` says more");
      case EACCES:
        return fail(path +
                    ": permission denied: add yourself to group kvm (usermod -aG kvm $USER) "
                    "and log in again");
      default:
        return fail_errno("open " + path);
    }
  }
  int version = ::ioctl(fd.get(), KVM_GET_API_VERSION, 0);
  if (version < 0) return fail(path + " is not a KVM device");
  if (version != KVM_API_VERSION) {
    return fail(path + ": KVM API version " + std::to_string(version) + ", needed is 12");
  }
  return Kvm(std::move(fd));
}

int Kvm::capability(long name) const {
  int value = ::ioctl(fd_.get(), KVM_CHECK_EXTENSION, name);
  return value < 0 ? 0 : value;
}

Result<KvmVm> Kvm::create_vm() const {
  int run_bytes = ::ioctl(fd_.get(), KVM_GET_VCPU_MMAP_SIZE, 0);
  if (run_bytes < static_cast<int>(sizeof(kvm_run))) return fail_errno("KVM_GET_VCPU_MMAP_SIZE");
  int fd;
  // A signal that is pending while the kernel sets up its MMU notifier makes this fail with EINTR.
  do {
    fd = ::ioctl(fd_.get(), KVM_CREATE_VM, 0);
  } while (fd < 0 && errno == EINTR);
  if (fd < 0) return fail_errno("KVM_CREATE_VM");
  return KvmVm(base::Fd(fd), static_cast<uint64_t>(run_bytes));
}

Result<std::vector<kvm_cpuid_entry2>> Kvm::supported_cpuid() const {
  static std::mutex mutex;
  static std::vector<kvm_cpuid_entry2> known;
  std::lock_guard lock(mutex);
  if (!known.empty()) return known;
  constexpr size_t kMaxEntries = 256;
  Counted<kvm_cpuid_entry2> table(kMaxEntries);
  if (::ioctl(fd_.get(), kGetSupportedCpuid, table.header()) < 0) {
    return fail_errno("KVM_GET_SUPPORTED_CPUID");
  }
  known.assign(table.entries(), table.entries() + table.header()->count);
  return known;
}

Result<std::vector<uint32_t>> Kvm::msr_indices() const {
  constexpr uint32_t kMaxIndices = 1024;
  std::vector<uint32_t> list(1 + kMaxIndices);  // kvm_msr_list: the count, then the indices
  list[0] = kMaxIndices;
  if (::ioctl(fd_.get(), kGetMsrIndexList, list.data()) < 0) {
    return fail_errno("KVM_GET_MSR_INDEX_LIST");
  }
  return std::vector(list.begin() + 1, list.begin() + 1 + list[0]);
}

}  // namespace vmm
