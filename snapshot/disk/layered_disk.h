// A disk whose content can be frozen at any instant: what the guest writes goes into a layer over
// what is committed, which lies over a base image.
//
//   top layer ► frozen layers, newest first ► parent snapshot ► base image
//
// A disk begins on a raw image, which it writes to itself until the first freeze (and then never
// again), or on a restored snapshot with a layer of its own. Freezing exchanges a pointer: what is
// in flight goes on into the frozen layer, what comes later goes into the next one. Frozen layers
// become part of the parent when their snapshot is committed; where it fails they stay, and the
// next one takes them too.
//
// Reads of committed blocks are verified before the guest sees them. Writes are copied, so that the
// hash is that of the bytes written, and done in whole blocks; requests that change the same blocks
// run one after the other, in the order they came.
//
// Owned by the block device; disk.h's functions on its event loop, the rest on the thread that
// takes snapshots, where not said otherwise. One lock inside, which nobody holds while it waits.
#pragma once

#include <chrono>
#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "devices/virtio/file_disk.h"
#include "snapshot/disk/base_identity.h"
#include "snapshot/disk/block_buffers.h"
#include "snapshot/disk/committed_blocks.h"
#include "snapshot/disk/guest_vectors.h"
#include "snapshot/disk/layer.h"
#include "snapshot/store/commit.h"

namespace snapshot {

class LayeredDisk final : public virtio::Disk {
 public:
  struct Options {
    std::string name;  // for messages
    std::unique_ptr<virtio::FileDisk> base;
    Format format;
    std::unique_ptr<IoQueue> queue;  // of the store
    // False: a guest's flush is answered at once, and after a power cut nothing since the last
    // snapshot may be there (--disk-flush=none).
    bool flush = true;
    // The file system has no space for what the guest writes. Its requests are kept until resume();
    // meanwhile the machine is to be stopped and its owner told. Called on the disk's event loop
    // with the device's lock held: it only passes the word on.
    std::function<void(const std::string& message)> on_full;
  };
  // On a raw image, opened for writing (or read-only, for a disk that is; where it was restored,
  // the image was found to be `identity`).
  static base::Result<std::unique_ptr<LayeredDisk>> on_image(
      Options options, std::optional<BaseIdentity> identity = {});
  // On a snapshot; the base is opened read-only and was found to be `identity` (check_base()).
  static base::Result<std::unique_ptr<LayeredDisk>> on_snapshot(
      Options options, std::shared_ptr<const CommittedBlocks> parent, const BaseIdentity& identity,
      LayerFiles top);

  // virtio::Disk
  uint64_t size() const override { return base_->size(); }
  bool read_only() const override { return read_only_; }
  bool can_discard() const override { return can_discard_; }
  void start(Request& request) override;
  base::Result<void> submit() override;
  Request* next_completion() override;
  unsigned in_flight() const override;
  int event_fd() const override { return events_.get(); }
  void acknowledge() override;
  void wake() override { wake_.signal(); }

  // --- snapshots ---
  // Before the pause: the layer that freeze() switches to. One that was not used is replaced.
  base::Result<void> prepare_freeze(LayerFiles next);
  // Before the pause: does freeze() lack a layer to switch to? A snapshot that failed before its
  // pause leaves one. An error where no snapshot could hold this disk: a sync has failed, or writes
  // into frozen layers wait for space.
  base::Result<bool> lacks_layer() const;
  // In the pause, the device between two requests: what the disk holds now is what the snapshot
  // has. Neither waits nor allocates. What the device lists as in flight may be in it or not.
  void freeze();
  // Are all writes into frozen layers, and into the base, complete? Waits for that; false where it
  // takes longer. The first time also makes the base durable, and knows its identity from then on.
  base::Result<bool> wait_frozen(std::chrono::milliseconds timeout);
  // After wait_frozen(): gives the frozen layers and what they hold to the commit.
  base::Result<void> add_to(Commit& commit, uint32_t disk) const;
  // That commit is durable: the frozen layers are part of `parent` from now on.
  void committed(std::shared_ptr<const CommittedBlocks> parent);
  // It failed. A failed sync of a layer is reported once, to the commit or to the guest's flush;
  // where the commit had it, the guest must not be told that its data is safe.
  void commit_failed(const base::Error& error);

