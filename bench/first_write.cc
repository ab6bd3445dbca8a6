// What dirty tracking costs the guest: its first write to a page after the log was cleared of it,
// and what it gets done while it writes 10,000 pages a second. Beside it a bare machine, which is
// KVM's own calls and nothing else, with its log cleared in one call: the floor. And one whose log
// is KVM's dirty ring, where there is one (api.rst, 8.29 KVM_CAP_DIRTY_LOG_RING).
//
//   first_write PAYLOADS [--size MIB] [--runs N] [--json]
//
// The guest is the jitter payload (guest-images/payloads).
#include <fmt/format.h>
#include <sys/ioctl.h>

#include <algorithm>
#include <atomic>
#include <charconv>
#include <chrono>
#include <cstdlib>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "tests/payload/guest.h"
#include "vmm/boot/kernel.h"
#include "vmm/cpuid.h"
#include "vmm/kvm.h"

namespace {

using namespace std::chrono_literals;
using vmm::DirtyLog;

template <typename T>
T value_of(base::Result<T> result) {
  if (result) return std::move(*result);
  fmt::print(stderr, "first_write: {}\n", result.error().text());
  std::exit(1);
}
void check(const base::Result<void>& result) {
  if (result) return;
  fmt::print(stderr, "first_write: {}\n", result.error().text());
  std::exit(1);
}

// A machine that runs the payload: what it prints, what is typed, its log.
class Subject {
 public:
  virtual ~Subject() = default;
  virtual std::string output() = 0;
  virtual void type(char command) = 0;
  virtual void start_log() = 0;
  virtual void clear_log() = 0;
  // Pages that were not cleared stay written to: not in a ring, which has to be emptied.
  virtual bool stays_dirty() const { return true; }

  // The line of the answer to a command, from `word` on; the next one that was not seen yet.
  std::string answer(char command, const std::string& word) {
    type(command);
    return wait_for(word);
  }
  std::string wait_for(const std::string& word) {
    for (;;) {
      std::string all = output();
      size_t at = all.find(word, seen_);
      size_t end = at == std::string::npos ? at : all.find('\n', at);
      if (end != std::string::npos) {
        seen_ = end;
        return all.substr(at, end - at);
      }
      std::this_thread::sleep_for(2ms);
    }
  }

 private:
  size_t seen_ = 0;
};

double number(const std::string& line, const std::string& key) {
  return std::strtod(payload_test::field(line, key).c_str(), nullptr);
}

class Ours : public Subject {
 public:
  Ours(const std::string& payloads, const std::string& command_line, uint64_t bytes)
      : guest_(value_of(payload_test::Guest::create({.payload = "jitter",
                                                     .command_line = command_line,
                                                     .memory_bytes = bytes,
                                                     .payload_directory = payloads}))),
        bitmap_(log().words()) {
    guest_->machine().run();
  }
  std::string output() override { return guest_->output(); }
  void type(char command) override { guest_->type(std::string(1, command)); }
  void start_log() override { check(log().start()); }
  void clear_log() override {
    check(log().fetch(bitmap_));
    for (uint64_t first = 0; first < log().pages(); first += DirtyLog::kMostPages) {
      uint64_t count = std::min(DirtyLog::kMostPages, log().pages() - first);
      check(log().clear(first, count, std::span(bitmap_).subspan(first / 64)));
    }
  }

