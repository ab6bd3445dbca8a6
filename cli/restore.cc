#include "cli/restore.h"

#include <fmt/format.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cstdlib>

#include "cli/clone_set.h"
#include "cli/exit_status.h"
#include "cli/foreground.h"
#include "cli/machine_process.h"
#include "cli/runtime_dir.h"
#include "cli/saved_config.h"
#include "cli/terminal.h"
#include "cli/vm_registry.h"
#include "snapshot/eager.h"
#include "snapshot/working_set.h"
#include "vmm/base/aside.h"
#include "vmm/base/log.h"
#include "vmm/cpu_features.h"
#include "vmm/layout.h"
#include "vmm/machine_state.h"

namespace cli {

using base::fail;
using base::Result;

namespace {

// How long a restored machine's first faults are watched for what they tell of its working set: at
// most, and without any.
constexpr uint64_t kRecordMs = 3000, kRecordQuietMs = 100;

using SnapshotRef = std::shared_ptr<const snapshot::Snapshot>;

// Most of a restore is KVM's calls, each of which needs the one before. The rest goes on aside:
//
//   main thread   KVM's VM ─ (CPUID) ─┬─ KVM's memory ─ vCPUs ─┬─ devices ────┬─ state ─ guest runs
//   aside         store, memory ──────┴─ CPUID, names, a page ─┴─ MachineState ┴─ guest's faults
//
// CPUID, which the main thread asks for where the disk keeps it waiting, and the generation id's
// page only fill what is asked again where it is needed, where errors are heard.

// What the two threads, and the pager's, tell each other beside their answers.
struct Told {
  std::atomic<bool> loaded = false;  // the snapshot: nothing more waits for the disk
  std::string socket;                // the control socket's file; of the aside
  // What the process ends with where memory cannot be brought: before the guest may run, while it
  // may, and once the machine has ended.
  std::atomic<int> status = kBadInput;
};

// What the store says of the machine, and what is made of it at once.
struct Source {
  std::shared_ptr<snapshot::Store> store;
  SnapshotRef from;
  RunOptions options;
  base::SectionReader sections;
  std::shared_ptr<vmm::GuestMemory> memory;
  std::unique_ptr<snapshot::Pager> pager;  // null: the memory is there, or will be
};

// What others see of the machine.
struct Place {
  VmName name;
  base::UnixListener listener;
  std::unique_ptr<snapshot::Branch> branch;
  std::unique_ptr<GuestConsole> console;
};

// In a VM this takes as long as making the guest's memory.
void learn_cpuid() {
  if (auto kvm = vmm::Kvm::open()) (void)kvm->supported_cpuid();
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

// The process ends here and now: whoever waits for a page that will never come waits for ever, the
// main thread, a device's, or a vCPU, which before Linux 6.2 nothing but the end of its process
// gets out of KVM_RUN.
[[noreturn]] void leave_damaged(const Told& told, const base::Error& error) {
  base::log_error("the snapshot cannot be restored: {}", error.text());
  ::unlink(told.socket.c_str());
  Terminal::leave();
  std::_Exit(told.status);
}

// Has, when it begins, what the snapshot has, whoever touches the memory.
Result<std::unique_ptr<snapshot::Pager>> make_pager(const Told& told, vmm::GuestMemory& memory,
                                                    const SnapshotRef& from) {
  return snapshot::Pager::create(memory, from,
                                 [&told](const base::Error& error) { leave_damaged(told, error); });
}

// What the pager brings before anybody waits for it: the working set, where it is known.
snapshot::Pager::Ahead pages_ahead(snapshot::Storage& storage, const snapshot::Id& id,
                                   uint64_t ram_pages, bool paused) {
  snapshot::Pager::Ahead ahead;
  ahead.working_set = snapshot::load_working_set(storage, id, ram_pages);
  // A machine that waits for `minivmm resume` would tell what its restore touches, and no more.
  if (!ahead.working_set.empty() || paused) return ahead;
  ahead.record_ms = kRecordMs;
  ahead.record_quiet_ms = kRecordQuietMs;
  ahead.on_recorded = [&storage, id](const std::vector<uint64_t>& pages) {
    if (auto saved = snapshot::save_working_set(storage, id, pages); !saved) {
      base::log_debug("the working set is not kept: {}", saved.error().text());
    }
  };
  return ahead;
}

Result<Source> open_source(const RestoreOptions& asked, Told& told) {
  std::shared_ptr<snapshot::Store> store = asked.store;
  SnapshotRef from = asked.from;
  if (from == nullptr) {
    TRY_ASSIGN(store, snapshot::Store::open(asked.snapshot.store));
    TRY_ASSIGN(snapshot::Id id, store->resolve(asked.snapshot.id_prefix));
    TRY_ASSIGN(from, store->load(id));
  }
  told.loaded = true;
  TRY_ASSIGN(RunOptions saved, parse_saved_config(from->manifest().config));
  TRY_ASSIGN(RunOptions options, merge(saved, asked));
  TRY_ASSIGN(base::SectionReader sections, from->sections());
  TRY_ASSIGN(std::shared_ptr<vmm::GuestMemory> memory,
             vmm::GuestMemory::create(options.memory_bytes, asked.memory));
  TRY(snapshot::check_memory(*memory, *from));
  std::unique_ptr<snapshot::Pager> pager;
  if (asked.from == nullptr && !asked.eager) {
    TRY_ASSIGN(pager, make_pager(told, *memory, from));
  }
  return Source{std::move(store),    std::move(from),   std::move(options),
                std::move(sections), std::move(memory), std::move(pager)};
}

Result<Place> take_place(snapshot::Store& store, const SnapshotRef& from, const RunOptions& options,
                         Foreground& foreground, Told& told) {
  TRY_ASSIGN(std::string directory, prepare_runtime_dir());
  TRY_ASSIGN(VmName name, VmName::claim(directory, options.name, options.api_socket));
  TRY_ASSIGN(auto listener, base::UnixListener::bind(name.socket()));
  TRY_ASSIGN(auto branch, snapshot::Branch::create(store, from, name.name()));
  TRY_ASSIGN(auto console,
             GuestConsole::create(options.console, [&foreground] { foreground.input_room(); }));
  told.socket = name.socket();
  return Place{std::move(name), std::move(listener), std::move(branch), std::move(console)};
}

// Afterwards the generation id's page, and the index's way there, is in memory.
void read_generation_id(const snapshot::Snapshot& from) {
  const uint64_t page = vmm::layout::kGenerationId.gfn().value;  // of the first region of RAM
  std::array<std::byte, snapshot::kPageBytes> content;
  if (page < from.pages(snapshot::kRamSpace)) {
    (void)from.read_page(snapshot::kRamSpace, page, content);
  }
}

// The generation id's page, which is written before the guest runs: who waits for it could do so
// himself.
Result<void> bring_generation_id(snapshot::Pager& pager, const vmm::GuestMemory& memory) {
  auto page = memory.ram_page(vmm::layout::kGenerationId.gfn());
  if (!page) return {};
  auto brought = pager.bring_now(*page);
  if (!brought) return std::unexpected(brought.error().with("the snapshot cannot be restored"));
  return {};
}

Result<void> set_state(MachineProcess& process, base::SectionReader& sections,
                       vmm::ClockPolicy clock) {
  TRY(process.machine->set_state(clock));
  process.platform->freeze();
  auto restored = process.platform->restore(sections);
  process.platform->thaw();
  TRY(restored);
  TRY(sections.finish());
  return process.platform->new_generation();
}

}  // namespace

Result<int> restore_machine(const RestoreOptions& asked) {
  // A clone has its snapshot, its memory and KVM's CPUID, and other clones want the other CPUs.
  const bool is_clone = asked.from != nullptr;
  TRY_ASSIGN(auto foreground, Foreground::create());
  // Outlives the pager, of which the machine knows nothing.
  std::shared_ptr<vmm::GuestMemory> memory;
  std::optional<VmName> name;
  Told told;
  MachineProcess process;
  std::optional<base::Aside> aside;
  if (is_clone) {
    aside.emplace();
  } else {
    aside.emplace("restore-aside");
  }
  auto source = aside->ask([&] { return open_source(asked, told); });
  if (!is_clone) aside->post(learn_cpuid);
  auto vm = vmm::EmptyVm::create();
  if (vm && !told.loaded) (void)vm->kvm.supported_cpuid();
  TRY_ASSIGN(Source opened, aside->get(source));
  TRY_ASSIGN(vmm::EmptyVm empty, std::move(vm));
  const SnapshotRef from = opened.from;
  RunOptions options = std::move(opened.options);
  memory = std::move(opened.memory);
  process.store = std::move(opened.store);
  process.pager = std::move(opened.pager);
  process.pages_ahead = [&storage = process.store->storage(), id = from->id(),
                         pages = memory->ram_pages(),
                         paused = asked.paused] { return pages_ahead(storage, id, pages, paused); };

  auto place = aside->ask([&told, &foreground = *foreground, store = process.store, from, options] {
    return take_place(*store, from, options, foreground, told);
  });
  if (!is_clone) aside->post([from] { read_generation_id(*from); });
  TRY_ASSIGN(auto cpuid, vmm::take_cpuid(opened.sections));
  TRY_ASSIGN(process.machine,
             vmm::Machine::create(
                 std::move(empty), memory,
                 {.cpus = options.cpus, .log_from_start = true, .cpuid = std::move(cpuid)}));
  // Where the next snapshot's will be.
  auto state =
      aside->ask([&machine = *process.machine] { return vmm::MachineState::prepare(machine); });
  TRY(process.machine->load_state(opened.sections));
  TRY_ASSIGN(Place taken, aside->get(place));
  name.emplace(std::move(taken.name));
  options.name = name->name();
  options.api_socket = name->socket();
  process.listener.emplace(std::move(taken.listener));
  process.branch = std::move(taken.branch);
  process.console = std::move(taken.console);
  if (!is_clone && asked.eager) TRY(snapshot::fill_memory(*memory, *process.store, *from));
  TRY_ASSIGN(MachineDisks disks, open_restored_disks(options, *process.store, from, *process.branch,
                                                     std::ref(process.disk_full)));
  TRY(make_platform(process, options, std::move(disks.devices)));
  if (process.pager) TRY(bring_generation_id(*process.pager, *memory));
  TRY_ASSIGN(auto prepared, aside->get(state));
  process.guest = std::make_unique<snapshot::MachineGuest>(
      *process.machine, *process.platform, std::move(disks.layered), std::move(disks.described),
      std::move(prepared));

  // KVM writes to the guest's memory when it is given the state.
  if (process.pager) TRY(process.pager->begin(&*aside));
  aside.reset();
  if (asked.link != nullptr) {
    TRY_ASSIGN(bool wanted, asked.link->wait_to_begin(*foreground));
    if (!wanted) return kSuccess;
  }
  TRY(set_state(process, opened.sections, asked.clock));
  TRY(process.listener->listen());  // which may fail: before the guest runs
  told.status = kVmmError;
  if (asked.paused) {
    TRY(serve(process, options));
  } else {
    let_guest_run(process);
    serve_running(process, options);
  }
  if (asked.link != nullptr) asked.link->say_running();
  const int status = report_end(stay_with(process, options, *foreground));
  // From here on only who still waits for a page needs it; how the machine ended is known.
  told.status = status;
  if (process.pager) process.pager->end_ahead();
  return status;
}

}  // namespace cli