  struct Sealed {
    std::vector<std::shared_ptr<Layer>> layers;  // oldest first
    std::vector<PageEntry> entries;              // ascending; slot: a number of `layers`, or zero
  };
  base::Result<Sealed> sealed() const;
  // Known once the base is written no more.
  std::optional<BaseIdentity> base_identity() const;

  // Any thread: there is space again, or the machine's owner wants to see whether there is.
  void resume();

 private:
  // One request of the guest.
  struct Flight {
    Request* request = nullptr;
    uint64_t first = 0, end = 0;  // blocks it touches
    bool exclusive = false;       // changes them
    bool waiting = false;         // for an earlier one that changes the same blocks
    bool passed = false;          // to the base, as a whole
    unsigned pieces = 0;          // in flight
    int error = 0;
    // What comes next: of the data, or of the ranges.
    uint64_t length = 0, issued = 0;
    VectorPosition position;
    size_t range = 0;
  };
  // What the queue has: a piece of a request, or the sync of a layer.
  struct Operation : IoQueue::Operation {
    enum class Kind { kPiece, kSync };
    explicit Operation(Kind is) : kind(is) {}
    const Kind kind;
  };
  struct Piece;
  struct BaseRequest : Request {
    Piece* piece = nullptr;  // none: a flush
  };
  struct Piece : Operation {
    enum class Step { kStart, kPass, kRead, kBaseRead, kFetchHead, kFetchTail, kWrite, kPunch };
    Piece() : Operation(Kind::kPiece) {}
    Flight* flight = nullptr;
    Step step = Step::kStart;
    uint64_t offset = 0, length = 0;  // bytes of the disk
    VectorPosition position;          // of its data in the request's memory
    bool zeroes = false;              // there is no data: it is zero
    BlockBuffers::Buffer buffer;      // whole blocks
    std::vector<PageHash> hashes;
    BaseRequest base;
    // The transfer at hand.
    iovec vector{};  // what is left of it
    File* file = nullptr;
    uint64_t file_offset = 0;
    unsigned stuck = 0;  // transfers that moved nothing
    // What it is from or to, kept until it is over.
    std::shared_ptr<Layer> layer;
    std::shared_ptr<File> committed_file;
    std::shared_ptr<const CommittedBlocks> parent;
    std::vector<PageEntry> entries;  // to be verified

    uint64_t first_block() const { return offset / kPageBytes; }
    uint64_t end_block() const { return (offset + length + kPageBytes - 1) / kPageBytes; }
  };
  struct LayerSync : Operation {
    enum class Step { kData, kAppend, kLog };
    LayerSync() : Operation(Kind::kSync) {}
    Step step = Step::kData;
    std::shared_ptr<Layer> layer;
    Layer::Append append;
    size_t appended = 0;
    iovec vector{};
  };
  // Where a block is.
  struct Place {
    enum class Kind { kZero, kLayer, kCommitted, kBase };
    Kind kind = Kind::kZero;
    std::shared_ptr<Layer> const* layer = nullptr;
    PageEntry entry;  // of kCommitted
  };

  explicit LayeredDisk(Options options, base::Fd events, base::EventFd wake);
  static base::Result<std::unique_ptr<LayeredDisk>> create(Options options);
  uint64_t blocks() const { return (size() + kPageBytes - 1) / kPageBytes; }
  std::shared_ptr<Layer> make_layer(LayerFiles files) const;

  // All of these with the lock held. Requests (layered_disk.cc):
  void run();
  void pump(Flight& flight);
  bool more(const Flight& flight) const;
  void pass(Flight& flight);
  void end(Flight& flight);
  void finish(Flight& flight, int error);
  bool must_wait(const Flight& flight) const;
  void release_waiting();
  void complete(IoQueue::Operation& operation);
  void retry_stalled();
  void full(const File& file);
  void broken(const base::Error& error);
  void tell_waiting();
  bool frozen_complete() const;
  base::Result<void> can_be_frozen() const;