 private:
  DirtyLog& log() { return guest_->machine().dirty_log(); }
  std::unique_ptr<payload_test::Guest> guest_;
  std::vector<uint64_t> bitmap_;
};

// One slot, one vCPU, and of devices what the payload's serial driver looks at.
class Bare : public Subject {
 public:
  Bare(const std::string& payloads, const std::string& command_line, uint64_t bytes, bool ring)
      : kvm_(value_of(vmm::Kvm::open())),
        vm_(value_of(kvm_.create_vm())),
        memory_(value_of(vmm::GuestMemory::create(bytes))),
        bitmap_(bytes >> vmm::kPageShift >> 6) {
    if (ring) {
      check(vm_.enable(KVM_CAP_DIRTY_LOG_RING, kRingEntries * sizeof(kvm_dirty_gfn),
                       "KVM_CAP_DIRTY_LOG_RING"));
    } else {
      check(vm_.enable_manual_dirty_log(true));
    }
    set_slot(0);
    check(vm_.create_irqchip());
    vcpu_.emplace(value_of(vm_.create_vcpu(0)));
    if (ring) {
      ring_ = value_of(base::Mapping::shared(vcpu_->fd(), kRingEntries * sizeof(kvm_dirty_gfn),
                                             KVM_DIRTY_LOG_PAGE_OFFSET * vmm::kPageSize));
    }
    check(vcpu_->set_cpuid(vmm::make_cpuid(value_of(kvm_.supported_cpuid()),
                                           {.cpus = 1, .tsc_khz = vcpu_->tsc_khz()})));
    vmm::boot::KernelSpec kernel{
        .kernel_path = payloads + "/jitter.elf", .initrd_path = {}, .command_line = command_line};
    auto entry = value_of(vmm::boot::load_kernel(*memory_, kernel, vmm::Gpa{0}));
    kvm_regs regs{};
    kvm_sregs sregs{};
    check(vcpu_->control(KVM_GET_REGS, &regs, "KVM_GET_REGS"));
    check(vcpu_->control(KVM_GET_SREGS, &sregs, "KVM_GET_SREGS"));
    vmm::boot::set_entry_registers(entry, regs, sregs);
    check(vcpu_->control(KVM_SET_SREGS, &sregs, "KVM_SET_SREGS"));
    check(vcpu_->control(KVM_SET_REGS, &regs, "KVM_SET_REGS"));
    thread_ = std::thread([this] { run(); });
  }
  ~Bare() override {
    type('q');  // which ends the payload
    thread_.join();
  }
  std::string output() override {
    std::lock_guard lock(mutex_);
    return output_;
  }
  void type(char command) override { typed_ = command; }
  void start_log() override { set_slot(KVM_MEM_LOG_DIRTY_PAGES); }
  bool stays_dirty() const override { return ring_.size() == 0; }
  void clear_log() override {
    if (ring_.size() > 0) return empty_ring();
    check(vm_.get_dirty_log(0, bitmap_));
    check(vm_.clear_dirty_log(0, 0, static_cast<uint32_t>(bitmap_.size() * 64), bitmap_));
  }

 private:
  static constexpr uint16_t kSerial = 0x3F8, kExit = 0xF4;
  static constexpr uint32_t kRingEntries = 65536;  // the most that KVM takes
  void empty_ring() {
    std::lock_guard lock(ring_mutex_);
    auto* entries = reinterpret_cast<kvm_dirty_gfn*>(ring_.data());
    for (;; ++ring_next_) {
      std::atomic_ref flags(entries[ring_next_ % kRingEntries].flags);
      if ((flags.load(std::memory_order_acquire) & KVM_DIRTY_GFN_F_DIRTY) == 0) break;
      flags.store(KVM_DIRTY_GFN_F_RESET, std::memory_order_release);
    }
    if (::ioctl(vm_.fd(), KVM_RESET_DIRTY_RINGS) < 0) {
      check(base::fail_errno("KVM_RESET_DIRTY_RINGS"));
    }
  }
  void set_slot(uint32_t flags) {
    const auto& region = memory_->regions()[0];
    check(vm_.set_memory(0, region.start, region.host, region.size, flags));
  }
  void run() {
    for (;;) {
      int error = vcpu_->enter();
      kvm_run& run = vcpu_->run();
      if (error == EINTR) continue;
      if (error == 0 && run.exit_reason == KVM_EXIT_DIRTY_RING_FULL) {
        empty_ring();
        continue;
      }
      if (error != 0 || run.exit_reason != KVM_EXIT_IO || run.io.port == kExit) return;
      auto* data = reinterpret_cast<uint8_t*>(&run) + run.io.data_offset;
      for (uint32_t i = 0; i < run.io.count * run.io.size; ++i) {
        if (run.io.direction == KVM_EXIT_IO_IN) {
          data[i] = read(run.io.port);
        } else if (run.io.port == kSerial) {
          std::lock_guard lock(mutex_);
          output_ += static_cast<char>(data[i]);
        }
      }
    }
  }
  uint8_t read(uint16_t port) {
    if (port == kSerial) return static_cast<uint8_t>(typed_.exchange(0));
    if (port == kSerial + 5) return static_cast<uint8_t>(0x60 | (typed_ != 0 ? 1 : 0));
    return 0;
  }

