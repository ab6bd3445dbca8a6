// The ELF core of a Linux guest: gdb reads its registers and memory, and what crash does first with
// a core that has QEMU's notes (locate the kernel, by CR3 and the interrupt table) gives what the
// guest says of itself.

#include <elf.h>
#include <gtest/gtest.h>

#include <cstdio>
#include <cstring>
#include <fstream>
#include <map>
#include <regex>
#include <stdexcept>
#include <vector>

#include "snapshot/core_file.h"
#include "tests/linux/guest.h"
#include "tests/linux/vm_process.h"

namespace linux_tests {
namespace {

constexpr size_t kCpus = 2;

// A core as crash takes it: memory by physical address, the notes named "QEMU".
class Core {
 public:
  explicit Core(const std::string& path) : file_(path, std::ios::binary) {
    const auto header = at<Elf64_Ehdr>(0);
    for (unsigned i = 0; i < header.e_phnum; ++i) {
      const auto segment = at<Elf64_Phdr>(header.e_phoff + i * sizeof(Elf64_Phdr));
      if (segment.p_type == PT_LOAD) {
        loads_.push_back(segment);
      } else if (segment.p_type == PT_NOTE) {
        read_notes(segment.p_offset, segment.p_offset + segment.p_filesz);
      }
    }
  }
  const std::vector<snapshot::QemuCpuNote>& cpus() const { return cpus_; }

  template <typename T>
  T physical(uint64_t gpa) {
    for (const Elf64_Phdr& load : loads_) {
      if (gpa >= load.p_paddr && gpa + sizeof(T) <= load.p_paddr + load.p_filesz) {
        return at<T>(load.p_offset + gpa - load.p_paddr);
      }
    }
    throw std::runtime_error("the core has no memory at " + std::to_string(gpa));
  }

  // By the page tables of a processor (AMD64 manual vol. 2, 5.3).
  uint64_t translate(const snapshot::QemuCpuNote& cpu, uint64_t address) {
    constexpr uint64_t kLa57 = 1 << 12, kPresent = 1, kLarge = 1 << 7;
    constexpr uint64_t kFrame = 0x000F'FFFF'FFFF'F000;
    uint64_t table = cpu.cr[3] & kFrame;
    for (int level = cpu.cr[4] & kLa57 ? 4 : 3;; --level) {
      const int shift = 12 + 9 * level;
      const auto entry = physical<uint64_t>(table + (address >> shift & 511) * 8);
      if ((entry & kPresent) == 0) throw std::runtime_error("not mapped");
      const uint64_t inside = (uint64_t{1} << shift) - 1;
      if (level == 0 || (level < 3 && (entry & kLarge) != 0)) {
        return (entry & kFrame & ~inside) | (address & inside);
      }
      table = entry & kFrame;
    }
  }

 private:
  template <typename T>
  T at(uint64_t offset) {
    T value{};
    file_.seekg(static_cast<std::streamoff>(offset));
    file_.read(reinterpret_cast<char*>(&value), sizeof value);
    if (!file_) throw std::runtime_error("the core ends before " + std::to_string(offset));
    return value;
  }
  void read_notes(uint64_t offset, uint64_t end) {
    while (offset < end) {
      const auto note = at<Elf64_Nhdr>(offset);
      offset += sizeof note;
      const bool qemu =
          note.n_namesz == 5 && std::string(at<std::array<char, 5>>(offset).data()) == "QEMU";
      offset += (note.n_namesz + 3) / 4 * 4;
      if (qemu) cpus_.push_back(at<snapshot::QemuCpuNote>(offset));
      offset += (note.n_descsz + 3) / 4 * 4;
    }
  }

  std::ifstream file_;
  std::vector<Elf64_Phdr> loads_;
  std::vector<snapshot::QemuCpuNote> cpus_;
};

std::string output_of(const std::string& command) {
  FILE* pipe = ::popen((command + " 2>&1").c_str(), "r");
  if (pipe == nullptr) throw std::runtime_error("popen");
  std::string text;
  char chunk[4096];
  while (size_t count = std::fread(chunk, 1, sizeof chunk, pipe)) text.append(chunk, count);
  ::pclose(pipe);
  return text;
}

std::string hexadecimal(uint64_t number) {
  char text[20];
  std::snprintf(text, sizeof text, "%llx", static_cast<unsigned long long>(number));
  return text;
}

// A guest that waits, its core, and what it had said of itself.
class CoreTest : public ::testing::Test {
 protected:
  void SetUp() override {
    guest_.script(
        "grep -E ' (linux_banner|_text|_etext|idt_table|asm_exc_divide_error)$' /proc/kallsyms |"
        " sed 's/^/symbol=/'\n"
        "grep 'Kernel code' /proc/iomem | sed 's/^ */code=/'\n"
        "echo \"version=$(cat /proc/version)\"\n"
        "echo \"vmcoreinfo=$(cat /sys/kernel/vmcoreinfo)\"\n"
        "echo waiting; sleep 100000\n");
    VmProcess vm(guest_.run({"--cpus", std::to_string(kCpus), "--memory", "256M", "--store",
                             guest_.path("store"), "--name", "core"}));
    ASSERT_TRUE(vm.expect("waiting")) << vm.output();
    said_ = vm.output();
    Finished taken = run_minivmm({"snapshot", "core", "--stop"});
    ASSERT_EQ(taken.status, 0) << taken.output;
    vm.wait();
    Finished exported = run_minivmm({"export", guest_.path("store"), "--core", core_path_});
    ASSERT_EQ(exported.status, 0) << exported.output;
  }

