#include "cli/config_json.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

namespace cli {

using nlohmann::json;

json machine_config_json(const RunOptions& options) {
  return {{"vcpu_count", options.cpus},
          {"mem_size_mib", options.memory_bytes >> 20},
          {"smt", false},
          {"track_dirty_pages", false}};
}

json vm_config_json(const RunOptions& options) {
  json drives = json::array();
  for (const DiskOption& disk : options.disks) {
    drives.push_back({{"drive_id", fmt::format("disk{}", drives.size())},
                      {"path_on_host", disk.path},
                      {"is_root_device", false},
                      {"is_read_only", disk.read_only}});
  }
  json interfaces = json::array();
  for (const NetOption& net : options.nets) {
    json interface = {{"iface_id", fmt::format("net{}", interfaces.size())},
                      {"host_dev_name", net.tap}};
    if (net.mac) interface["guest_mac"] = virtio::format_mac(*net.mac);
    interfaces.push_back(interface);
  }
  json config = {
      {"boot-source",
       {{"kernel_image_path", options.kernel}, {"boot_args", guest_command_line(options)}}},
      {"machine-config", machine_config_json(options)},
      {"drives", drives},
      {"network-interfaces", interfaces}};
  if (!options.initrd.empty()) config["boot-source"]["initrd_path"] = options.initrd;
  if (options.vsock) {
    config["vsock"] = {{"guest_cid", options.vsock->cid}, {"uds_path", options.vsock->path}};
  }
  if (options.rng) config["entropy"] = json::object();
  if (options.balloon) config["balloon"] = {{"amount_mib", 0}, {"deflate_on_oom", true}};
  return config;
}

}  // namespace cli