  vmm::Kvm kvm_;
  vmm::KvmVm vm_;
  std::unique_ptr<vmm::GuestMemory> memory_;
  std::optional<vmm::KvmVcpu> vcpu_;
  std::vector<uint64_t> bitmap_;
  base::Mapping ring_;
  std::mutex ring_mutex_;
  uint32_t ring_next_ = 0;
  std::mutex mutex_;
  std::string output_;
  std::atomic<char> typed_ = 0;
  std::thread thread_;
};

struct Figures {
  std::vector<double> first_write_ns;  // more than a write to a page that is dirty already
  double untracked_ns = 0, dirty_ns = 0;
  double work = 0;      // iterations while tracked, to those while not
  double clear_us = 0;  // of 1,000 pages
};

double median(std::vector<double> values) {
  std::ranges::sort(values);
  return values[values.size() / 2];
}

// Iterations of the payload's loop in a second in which it writes 10,000 pages.
double work_in_a_second(Subject& subject, std::vector<double>* clear_us) {
  subject.answer('c', "cleared tsc=");
  for (int i = 0; i < 10; ++i) {
    std::this_thread::sleep_for(100ms);
    if (clear_us == nullptr) continue;
    auto start = std::chrono::steady_clock::now();
    subject.clear_log();
    clear_us->push_back(
        std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now() - start)
            .count());
  }
  std::string report = subject.answer('r', "report n=");
  subject.wait_for("jitter: end n=");
  return number(report, "iterations") / number(report, "ns") * 1e9;
}

Figures measure(Subject& subject, int runs) {
  Figures figures;
  subject.wait_for("jitter: filled");
  auto pass = [&] {
    std::string line = subject.answer('w', "rewrote pages=");
    return number(" " + line, "ns") / std::strtod(line.c_str() + line.find('=') + 1, nullptr);
  };
  auto passes = [&](bool clear) {
    std::vector<double> times;
    for (int i = 0; i < runs; ++i) {
      if (clear) subject.clear_log();
      times.push_back(pass());
    }
    return times;
  };
  pass();
  figures.untracked_ns = median(passes(false));
  std::vector<double> plain, tracked;
  for (int i = 0; i < runs; ++i) plain.push_back(work_in_a_second(subject, nullptr));
  subject.start_log();
  subject.clear_log();
  pass();
  figures.dirty_ns = subject.stays_dirty() ? median(passes(false)) : figures.untracked_ns;
  for (double ns : passes(true)) figures.first_write_ns.push_back(ns - figures.dirty_ns);
  std::vector<double> clear_us;
  for (int i = 0; i < runs; ++i) tracked.push_back(work_in_a_second(subject, &clear_us));
  figures.clear_us = median(clear_us);
  figures.work = median(tracked) / median(plain);
  return figures;
}

void print(const char* name, const Figures& figures, bool json) {
  auto [least, most] = std::ranges::minmax(figures.first_write_ns);
  if (json) {
    fmt::print(R"({{"name":"{}","first_write_ns":{:.1f},"least":{:.1f},"most":{:.1f},)"
               R"("untracked_ns":{:.1f},"dirty_ns":{:.1f},"work":{:.4f},"clear_us":{:.1f}}})"
               "\n",
               name, median(figures.first_write_ns), least, most, figures.untracked_ns,
               figures.dirty_ns, figures.work, figures.clear_us);
    return;
  }
  fmt::print(
      "{:20} first write after a clear {:6.0f} ns ({:.0f} to {:.0f}), to a dirty page {:.1f}, "
      "never "
      "tracked {:.1f}; work done at 10,000 pages/s {:.3f}; clear of 1,000 pages {:.0f} us\n",
      name, median(figures.first_write_ns), least, most, figures.dirty_ns, figures.untracked_ns,
      figures.work, figures.clear_us);
}

}  // namespace

int main(int argc, char** argv) {
  uint64_t size = 256;
  int runs = 5;
  bool json = false;
  for (int i = 2; i < argc; ++i) {
    std::string_view option = argv[i];
    if (option == "--json") {
      json = true;
    } else if (option == "--size" && i + 1 < argc) {
      size = std::strtoull(argv[++i], nullptr, 10);
    } else if (option == "--runs" && i + 1 < argc) {
      runs = std::atoi(argv[++i]);
    } else {
      argc = 1;
    }
  }
  if (argc < 2 || size < 1 || size > 1024 || runs < 1) {
    fmt::print(stderr, "usage: first_write PAYLOADS [--size MIB] [--runs N] [--json]\n");
    return 2;
  }
  std::string command_line = fmt::format("size={}M rate=10000 poll=2", size);
  uint64_t bytes = (size + 64) << 20;
  {
    Ours ours(argv[1], command_line, bytes);
    print("minivmm", measure(ours, runs), json);
  }
  for (bool ring : {false, true}) {
    if (ring && value_of(vmm::Kvm::open()).capability(KVM_CAP_DIRTY_LOG_RING) <= 0) break;
    Bare bare(argv[1], command_line, bytes, ring);
    print(ring ? "bare KVM, dirty ring" : "bare KVM", measure(bare, runs), json);
  }
}