  std::string match(const std::string& pattern) const {
    std::smatch found;
    if (std::regex_search(said_, found, std::regex(pattern))) return found[1];
    throw std::runtime_error(pattern + " is not in: " + said_);
  }
  uint64_t symbol(const std::string& name) const {
    return std::stoull(match("symbol=([0-9a-f]{16}) . " + name + "\\r?\\n"), nullptr, 16);
  }
  // Where the kernel is in physical memory: the guest's own resource map says it of _text.
  uint64_t physical(uint64_t address) const {
    return address - symbol("_text") + std::stoull(match("code=([0-9a-f]+)-"), nullptr, 16);
  }

  Guest guest_;
  const std::string core_path_ = guest_.path("core");
  std::string said_;
};

TEST_F(CoreTest, GdbReadsRegistersAndMemory) {
  std::string command = "gdb -nx -batch -ex 'set print elements 0' -ex 'info threads'";
  for (size_t cpu = 1; cpu <= kCpus; ++cpu) {
    command += " -ex 'thread " + std::to_string(cpu) +
               "' -ex 'printf \"rip=%lx rsp=%lx cs=%lx;\\n\", " +
               "(long)$rip, (long)$rsp, (long)$cs'";
  }
  command += " -ex 'x/s 0x" + hexadecimal(physical(symbol("linux_banner"))) + "'";
  // "VMCOREINFO" is the name of an ELF note (header of 12 bytes, name of 11 and one to fill).
  const uint64_t note = std::stoull(match("vmcoreinfo=0x([0-9a-f]+) "), nullptr, 16);
  command +=
      " -ex 'x/s 0x" + hexadecimal(note + 12) + "' -ex 'x/s 0x" + hexadecimal(note + 24) + "'";
  const std::string text = output_of(command + " -c " + core_path_);

  static const std::regex kRegisters("rip=([0-9a-f]+) rsp=([0-9a-f]+) cs=([0-9a-f]+);");
  size_t cpus = 0;
  for (std::sregex_iterator at(text.begin(), text.end(), kRegisters), end; at != end;
       ++at, ++cpus) {
    const uint64_t rip = std::stoull((*at)[1], nullptr, 16);
    // Nothing runs in the guest: its processors wait in the kernel, on a stack of the kernel's.
    EXPECT_GE(rip, symbol("_text")) << text;
    EXPECT_LT(rip, symbol("_etext")) << text;
    EXPECT_GE(std::stoull((*at)[2], nullptr, 16), 0xFF00'0000'0000'0000) << text;
    EXPECT_EQ((*at)[3], "10") << text;
  }
  EXPECT_EQ(cpus, kCpus) << text;
  EXPECT_NE(text.find("\"" + match("version=([^\\r\\n]+)")), std::string::npos) << text;
  EXPECT_NE(text.find("\"VMCOREINFO\""), std::string::npos) << text;
  EXPECT_NE(text.find("\"OSRELEASE=" + guest_.release() + "\\n"), std::string::npos) << text;
}

// crash takes the address of the handler of vector 0 out of the interrupt table to learn by how
// much the kernel was moved, and where the table is to learn where it is in physical memory
// (kaslr_helper.c).
TEST_F(CoreTest, TheKernelIsFoundByCr3AndInterruptTable) {
  Core core(core_path_);
  ASSERT_EQ(core.cpus().size(), kCpus);
  for (const snapshot::QemuCpuNote& cpu : core.cpus()) {
    const uint64_t table = core.translate(cpu, cpu.idt.base);
    EXPECT_EQ(table, physical(symbol("idt_table")));
    // A gate (AMD64 manual vol. 2, 4.8.4): the offset is in three pieces.
    const auto low = core.physical<uint64_t>(table), high = core.physical<uint64_t>(table + 8);
    const uint64_t handler = (low & 0xFFFF) | (low >> 48) << 16 | high << 32;
    EXPECT_EQ(hexadecimal(handler), hexadecimal(symbol("asm_exc_divide_error")));
    const uint64_t banner = symbol("linux_banner");
    EXPECT_EQ(core.translate(cpu, banner), physical(banner));
    // A processor of Linux has its own data at GS.
    const uint64_t gs = cpu.gs.base != 0 ? cpu.gs.base : cpu.kernel_gs_base;
    EXPECT_GE(gs, 0xFF00'0000'0000'0000) << hexadecimal(gs);
    EXPECT_NO_THROW(core.translate(cpu, gs));
  }
  EXPECT_NE(core.cpus()[0].gs.base, core.cpus()[1].gs.base);
}

}  // namespace
}  // namespace linux_tests