  // Pieces (layered_piece.cc). advance() is true when the piece is over.
  base::Result<Place> find(uint64_t block) const;
  void look_ahead(uint64_t block, uint64_t count);
  bool issue(Flight& flight);
  bool issue_read(Flight& flight);
  bool issue_write(Flight& flight, uint64_t offset, uint64_t length, bool zeroes);
  bool issue_range(Flight& flight);
  void zero_blocks(Flight& flight, uint64_t first, uint64_t count);
  uint64_t extent(const Place& place, uint64_t block, uint64_t most) const;
  Piece& take_piece(Flight& flight, uint64_t offset, uint64_t length);
  void start_piece(Piece& piece, bool over);
  void release(Piece& piece);
  bool read_blocks(Piece& piece, const Place& place, uint64_t block, uint64_t count,
                   std::byte* into);
  enum class Fetch { kHere, kLater, kFailed };
  Fetch fetch(Piece& piece, uint64_t block, std::byte* into);
  bool transfer(Piece& piece);
  bool advance(Piece& piece);
  bool advance_write(Piece& piece);
  bool write_blocks(Piece& piece);
  bool transferred(Piece& piece, int result, bool& whole);
  bool verify(Piece& piece, const std::byte* content);
  void written(Piece& piece);
  bool fail(Piece& piece, int error, const std::string& message);

  // Flushes (layered_flush.cc)
  void begin_round();
  void sync_layer(const std::shared_ptr<Layer>& layer);
  void advance(LayerSync& sync);
  void step_failed(LayerSync& sync, int error);
  void part_complete();

  const std::string name_;
  const Format format_;
  const bool flush_;
  const std::function<void(const std::string&)> on_full_;
  bool read_only_ = false;
  bool can_discard_ = true;
  base::Fd events_;  // an epoll of queue, base and wake_
  base::EventFd wake_;

  mutable std::mutex mutex_;  // guards what follows
  std::condition_variable frozen_changed_;
  std::shared_ptr<Layer> top_, next_;
  std::vector<std::shared_ptr<Layer>> frozen_;  // oldest first
  std::shared_ptr<const CommittedBlocks> parent_;
  // What parent_ says of the blocks from ahead_first_ on, looked up at once.
  std::vector<PageEntry> ahead_;
  uint64_t ahead_first_ = 0;
  std::optional<BaseIdentity> identity_;
  base::Fd base_sync_;  // the base once more, for the sync of wait_frozen() (see LayerFiles)
  bool base_writable_ = false;  // there is no layer yet
  unsigned base_writes_ = 0;    // in flight
  bool base_dirty_ = false;     // written since the last sync began
  bool resume_ = false;
  bool full_told_ = false;
  std::optional<base::Error> broken_;  // a sync failed: nothing is acknowledged any more

  unsigned in_flight_ = 0;
  std::deque<Request*> done_;
  std::vector<Flight*> exclusive_;   // those that change blocks, in the order they came
  std::deque<Flight*> runnable_;     // to be pumped
  std::deque<Flight*> starved_;      // of buffers
  std::vector<Operation*> stalled_;  // of space
  std::vector<Flight*> flush_waiting_, round_;
  bool round_active_ = false;
  unsigned round_parts_ = 0;

  BlockBuffers buffers_;
  std::vector<std::unique_ptr<Flight>> flights_;
  std::vector<Flight*> idle_flights_;
  std::vector<std::unique_ptr<Piece>> pieces_;
  std::vector<Piece*> idle_pieces_;
  std::vector<std::unique_ptr<LayerSync>> syncs_;
  std::vector<LayerSync*> idle_syncs_;
  BaseRequest base_flush_;
  // Last: they wait for what uses the rest.
  std::unique_ptr<virtio::FileDisk> base_;
  std::unique_ptr<IoQueue> queue_;
};

}  // namespace snapshot
