// A disk layer that is not committed: the running one or a frozen one. Blocks lie at their own
// offset in a sparse file; the presence map in memory says which (holes of the file say nothing),
// and the log says so after a power cut.
//
// Shared by the layered disk and the operations it has in flight; guarded by the disk's lock.
#pragma once

#include <atomic>
#include <memory>
#include <vector>

#include "snapshot/disk/layer_log.h"
#include "snapshot/disk/presence_map.h"
#include "snapshot/store/branch.h"

namespace snapshot {

class Layer {
 public:
  Layer(const Format& format, LayerFiles files, uint64_t blocks, bool logged)
      : files_(std::move(files)),
        map_(blocks),
        encoder_(format, files_.id, blocks),
        logged_(logged) {}

  const Id& id() const { return files_.id; }
  File& data() { return *files_.data; }
  File& commit_data() { return *files_.commit_data; }
  File& log() { return *files_.log; }
  const PresenceMap& map() const { return map_; }

  // A write that is complete.
  void set_data(uint64_t block, PageHash hash);
  void set_zero(uint64_t first, uint64_t count);

  bool needs_sync() const { return dirty_ || !unlogged_.empty(); }
  size_t unlogged() const { return unlogged_.size(); }
  // A flush begins: what is complete now is what it covers. The records are to be appended, at the
  // returned offset of the log, after the data is durable; after an error this log takes no more.
  struct Append {
    uint64_t offset = 0;
    std::vector<std::byte> records;  // none: nothing to log
  };
  Append begin_sync();

  // A sync of the data failed, the commit's or a flush's: what it holds may be lost, whatever the
  // other one's says. Not the lock's.
  std::atomic<bool> sync_failed = false;
  // Writes in flight; a frozen layer is complete when there are none.
  unsigned writes = 0;

 private:
  void note(LayerRange range);

  LayerFiles files_;
  PresenceMap map_;
  LayerLogEncoder encoder_;
  const bool logged_;
  bool dirty_ = false;  // data written since the last sync began
  std::vector<LayerRange> unlogged_;
  uint64_t log_end_ = 0;
};

// The map of a layer whose machine is gone, from its log and, for the hashes, its data. Both files
// open for reading. What was written after the guest's last flush may be there or not.
base::Result<PresenceMap> recover_layer(const Format& format, const Id& id, uint64_t blocks,
                                        const File& data, const File& log);

}  // namespace snapshot
