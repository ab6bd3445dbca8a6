// A store with a chain of snapshots of a machine that never was: RAM in two regions with a hole
// between them and one disk over a base image, whose pages are written by name of their content.
// It remembers what each snapshot has to hold.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "snapshot/store/store.h"
#include "tests/support/temporary_directory.h"

namespace snapshot_test {

class SmallStore {
 public:
  static constexpr uint64_t kLowPages = 3000, kHighPages = 1500;
  static constexpr uint64_t kRamPages = kLowPages + kHighPages;
  static constexpr uint64_t kHighStart = 1ull << 32;
  static constexpr uint64_t kDiskBytes = 40 * 4096 + 512;  // the last block is not a whole one
  static constexpr uint64_t kDiskPages = 41;

  // Pages and the version of their content; 0: zero.
  using Writes = std::map<uint64_t, uint32_t>;

  SmallStore();

  // Writes, then takes a snapshot; throws what goes wrong.
  snapshot::Id take(snapshot::Kind kind, const Writes& ram, const Writes& disk = {});
  // Writes of the guest to its disk after the last snapshot, flushed.
  void write_disk(const Writes& disk);
  // What the manifest's configuration is to be from now on.
  void set_config(std::string config) { config_ = std::move(config); }
  void set_vm_name(std::string_view name);

  snapshot::Store& store() { return *store_; }
  // As somebody reads it who opens the store anew.
  std::shared_ptr<const snapshot::Snapshot> load(const snapshot::Id& id);
  const snapshot::Branch& branch() const { return *branch_; }
  void stop_machine() { branch_.reset(); }

  std::string path() const { return directory_.file("store"); }
  std::string base_path() const { return directory_.file("base.img"); }
  std::string file(const std::string& name) const { return directory_.file(name); }

  // Of RAM page `page` in the snapshot.
  std::string ram(const snapshot::Id& id, uint64_t page) const;
  // The whole disk, base included.
  std::string disk(const snapshot::Id& id) const;
  std::string disk_now() const;
  static std::string content(snapshot::Space space, uint64_t page, uint32_t version);

 private:
  struct State {
    Writes ram, disk;
  };
  static std::string disk_of(const State& state);
  void add_ram(snapshot::Commit& commit, const Writes& writes);
  void add_disk(snapshot::Commit& commit, const Writes& writes);

  test::TemporaryDirectory directory_;
  std::string base_identity_, config_ = R"({"machine-config":{"vcpu_count":2}})";
  std::unique_ptr<snapshot::Store> store_;
  std::unique_ptr<snapshot::Branch> branch_;
  std::vector<snapshot::LayerFiles> layers_;
  State now_;
  std::map<snapshot::Id, State> then_;
};

}  // namespace snapshot_test
