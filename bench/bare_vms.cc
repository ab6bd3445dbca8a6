// What KVM itself takes of the host's memory: machines with nothing but a slot of RAM, interrupt
// chips and a vCPU, none of which runs.
//
//   bare_vms COUNT MIB
//
// Prints "ready", and keeps them until its input ends.
#include <fcntl.h>
#include <linux/kvm.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>

namespace {

void check(long result, const char* what) {
  if (result >= 0) return;
  std::perror(what);
  std::exit(1);
}

// As Machine::create() does it: one slot where RAM ends below 3 GiB.
void make_vm(int kvm, size_t bytes) {
  const int vm = ioctl(kvm, KVM_CREATE_VM, 0);
  check(vm, "KVM_CREATE_VM");
  void* ram = mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (ram == MAP_FAILED) check(-1, "mmap");
  kvm_userspace_memory_region slot{.slot = 0,
                                   .flags = KVM_MEM_LOG_DIRTY_PAGES,  // a clone logs from its start
                                   .guest_phys_addr = 0,
                                   .memory_size = bytes,
                                   .userspace_addr = reinterpret_cast<uint64_t>(ram)};
  check(ioctl(vm, KVM_SET_USER_MEMORY_REGION, &slot), "KVM_SET_USER_MEMORY_REGION");
  check(ioctl(vm, KVM_CREATE_IRQCHIP, 0), "KVM_CREATE_IRQCHIP");
  check(ioctl(vm, KVM_CREATE_VCPU, 0), "KVM_CREATE_VCPU");
}

}  // namespace

int main(int argc, char** argv) {
  const long count = argc == 3 ? std::atol(argv[1]) : 0, mib = argc == 3 ? std::atol(argv[2]) : 0;
  if (count < 1 || mib < 1 || mib > 3072) {
    std::fputs("usage: bare_vms COUNT MIB (at most 3072)\n", stderr);
    return 2;
  }
  const int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
  check(kvm, "/dev/kvm");
  for (long i = 0; i < count; ++i) make_vm(kvm, static_cast<size_t>(mib) << 20);
  std::puts("ready");
  std::fflush(stdout);
  char byte = 0;
  while (read(STDIN_FILENO, &byte, 1) > 0) {
  }
}
