#include "cli/restore.h"

#include <fmt/format.h>
#include <unistd.h>

#include <array>
#include <cstdlib>

#include "cli/clone_set.h"
#include "cli/exit_status.h"
#include "cli/foreground.h"
#include "cli/machine_process.h"
#include "cli/runtime_dir.h"
#include "cli/saved_config.h"
#include "cli/vm_registry.h"
#include "snapshot/eager.h"
#include "snapshot/working_set.h"
#include "vmm/base/aside.h"
#include "vmm/base/log.h"
#include "vmm/cpu_features.h"
#include "vmm/layout.h"

namespace cli {

using base::fail;
using base::Result;

namespace {

// How long a restored machine's first faults are watched for what they tell of its working set: at
// most, and without any.
constexpr uint64_t kRecordMs = 3000, kRecordQuietMs = 100;

using SnapshotRef = std::shared_ptr<const snapshot::Snapshot>;

// What a restore has done on another CPU while it reads the store and makes the machine:
//
//   main thread   store, names ─┬─ KVM's memory ─ vCPUs, devices ─── state ─ guest runs
//   aside         KVM's VM ─────┴─ KVM's CPUID ─ a page that the host writes ─ the guest's faults
//
// CPUID and the page only fill what is asked again where it is needed, where errors are heard.

// In a VM this takes as long as making the guest's memory.
void learn_cpuid() {
  if (auto kvm = vmm::Kvm::open()) (void)kvm->supported_cpuid();
}

// Afterwards the generation id's page, and the index's way there, is in memory.
void read_generation_id(const snapshot::Snapshot& from) {
  const uint64_t page = vmm::layout::kGenerationId.gfn().value;  // of the first region of RAM
  std::array<std::byte, snapshot::kPageBytes> content;
  if (page < from.pages(snapshot::kRamSpace)) {
    (void)from.read_page(snapshot::kRamSpace, page, content);
  }
}

// What the snapshot says of the machine, with what the command line says of the host.
Result<RunOptions> merge(const RunOptions& saved, const RestoreOptions& asked) {
  RunOptions options = asked.host;
  options.kernel = "(restored)";
  options.memory_bytes = saved.memory_bytes;
  options.cpus = saved.cpus;
  options.rng = saved.rng;
  options.balloon = saved.balloon;
  options.console = saved.console;
  options.cmdline = saved.cmdline;
  if (options.name.empty()) options.name = saved.name;
  if (asked.host.disks.size() != saved.disks.size()) {
    return fail(
        fmt::format("the snapshot's machine has {} disks, {} are given: name the base image "
                    "of each with --disk, in the order they had",
                    saved.disks.size(), asked.host.disks.size()));
  }
  for (size_t i = 0; i < saved.disks.size(); ++i) {
    options.disks[i].read_only = saved.disks[i].read_only;
    options.disks[i].serial = saved.disks[i].serial;
  }
  if (asked.host.nets.size() > saved.nets.size()) {
    return fail(fmt::format("the snapshot's machine has {} networks, {} are given",
                            saved.nets.size(), asked.host.nets.size()));
  }
  options.nets = saved.nets;
  for (size_t i = 0; i < asked.host.nets.size(); ++i) {
    auto mac = asked.host.nets[i].mac ? asked.host.nets[i].mac : saved.nets[i].mac;
    options.nets[i] = asked.host.nets[i];
    options.nets[i].mac = mac;
  }
  for (size_t i = 0; i < options.nets.size(); ++i) {
    if (!saved.nets[i].was_tap || !options.nets[i].tap.empty()) continue;
    // What a tap offers to a driver, user mode may not have.
    base::log_warning(
        "network {} of the snapshot's machine was a tap: where its driver asks for what user mode "
        "does not offer, the restore fails, and needs --net tap=NAME",
        i);
  }
  options.vsock = saved.vsock;
  if (options.vsock && asked.vsock_path.empty()) {
    return fail(
        "the snapshot's machine has a vsock: say where its socket goes, as in "
        "--vsock-path /tmp/vsock");
  }
  if ((asked.vsock_cid || !asked.vsock_path.empty()) && !options.vsock) {
    return fail("--vsock-cid, --vsock-path: the snapshot's machine has no vsock");
  }
  if (options.vsock) {
    options.vsock->path = asked.vsock_path;
    options.vsock->cid = asked.vsock_cid.value_or(options.vsock->cid);
  }
  options.snapshots.store = asked.snapshot.store;
  return options;
}

// From here on `memory` has what the snapshot has, whoever touches it.
Result<void> start_pager(MachineProcess& process, vmm::GuestMemory& memory, const SnapshotRef& from,
                         const RestoreOptions& asked, base::Aside& aside) {
  snapshot::Storage& storage = process.store->storage();
  snapshot::Pager::Options options;
  options.aside = &aside;
  options.working_set = snapshot::load_working_set(storage, from->id(), memory.ram_pages());
  // A machine that waits for `minivmm resume` would tell what its restore touches, and no more.
  if (options.working_set.empty() && !asked.paused) {
    options.record_ms = kRecordMs;
    options.record_quiet_ms = kRecordQuietMs;
    options.on_recorded = [&storage, id = from->id()](const std::vector<uint64_t>& pages) {
      if (auto saved = snapshot::save_working_set(storage, id, pages); !saved) {
        base::log_debug("the working set is not kept: {}", saved.error().text());
      }
    };
  }
  options.on_damage = [&process, socket = process.listener->path()](const base::Error& error) {
    std::string text = "the snapshot cannot be restored: " + error.text();
    if (process.complete) {
      return process.machine->stop({vmm::StopReason::Kind::kError, 0, std::move(text)});
    }
    // The main thread may wait for the very page, and would for ever.
    base::log_error("{}", text);
    ::unlink(socket.c_str());
    std::_Exit(kBadInput);
  };
  TRY_ASSIGN(process.pager, snapshot::Pager::start(memory, from, std::move(options)));
  return {};
}

// Everything that can be there before the guest's state is set.
Result<void> prepare(MachineProcess& process, vmm::EmptyVm vm,
                     std::shared_ptr<vmm::GuestMemory> memory, const SnapshotRef& from,
                     const RunOptions& options, base::SectionReader& sections) {
  TRY_ASSIGN(auto cpuid, vmm::take_cpuid(sections));
  TRY_ASSIGN(process.machine,
             vmm::Machine::create(
                 std::move(vm), std::move(memory),
                 {.cpus = options.cpus, .log_from_start = true, .cpuid = std::move(cpuid)}));
  TRY(process.machine->load_state(sections));
  TRY_ASSIGN(MachineDisks disks, open_restored_disks(options, *process.store, from, *process.branch,
                                                     std::ref(process.disk_full)));
  return make_platform(process, options, std::move(disks));
}

Result<void> set_state(MachineProcess& process, base::SectionReader& sections,
                       vmm::ClockPolicy clock) {
  TRY(process.machine->set_state(clock));
  process.platform->freeze();
  auto restored = process.platform->restore(sections);
  process.platform->thaw();
  TRY(restored);
  TRY(sections.finish());
  if (process.pager) {
    const vmm::Gfn gfn = vmm::layout::kGenerationId.gfn();
    if (auto page = process.machine->memory().ram_page(gfn)) {
      if (auto brought = process.pager->bring_now(*page); !brought) {
        return std::unexpected(brought.error().with("the snapshot cannot be restored"));
      }
    }
  }
  return process.platform->new_generation();
}

}  // namespace

Result<int> restore_machine(const RestoreOptions& asked) {
  TRY_ASSIGN(auto foreground, Foreground::create());
  std::shared_ptr<snapshot::Store> store = asked.store;
  SnapshotRef from = asked.from;
  // A clone has its snapshot, its memory and KVM's CPUID, and other clones want the other CPUs.
  const bool is_clone = from != nullptr;
  std::optional<base::Aside> aside;
  if (is_clone) {
    aside.emplace();
  } else {
    aside.emplace("restore-aside");
  }
  auto vm = aside->ask(vmm::EmptyVm::create);
  if (!is_clone) {
    aside->post(learn_cpuid);
    TRY_ASSIGN(store, snapshot::Store::open(asked.snapshot.store));
    TRY_ASSIGN(snapshot::Id id, store->resolve(asked.snapshot.id_prefix));
    TRY_ASSIGN(from, store->load(id));
    aside->post([store, from] { read_generation_id(*from); });
  }
  TRY_ASSIGN(RunOptions saved, parse_saved_config(from->manifest().config));
  TRY_ASSIGN(RunOptions options, merge(saved, asked));
  TRY_ASSIGN(std::string directory, prepare_runtime_dir());
  TRY_ASSIGN(VmName name, VmName::claim(directory, options.name, options.api_socket));
  options.name = name.name();
  options.api_socket = name.socket();
  // Outlives the pager, of which the machine knows nothing.
  std::shared_ptr<vmm::GuestMemory> memory;
  MachineProcess process;
  TRY(bind_socket(process, options.api_socket));
  process.store = std::move(store);
  TRY_ASSIGN(process.branch, snapshot::Branch::create(*process.store, from, options.name));
  TRY_ASSIGN(process.console,
             GuestConsole::create(options.console, [&foreground] { foreground->input_room(); }));
  TRY_ASSIGN(base::SectionReader sections, from->sections());
  TRY_ASSIGN(memory, vmm::GuestMemory::create(options.memory_bytes, asked.memory));
  TRY(snapshot::check_memory(*memory, *from));
  if (!is_clone && !asked.eager) TRY(start_pager(process, *memory, from, asked, *aside));
  aside->share_cpu();  // its answer is needed soon
  TRY_ASSIGN(vmm::EmptyVm empty, vm.get());
  aside.reset();
  if (!is_clone && asked.eager) TRY(snapshot::fill_memory(*memory, *process.store, *from));
  TRY(prepare(process, std::move(empty), memory, from, options, sections));
  if (asked.link != nullptr) {
    TRY_ASSIGN(bool wanted, asked.link->wait_to_begin(*foreground));
    if (!wanted) return kSuccess;
  }
  TRY(set_state(process, sections, asked.clock));
  TRY(process.listener->listen());  // which may fail: before the guest runs
  process.complete = true;
  if (asked.paused) {
    TRY(serve(process, options));
  } else {
    let_guest_run(process);
    serve_running(process, options);
  }
  if (asked.link != nullptr) asked.link->say_running();
  return report_end(stay_with(process, options, *foreground));
}

}  // namespace cli
