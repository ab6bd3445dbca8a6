#include "cli/run.h"

#include "cli/foreground.h"
#include "cli/machine_process.h"
#include "cli/runtime_dir.h"
#include "cli/vm_registry.h"
#include "vmm/acpi/tables.h"
#include "vmm/boot/kernel.h"
#include "vmm/machine.h"

namespace cli {

using base::Result;

namespace {

Result<void> load_guest(vmm::Machine& machine, const RunOptions& options) {
  TRY_ASSIGN(vmm::Gpa rsdp, vmm::acpi::write_tables(machine.memory(), {.cpus = options.cpus}));
  vmm::boot::KernelSpec spec;
  spec.kernel_path = options.kernel;
  if (!options.initrd.empty()) spec.initrd_path = options.initrd;
  spec.command_line = guest_command_line(options);
  spec.boot_path = options.boot;
  TRY_ASSIGN(vmm::boot::Entry entry, vmm::boot::load_kernel(machine.memory(), spec, rsdp));
  return machine.boot(entry);
}

Result<void> assemble(MachineProcess& process, const RunOptions& options, Foreground& foreground) {
  TRY_ASSIGN(process.console,
             GuestConsole::create(options.console, [&foreground] { foreground.input_room(); }));
  TRY_ASSIGN(process.machine,
             vmm::Machine::create({.memory_bytes = options.memory_bytes, .cpus = options.cpus}));
  if (!options.snapshots.store.empty()) {
    TRY_ASSIGN(process.store, snapshot::Store::open_or_create(options.snapshots.store));
    TRY_ASSIGN(process.branch, process.store->create_branch(std::nullopt, options.name));
  }
  TRY_ASSIGN(MachineDisks disks,
             open_disks(options, process.store.get(), std::ref(process.disk_full)));
  TRY(make_platform(process, options, std::move(disks.devices)));
  TRY_ASSIGN(process.guest,
             snapshot::MachineGuest::create(*process.machine, *process.platform,
                                            std::move(disks.layered), std::move(disks.described)));
  return load_guest(*process.machine, options);
}

}  // namespace

Result<int> run_machine(const RunOptions& asked) {
  // First of all: it blocks the signals it waits for.
  TRY_ASSIGN(auto foreground, Foreground::create());
  TRY_ASSIGN(std::string directory, prepare_runtime_dir());
  TRY_ASSIGN(VmName name, VmName::claim(directory, asked.name, asked.api_socket));
  RunOptions options = asked;
  options.name = name.name();
  options.api_socket = name.socket();
  MachineProcess process;
  // Which may be impossible, before anything else: nobody can connect yet.
  TRY_ASSIGN(auto listener, base::UnixListener::bind(options.api_socket));
  process.listener.emplace(std::move(listener));
  TRY(assemble(process, options, *foreground));
  TRY(process.listener->listen());
  let_guest_run(process);
  serve_running(process, options);
  return report_end(stay_with(process, options, *foreground));
}

}  // namespace cli
