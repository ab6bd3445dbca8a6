#include "cli/saved_config.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "cli/runtime_dir.h"
#include "vmm/layout.h"

namespace cli {

using base::fail;
using base::Result;
using nlohmann::json;

namespace {

constexpr size_t kMostDevices = 64;
constexpr uint64_t kMemoryUnit = 1 << 20;

const char* console_name(ConsoleKind kind) {
  switch (kind) {
    case ConsoleKind::kSerial:
      return "serial";
    case ConsoleKind::kVirtio:
      return "virtio";
    case ConsoleKind::kNone:
      return "none";
  }
  return "none";
}

Result<ConsoleKind> console_kind(const std::string& name) {
  for (ConsoleKind kind : {ConsoleKind::kSerial, ConsoleKind::kVirtio, ConsoleKind::kNone}) {
    if (name == console_name(kind)) return kind;
  }
  return fail(fmt::format("console '{}' is unknown", name));
}

// Fields of a JSON object, each of the one type it must have; remembers the first that is not.
class Fields {
 public:
  explicit Fields(const json& object) : object_(object) {}
  uint64_t number(const char* name, uint64_t least, uint64_t most) {
    const json* value = find(name);
    if (value && value->is_number_unsigned()) {
      uint64_t number = value->get<uint64_t>();
      if (number >= least && number <= most) return number;
    }
    return wrong(name), least;
  }
  bool boolean(const char* name) {
    const json* value = find(name);
    if (value && value->is_boolean()) return value->get<bool>();
    return wrong(name), false;
  }
  std::string text(const char* name) {
    const json* value = find(name);
    if (value && value->is_string()) return value->get<std::string>();
    return wrong(name), "";
  }
  std::vector<json> list(const char* name) {
    const json* value = find(name);
    if (value && value->is_array() && value->size() <= kMostDevices) return *value;
    return wrong(name), std::vector<json>{};
  }
  bool has(const char* name) { return find(name) != nullptr; }
  Result<void> finish() const {
    if (wrong_.empty()) return {};
    return fail(fmt::format("the snapshot's configuration has no usable field '{}'", wrong_));
  }

 private:
  const json* find(const char* name) const {
    if (!object_.is_object()) return nullptr;
    auto found = object_.find(name);
    return found == object_.end() ? nullptr : &*found;
  }
  void wrong(const char* name) {
    if (wrong_.empty()) wrong_ = name;
  }
  const json& object_;
  std::string wrong_;
};

}  // namespace

std::string saved_config(const RunOptions& options) {
  json disks = json::array();
  for (const DiskOption& disk : options.disks) {
    disks.push_back({{"read_only", disk.read_only}, {"serial", disk.serial}});
  }
  json nets = json::array();
  for (size_t i = 0; i < options.nets.size(); ++i) {
    const NetOption& net = options.nets[i];
    nets.push_back({{"kind", net.tap.empty() ? "user" : "tap"},
                    {"mac", virtio::format_mac(mac_of(options, i))}});
  }
  json config = {{"memory_mib", options.memory_bytes / kMemoryUnit},
                 {"cpus", options.cpus},
                 {"disks", disks},
                 {"nets", nets},
                 {"rng", options.rng},
                 {"balloon", options.balloon},
                 {"console", console_name(options.console)},
                 {"name", options.name},
                 {"cmdline", guest_command_line(options)}};
  if (options.vsock) config["vsock_cid"] = options.vsock->cid;
  return config.dump(-1, ' ', false, json::error_handler_t::replace);
}

Result<RunOptions> parse_saved_config(std::string_view text) {
  if (text.size() > kMostSavedConfig) return fail("the snapshot's configuration is too long");
  json parsed = json::parse(text, nullptr, false);
  if (!parsed.is_object()) return fail("the snapshot's configuration is no JSON object");
  Fields fields(parsed);
  RunOptions options;
  constexpr uint64_t kMostMiB = uint64_t{1} << 20;
  options.memory_bytes = fields.number("memory_mib", 2, kMostMiB) * kMemoryUnit;
  options.cpus = static_cast<uint32_t>(fields.number("cpus", 1, vmm::layout::kMaxCpus));
  options.rng = fields.boolean("rng");
  options.balloon = fields.boolean("balloon");
  options.cmdline = fields.text("cmdline");
  TRY_ASSIGN(options.console, console_kind(fields.text("console")));
  options.name = fields.text("name");
  if (!check_vm_name(options.name)) return fail("the snapshot's machine has an impossible name");
  for (const json& entry : fields.list("disks")) {
    Fields disk(entry);
    DiskOption option;
    option.read_only = disk.boolean("read_only");
    option.serial = disk.text("serial");
    options.disks.push_back(std::move(option));
    TRY(disk.finish());
  }
  for (const json& entry : fields.list("nets")) {
    Fields net(entry);
    NetOption option;
    TRY_ASSIGN(option.mac, virtio::parse_mac(net.text("mac")));
    option.was_tap = net.text("kind") == "tap";
    options.nets.push_back(std::move(option));
    TRY(net.finish());
  }
  if (fields.has("vsock_cid")) {
    options.vsock.emplace();
    options.vsock->cid = static_cast<uint32_t>(fields.number("vsock_cid", 3, UINT32_MAX - 1));
  }
  TRY(fields.finish());
  return options;
}

}  // namespace cli
