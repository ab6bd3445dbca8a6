#include "cli/machine_disks.h"

#include <fmt/format.h>

#include "devices/virtio/file_disk.h"
#include "snapshot/disk/base_identity.h"
#include "snapshot/disk/committed_blocks.h"

namespace cli {

using base::fail;
using base::Result;
using snapshot::LayeredDisk;

namespace {

constexpr unsigned kQueueEntries = 256;

virtio::Block::Options device_options(const DiskOption& disk, size_t index) {
  virtio::Block::Options options;
  options.id = fmt::format("disk{}", index);
  options.path = disk.path;
  options.read_only = disk.read_only;
  options.serial = disk.serial;
  options.raw = disk.raw;
  return options;
}

Result<std::unique_ptr<virtio::FileDisk>> open_image(const DiskOption& disk, bool read_only) {
  TRY_ASSIGN(virtio::BlockFile file,
             virtio::BlockFile::open({.path = disk.path, .read_only = read_only, .raw = disk.raw}));
  return virtio::FileDisk::create(std::move(file));
}

Result<LayeredDisk::Options> layer_options(const DiskOption& disk, bool read_only, size_t index,
                                           snapshot::Store& store, const OnDiskFull& on_full) {
  LayeredDisk::Options options;
  options.name = fmt::format("disk{}", index);
  TRY_ASSIGN(options.base, open_image(disk, read_only));
  options.format = store.format();
  TRY_ASSIGN(options.queue, store.storage().make_queue(kQueueEntries));
  options.on_full = on_full;
  return options;
}

void add(MachineDisks& disks, const DiskOption& option, std::unique_ptr<LayeredDisk> disk,
         std::string base) {
  size_t index = disks.devices.size();
  disks.described.push_back({.name = fmt::format("disk{}", index),
                             .size = disk->size(),
                             .read_only = option.read_only,
                             .base = std::move(base)});
  disks.layered.push_back(disk.get());
  disks.devices.push_back(device_options(option, index));
  disks.devices.back().disk = std::move(disk);
}

}  // namespace

Result<MachineDisks> open_disks(const RunOptions& options, snapshot::Store* store,
                                const OnDiskFull& on_full) {
  MachineDisks disks;
  for (size_t i = 0; i < options.disks.size(); ++i) {
    const DiskOption& option = options.disks[i];
    if (store == nullptr) {
      disks.devices.push_back(device_options(option, i));
      disks.layered.push_back(nullptr);
      continue;
    }
    TRY_ASSIGN(auto with, layer_options(option, option.read_only, i, *store, on_full));
    TRY_ASSIGN(auto disk, LayeredDisk::on_image(std::move(with)));
    add(disks, option, std::move(disk), "");
  }
  return disks;
}

Result<MachineDisks> open_restored_disks(const RunOptions& options, snapshot::Store& store,
                                         const std::shared_ptr<const snapshot::Snapshot>& snapshot,
                                         snapshot::Branch& branch, const OnDiskFull& on_full) {
  const auto& recorded = snapshot->manifest().disks;
  if (recorded.size() != options.disks.size()) {
    return fail(fmt::format("the snapshot has {} disks, its machine {}", recorded.size(),
                            options.disks.size()));
  }
  MachineDisks disks;
  for (size_t i = 0; i < options.disks.size(); ++i) {
    const DiskOption& option = options.disks[i];
    TRY_ASSIGN(auto with, layer_options(option, true, i, store, on_full));
    auto identity = snapshot::decode_base(std::as_bytes(std::span(recorded[i].base)));
    if (!identity) return std::unexpected(identity.error().with(recorded[i].name));
    TRY(snapshot::check_base(*identity, with.base->file().fd(), with.base->size(), option.path));
    if (with.base->size() != recorded[i].size || option.read_only != recorded[i].read_only) {
      return fail(
          fmt::format("{} has another size than the snapshot's {}", option.path, recorded[i].name));
    }
    if (option.read_only) {
      TRY_ASSIGN(auto disk, LayeredDisk::on_image(std::move(with), *identity));
      add(disks, option, std::move(disk), recorded[i].base);
      continue;
    }
    auto parent =
        snapshot::committed_blocks(snapshot, snapshot::disk_space(static_cast<uint32_t>(i)));
    TRY_ASSIGN(snapshot::LayerFiles top, branch.create_layer(static_cast<uint32_t>(i)));
    TRY_ASSIGN(auto disk, LayeredDisk::on_snapshot(std::move(with), std::move(parent), *identity,
                                                   std::move(top)));
    add(disks, option, std::move(disk), recorded[i].base);
  }
  return disks;
}

}  // namespace cli
