// Flushes of a layered disk, in rounds: data of every layer that has something new, then its log,
// then the log's own sync; whoever asked before the round began is answered after it. Those that
// come meanwhile share the next round.
#include <fmt/format.h>

#include <cerrno>

#include "snapshot/disk/layered_disk.h"

namespace snapshot {

void LayeredDisk::begin_round() {
  if (round_active_) return;
  round_active_ = true;
  round_.swap(flush_waiting_);
  round_parts_ = 1;  // this function's own
  if (flush_ && !broken_) {
    for (const auto& layer : frozen_) sync_layer(layer);
    if (top_) sync_layer(top_);
    if (std::exchange(base_dirty_, false)) {
      ++round_parts_;
      base_flush_.type = Request::Type::kFlush;
      base_->start(base_flush_);
    }
  }
  part_complete();
}

void LayeredDisk::sync_layer(const std::shared_ptr<Layer>& layer) {
  if (!layer->needs_sync()) return;
  if (idle_syncs_.empty()) {
    idle_syncs_.push_back(syncs_.emplace_back(std::make_unique<LayerSync>()).get());
  }
  LayerSync& sync = *idle_syncs_.back();
  idle_syncs_.pop_back();
  ++round_parts_;
  sync.layer = layer;
  sync.append = layer->begin_sync();
  sync.appended = 0;
  sync.step = LayerSync::Step::kData;
  if (auto started = queue_->sync(sync, layer->data()); !started) {
    broken(started.error());
    step_failed(sync, EIO);
  }
}

// A step is complete: the next one.
void LayeredDisk::advance(LayerSync& sync) {
  bool again = sync.result == -EINTR || sync.result == -EAGAIN;
  if (sync.result < 0 && !again) return step_failed(sync, -sync.result);
  std::vector<std::byte>& records = sync.append.records;
  if (!again) {
    if (sync.step == LayerSync::Step::kAppend) {
      sync.appended += static_cast<size_t>(sync.result);
    } else if (sync.step == LayerSync::Step::kLog) {
      records.clear();
    }
    if (sync.step == LayerSync::Step::kData) sync.step = LayerSync::Step::kAppend;
    if (sync.appended == records.size()) sync.step = LayerSync::Step::kLog;
  }
  base::Result<void> started;
  if (!again && records.empty()) {
    sync.layer.reset();
    idle_syncs_.push_back(&sync);
    return part_complete();
  }
  switch (sync.step) {
    case LayerSync::Step::kData:
      started = queue_->sync(sync, sync.layer->data());
      break;
    case LayerSync::Step::kAppend:
      sync.vector = {records.data() + sync.appended, records.size() - sync.appended};
      started = queue_->writev(sync, sync.layer->log(), {&sync.vector, 1},
                               sync.append.offset + sync.appended);
      break;
    case LayerSync::Step::kLog:
      started = queue_->sync(sync, sync.layer->log());
      break;
  }
  if (!started) step_failed(sync, EIO);
}

void LayeredDisk::step_failed(LayerSync& sync, int error) {
  if (sync.step == LayerSync::Step::kAppend && (error == ENOSPC || error == EDQUOT)) {
    stalled_.push_back(&sync);
    return full(sync.layer->log());
  }
  if (sync.step == LayerSync::Step::kData) sync.layer->sync_failed = true;
  File& file = sync.step == LayerSync::Step::kData ? sync.layer->data() : sync.layer->log();
  broken(base::Error(
      fmt::format("{}: {}", file.name(), sync.step == LayerSync::Step::kAppend ? "write" : "sync"),
      error));
  sync.layer.reset();
  sync.append.records.clear();
  idle_syncs_.push_back(&sync);
  part_complete();
}

void LayeredDisk::part_complete() {
  if (--round_parts_ > 0) return;
  round_active_ = false;
  for (const auto& layer : frozen_) {
    if (layer->sync_failed) broken(base::Error(layer->commit_data().name() + ": sync", EIO));
  }
  for (Flight* flight : round_) finish(*flight, broken_ ? EIO : 0);
  round_.clear();
  if (!flush_waiting_.empty()) begin_round();
}

}  // namespace snapshot
