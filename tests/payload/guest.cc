#include "tests/payload/guest.h"

#include <poll.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <thread>
#include <utility>

#include "vmm/cpu_features.h"

namespace payload_test {

using base::Result;
using Clock = std::chrono::steady_clock;

std::optional<std::string> cannot_run() {
  auto kvm = vmm::Kvm::open();
  if (kvm) return {};
  return kvm.error().text();
}

Result<std::unique_ptr<Guest>> Guest::create(const Options& options, Disks disks) {
  std::unique_ptr<Guest> guest(new Guest());
  TRY_ASSIGN(guest->machine_, vmm::Machine::create({.memory_bytes = options.memory_bytes,
                                                    .cpus = options.cpus,
                                                    .log_from_start = options.log_from_start}));
  TRY(guest->add_devices(options, std::move(disks)));
  vmm::boot::KernelSpec kernel;
  const std::string& directory = options.payload_directory;
  kernel.kernel_path =
      (directory.empty() ? MINIVMM_PAYLOAD_DIRECTORY : directory) + "/" + options.payload + ".elf";
  kernel.command_line = options.command_line;
  TRY_ASSIGN(vmm::boot::Entry entry,
             vmm::boot::load_kernel(guest->machine_->memory(), kernel, vmm::Gpa{0}));
  TRY(guest->machine_->boot(entry));
  return guest;
}

Result<std::unique_ptr<Guest>> Guest::restore(const Options& options, base::SectionReader sections,
                                              const Fill& fill, Disks disks) {
  std::unique_ptr<Guest> guest(new Guest());
  TRY_ASSIGN(auto cpuid, vmm::take_cpuid(sections));
  TRY_ASSIGN(guest->machine_, vmm::Machine::create({.memory_bytes = options.memory_bytes,
                                                    .cpus = options.cpus,
                                                    .log_from_start = true,
                                                    .cpuid = std::move(cpuid)}));
  TRY_ASSIGN(guest->pager_, fill(guest->machine_->memory()));
  TRY(guest->add_devices(options, std::move(disks)));
  TRY(guest->machine_->load_state(sections));
  TRY(guest->machine_->set_state(vmm::ClockPolicy::kContinue));
  guest->platform_->freeze();
  auto restored = guest->platform_->restore(sections);
  guest->platform_->thaw();
  TRY(restored);
  TRY(sections.finish());
  return guest;
}

Result<void> Guest::add_devices(const Options& options, Disks disks) {
  devices::PlatformConfig config;
  config.disks = std::move(disks);
  config.rng = options.rng;
  TRY_ASSIGN(platform_, devices::Platform::create(*machine_, std::move(config)));
  if (options.devices_begin) TRY(platform_->begin());
  console_ = base::Fd(::memfd_create("console", MFD_CLOEXEC));
  TRY_ASSIGN(serial_output_, devices::SerialOutput::start(platform_->serial(), console_.get()));
  return {};
}

Guest::~Guest() {
  if (machine_) machine_->halt_threads();
}

std::optional<vmm::StopReason> Guest::wait(std::chrono::seconds limit) {
  pollfd stopped{machine_->stopped().fd(), POLLIN, 0};
  auto end = Clock::now() + limit;
  while (!machine_->stop_reason()) {
    auto left = std::chrono::duration_cast<std::chrono::milliseconds>(end - Clock::now()).count();
    if (left <= 0) return {};
    ::poll(&stopped, 1, static_cast<int>(left));
  }
  return machine_->stop_reason();
}

std::string Guest::wait_for_output(const std::string& text, std::chrono::seconds limit) {
  auto end = Clock::now() + limit;
  for (;;) {
    std::string now = output();
    if (now.find(text) != std::string::npos || Clock::now() > end) return now;
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
}

std::string Guest::output() const {
  struct stat info{};
  if (::fstat(console_.get(), &info) < 0) return "";
  std::string text(static_cast<size_t>(info.st_size), '\0');
  ssize_t got = ::pread(console_.get(), text.data(), text.size(), 0);
  text.resize(got < 0 ? 0 : static_cast<size_t>(got));
  return text;
}

std::string Guest::all_output() {
  serial_output_.reset();
  return output();
}

void Guest::type(const std::string& text) {
  platform_->serial().push_input({reinterpret_cast<const uint8_t*>(text.data()), text.size()});
}

std::string field(const std::string& output, const std::string& key) {
  size_t at = output.find(" " + key + "=");
  if (at == std::string::npos) return "";
  at += key.size() + 2;
  return output.substr(at, output.find_first_of(" \r\n", at) - at);
}

}  // namespace payload_test
