// The least that a restored machine can be on this host: a program that makes KVM's calls for one
// vCPU, one after the other, serves the missing pages of its memory from a file through
// userfaultfd, and enters the guest. No store, no checksums, no devices, no commands. What
// `minivmm restore` takes stands beside what this takes.
//
//   bare_restore MIB FILE
//
// Linked with bench/kvm_times.cc, which tells when the guest was entered; then it stays.
#include <fcntl.h>
#include <poll.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <thread>

#include "snapshot/userfault.h"
#include "vmm/cpuid.h"
#include "vmm/kvm.h"

namespace {

constexpr uint64_t kPage = 4096;
// Where the guest begins: `hlt` in real mode, as a page of the file would have it.
constexpr uint64_t kEntry = 0x1000;
constexpr unsigned char kHalt = 0xF4;

template <typename T>
T value_of(base::Result<T> result) {
  if (result) return std::move(*result);
  std::fprintf(stderr, "bare_restore: %s\n", result.error().text().c_str());
  std::exit(1);
}
void check(const base::Result<void>& result) {
  if (result) return;
  std::fprintf(stderr, "bare_restore: %s\n", result.error().text().c_str());
  std::exit(1);
}

// Each page that somebody waits for.
void serve(const snapshot::Userfault& userfault, std::byte* memory, int file) {
  alignas(kPage) static std::byte page[kPage];
  for (;;) {
    pollfd wait{userfault.fd(), POLLIN, 0};
    ::poll(&wait, 1, -1);
    auto event = value_of(userfault.next());
    if (event.kind != snapshot::Userfault::Event::Kind::kMissing) continue;
    if (::pread(file, page, kPage, event.address - memory) < 0) std::exit(1);
    value_of(userfault.copy(event.address, page, kPage));
  }
}

// The state of a vCPU, written as it is.
void set_state(const vmm::KvmVcpu& vcpu) {
  kvm_sregs sregs{};
  kvm_regs regs{};
  kvm_xcrs xcrs{};
  kvm_debugregs debug{};
  kvm_lapic_state lapic{};
  kvm_mp_state runnable{};
  kvm_vcpu_events events{};
  check(vcpu.control(KVM_GET_SREGS, &sregs, "KVM_GET_SREGS"));
  sregs.cs.base = sregs.cs.selector = 0;
  check(vcpu.control(KVM_SET_MP_STATE, &runnable, "KVM_SET_MP_STATE"));
  check(vcpu.control(KVM_SET_SREGS, &sregs, "KVM_SET_SREGS"));
  regs.rip = kEntry;
  regs.rflags = 2;
  check(vcpu.control(KVM_SET_REGS, &regs, "KVM_SET_REGS"));
  check(vcpu.control(KVM_GET_XCRS, &xcrs, "KVM_GET_XCRS"));
  check(vcpu.control(KVM_SET_XCRS, &xcrs, "KVM_SET_XCRS"));
  check(vcpu.control(KVM_SET_DEBUGREGS, &debug, "KVM_SET_DEBUGREGS"));
  check(vcpu.control(KVM_GET_LAPIC, &lapic, "KVM_GET_LAPIC"));
  check(vcpu.control(KVM_SET_LAPIC, &lapic, "KVM_SET_LAPIC"));
  check(vcpu.control(KVM_SET_VCPU_EVENTS, &events, "KVM_SET_VCPU_EVENTS"));
}

}  // namespace

int main(int argc, char** argv) {
  const uint64_t bytes = argc == 3 ? std::strtoull(argv[1], nullptr, 10) << 20 : 0;
  if (bytes == 0 || bytes > 3ull << 30) {
    std::fputs("usage: bare_restore MIB FILE (at most 3072)\n", stderr);
    return 2;
  }
  const int file = ::open(argv[2], O_RDONLY | O_CLOEXEC);
  if (file < 0) {
    std::perror(argv[2]);
    return 1;
  }
  auto kvm = value_of(vmm::Kvm::open());
  auto vm = value_of(kvm.create_vm());
  void* at = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (at == MAP_FAILED) {
    std::perror("mmap");
    return 1;
  }
  auto* memory = static_cast<std::byte*>(at);
  check(vm.enable_manual_dirty_log(false));
  check(vm.set_memory(0, vmm::Gpa{0}, memory, bytes, KVM_MEM_LOG_DIRTY_PAGES));
  check(vm.create_irqchip());
  auto vcpu = value_of(vm.create_vcpu(0));
  check(vcpu.set_cpuid(
      vmm::make_cpuid(value_of(kvm.supported_cpuid()), {.cpus = 1, .tsc_khz = vcpu.tsc_khz()})));
  auto userfault = value_of(snapshot::Userfault::create());
  check(userfault.watch(memory, bytes));
  std::thread pager([&] { serve(userfault, memory, file); });
  set_state(vcpu);
  memory[kEntry] = std::byte{kHalt};  // brought first
  std::thread guest([&] {
    while (vcpu.enter() == 0) {
    }
  });
  guest.join();
  ::pause();
}
