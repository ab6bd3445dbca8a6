#include "cli/clones.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <memory>

#include "cli/clone_set.h"
#include "cli/saved_config.h"
#include "snapshot/eager.h"
#include "snapshot/store/store.h"
#include "vmm/kvm.h"
#include "vmm/memory_template.h"

namespace cli {

using base::fail;
using base::fail_errno;
using base::Result;

namespace {

void replace_percent(std::string& text, uint32_t number) {
  if (size_t at = text.find('%'); at != std::string::npos) {
    text.replace(at, 1, std::to_string(number));
  }
}

// The first three bytes name who gave the address away, and stay. False where none is left.
bool count_on(virtio::MacAddress& mac, uint32_t count) {
  uint32_t last = (uint32_t{mac[3]} << 16 | uint32_t{mac[4]} << 8 | mac[5]) + count;
  if (last > 0xFF'FFFF) return false;
  for (int i = 5; i >= 3; --i, last >>= 8) mac[i] = static_cast<uint8_t>(last);
  return true;
}

// Their output goes to a file of each, or nowhere: a hundred machines on one terminal tell nobody
// anything, and none of them has the keyboard.
Result<void> redirect(const std::string& output) {
  TRY_ASSIGN(base::Fd nothing, base::open_file("/dev/null", O_RDWR));
  base::Fd file;
  if (!output.empty()) {
    TRY_ASSIGN(file, base::open_file(output, O_WRONLY | O_CREAT | O_APPEND));
  }
  if (::dup2(nothing.get(), STDIN_FILENO) < 0 ||
      ::dup2(file ? file.get() : nothing.get(), STDOUT_FILENO) < 0) {
    return fail_errno("redirect the console");
  }
  return {};
}

// The snapshot's memory, and the snapshot for as long as not every clone holds it.
struct Template {
  vmm::MemoryTemplate memory;
  std::shared_ptr<snapshot::Snapshot::Hold> hold;
};

// Loads the snapshot for all clones, which begin at the same one whatever is taken meanwhile.
Result<Template> make_template(RestoreOptions& asked) {
  TRY_ASSIGN(asked.store, snapshot::Store::open(asked.snapshot.store));
  TRY_ASSIGN(snapshot::Id id, asked.store->resolve(asked.snapshot.id_prefix));
  TRY_ASSIGN(asked.from, asked.store->load(id));
  TRY_ASSIGN(auto hold, asked.from->hold());
  TRY_ASSIGN(RunOptions saved, parse_saved_config(asked.from->manifest().config));
  if (asked.host.name.empty()) asked.host.name = saved.name;
  auto fill = [&](vmm::GuestMemory& memory) -> Result<void> {
    TRY(snapshot::check_memory(memory, *asked.from));
    return snapshot::fill_memory(memory, *asked.store, *asked.from);
  };
  TRY_ASSIGN(auto memory, vmm::MemoryTemplate::create(saved.memory_bytes, fill));
  return Template{std::move(memory), std::move(hold)};
}

Result<int> run_clone(RestoreOptions options, CloneLink link) {
  // Not in the terminal's foreground: its Ctrl-C comes through the first process, once.
  ::setpgid(0, 0);
  TRY(redirect(options.console_file));
  options.link = &link;
  return restore_machine(options);
}

}  // namespace

Result<RestoreOptions> options_of_clone(const RestoreOptions& asked, uint32_t number) {
  RestoreOptions own = asked;
  own.host.name = fmt::format("{}-{}", asked.host.name, number);
  own.host.api_socket.clear();
  if (!asked.vsock_path.empty() && asked.vsock_path.find('%') == std::string::npos) {
    return fail("--vsock-path: clones need a socket each: write % where its number is to stand");
  }
  replace_percent(own.vsock_path, number);
  if (own.vsock_cid) {
    if (UINT32_MAX - 1 - *own.vsock_cid < number - 1) {
      return fail(fmt::format("--vsock-cid: there is none left for clone {}", number));
    }
    *own.vsock_cid += number - 1;
  }
  replace_percent(own.console_file, number);
  // Those of one machine may follow each other.
  auto addresses = std::ranges::count_if(own.host.nets,
                                         [](const NetOption& net) { return net.mac.has_value(); });
  for (NetOption& net : own.host.nets) {
    if (!net.tap.empty() && net.tap.find('%') == std::string::npos) {
      return fail("--net: clones need a tap each: write % where its number is to stand");
    }
    replace_percent(net.tap, number);
    if (net.mac && !count_on(*net.mac, (number - 1) * static_cast<uint32_t>(addresses))) {
      return fail("--net: not as many MAC addresses follow as there are clones");
    }
    for (virtio::HostForward& forward : net.host_forwards) {
      uint32_t port = forward.host_port + number - 1;
      if (port > UINT16_MAX) {
        return fail(fmt::format("--net: clone {} would need host port {}", number, port));
      }
      forward.host_port = static_cast<uint16_t>(port);
    }
  }
  return own;
}

Result<int> restore_clones(const RestoreOptions& wanted, uint32_t count, bool made_ahead) {
  if (!wanted.host.api_socket.empty()) {
    return fail("--api-socket is of one machine; clones have theirs where `minivmm ps` finds them");
  }
  // The last one has the highest ports: better now than after all memory was read.
  TRY(options_of_clone(wanted, count));
  RestoreOptions asked = wanted;
  // Before any memory is read; and what KVM supports is known to all clones then.
  {
    TRY_ASSIGN(vmm::Kvm kvm, vmm::Kvm::open());
    TRY(kvm.supported_cpuid());
  }
  TRY_ASSIGN(Template from, make_template(asked));
  asked.memory = from.memory.copy();

  TRY_ASSIGN(CloneSet clones, CloneSet::create(asked.report_json, made_ahead));
  for (uint32_t number = 1; number <= count; ++number) {
    RestoreOptions own;
    auto link = [&]() -> Result<std::optional<CloneLink>> {
      TRY_ASSIGN(own, options_of_clone(asked, number));
      return clones.add(own.host.name);
    }();
    if (!link) {
      clones.give_up();
      return std::unexpected(link.error());
    }
    if (*link) {
      (*link)->keep(std::move(from.hold));
      return run_clone(std::move(own), std::move(**link));
    }
  }
  from.hold.reset();
  return clones.stay(STDIN_FILENO);
}

}  // namespace cli
