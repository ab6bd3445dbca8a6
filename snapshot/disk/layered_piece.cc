// Pieces of a layered disk's requests: reads split by where the blocks are, writes in whole blocks.
#include <fmt/format.h>

#include <algorithm>
#include <cassert>
#include <cerrno>
#include <cstring>

#include "snapshot/disk/layered_disk.h"
#include "vmm/base/log.h"

namespace snapshot {

using base::Result;

namespace {

// Lookups for one piece that needs no buffer.
constexpr uint64_t kMostBlocks = 1024;
constexpr uint64_t kMostAhead = 256;
constexpr uint64_t kSmallestPunch = (64 << 10) / kPageBytes;  // blocks
// Changes that are not in the log yet, at most: a driver that never flushes is to cost no more.
constexpr size_t kMostUnlogged = 1 << 16;

}  // namespace

Result<LayeredDisk::Place> LayeredDisk::find(uint64_t block) const {
  using In = Place::Kind;
  auto in = [&](const std::shared_ptr<Layer>& layer) -> std::optional<Place> {
    Presence state = layer->map().get(block).state;
    if (state == Presence::kAbsent) return std::nullopt;
    return Place{state == Presence::kZero ? In::kZero : In::kLayer, &layer, {}};
  };
  if (top_) {
    if (auto place = in(top_)) return *place;
  }
  for (auto layer = frozen_.rbegin(); layer != frozen_.rend(); ++layer) {
    if (auto place = in(*layer)) return *place;
  }
  if (!parent_) return Place{In::kBase, nullptr, {}};
  PageEntry entry;
  if (block >= ahead_first_ && block - ahead_first_ < ahead_.size()) {
    entry = ahead_[block - ahead_first_];
  } else {
    TRY_ASSIGN(entry, parent_->find(block));
  }
  if (entry.slot == kSlotZero) return Place{In::kZero, nullptr, {}};
  if (entry.slot == kSlotBase) return Place{In::kBase, nullptr, {}};
  return Place{In::kCommitted, nullptr, entry};
}

// Before `count` blocks are asked for: the parent's index is read once for all of them.
void LayeredDisk::look_ahead(uint64_t block, uint64_t count) {
  bool known = block >= ahead_first_ && block - ahead_first_ < ahead_.size();
  if (!parent_ || count < 2 || known) return;
  ahead_first_ = block;
  ahead_.resize(std::min(count, kMostAhead));
  // find() meets the error again.
  if (!parent_->find_range(block, ahead_)) ahead_.clear();
}

// How many blocks from `block` on, `most` at most, can be had in one go with it.
uint64_t LayeredDisk::extent(const Place& place, uint64_t block, uint64_t most) const {
  uint64_t count = 1;
  for (; count < most; ++count) {
    auto next = find(block + count);
    if (!next || next->kind != place.kind) break;
    if (place.kind == Place::Kind::kLayer && *next->layer != *place.layer) break;
    if (place.kind == Place::Kind::kCommitted &&
        (next->entry.slot != place.entry.slot ||
         next->entry.offset != place.entry.offset + count * kPageBytes)) {
      break;
    }
  }
  return count;
}

// --- starting them ---

// The next piece of the request; false where there is no buffer for it now.
bool LayeredDisk::issue(Flight& flight) {
  switch (flight.request->type) {
    case Request::Type::kRead:
      return issue_read(flight);
    case Request::Type::kWrite: {
      uint64_t offset = flight.request->offset + flight.issued;
      uint64_t whole = (offset / BlockBuffers::kBytes + 1) * BlockBuffers::kBytes - offset;
      return issue_write(flight, offset, std::min(flight.length - flight.issued, whole), false);
    }
    case Request::Type::kDiscard:
    case Request::Type::kWriteZeroes:
      return issue_range(flight);
    case Request::Type::kFlush:
      break;
  }
  return true;
}

bool LayeredDisk::issue_read(Flight& flight) {
  const Request& request = *flight.request;
  uint64_t offset = request.offset + flight.issued, left = flight.length - flight.issued;
  uint64_t block = offset / kPageBytes, last = (offset + left - 1) / kPageBytes;
  look_ahead(block, last - block + 1);
  auto place = find(block);
  if (!place) {
    base::log_error("disk {}: block {}: {}", name_, block, place.error().text());
    flight.error = EIO;
    return true;
  }
  bool buffered = place->kind == Place::Kind::kLayer || place->kind == Place::Kind::kCommitted;
  if (buffered && !buffers_.available()) return false;
  uint64_t most = buffered ? BlockBuffers::kBlocks : kMostBlocks;
  uint64_t count = extent(*place, block, std::min(last - block + 1, most));
  uint64_t length = std::min(left, (block + count) * kPageBytes - offset);
  flight.issued += length;

  if (place->kind == Place::Kind::kZero) {
    flight.position =
        walk_vectors(request.memory, flight.position, length,
                     [](std::byte* memory, size_t bytes) { std::memset(memory, 0, bytes); });
    return true;
  }
  Piece& piece = take_piece(flight, offset, length);
  piece.position = flight.position;
  piece.base.memory.clear();
  flight.position = walk_vectors(
      request.memory, flight.position, length,
      [&](std::byte* memory, size_t bytes) { piece.base.memory.push_back({memory, bytes}); });
  if (place->kind == Place::Kind::kBase) {
    piece.step = Piece::Step::kBaseRead;
    piece.base.type = Request::Type::kRead;
    piece.base.offset = offset;
    base_->start(piece.base);
    return true;
  }
  piece.step = Piece::Step::kRead;
  piece.buffer = buffers_.take();
  start_piece(piece, read_blocks(piece, *place, block, count, piece.buffer.get()));
  return true;
}

bool LayeredDisk::issue_write(Flight& flight, uint64_t offset, uint64_t length, bool zeroes) {
  if (!buffers_.available()) return false;
  Piece& piece = take_piece(flight, offset, length);
  piece.zeroes = zeroes;
  piece.buffer = buffers_.take();
  if (!zeroes) {
    piece.position = flight.position;
    flight.position =
        walk_vectors(flight.request->memory, flight.position, length, [](std::byte*, size_t) {});
    flight.issued += length;
  }
  start_piece(piece, advance_write(piece));
  return true;
}

// Of the range at hand: what it covers of its first block, then its whole blocks, then what is
// left.
bool LayeredDisk::issue_range(Flight& flight) {
  const virtio::DiskRange& range = flight.request->ranges[flight.range];
  uint64_t offset = range.offset + flight.issued, end = range.offset + range.length;
  uint64_t end_block = end == size() ? blocks() : end / kPageBytes;
  uint64_t done_to = end;
  if (offset % kPageBytes == 0 && offset / kPageBytes < end_block) {
    zero_blocks(flight, offset / kPageBytes, end_block - offset / kPageBytes);
    done_to = std::min(end, end_block * kPageBytes);
  } else {
    done_to = std::min(end, (offset / kPageBytes + 1) * kPageBytes);
    if (!issue_write(flight, offset, done_to - offset, true)) return false;
  }
  flight.issued = done_to - range.offset;
  if (done_to == end) {
    ++flight.range;
    flight.issued = 0;
  }
  return true;
}

void LayeredDisk::zero_blocks(Flight& flight, uint64_t first, uint64_t count) {
  bool punch = count >= kSmallestPunch && top_->map().has_data(first, count);
  top_->set_zero(first, count);
  if (top_->unlogged() > kMostUnlogged) begin_round();
  if (!punch) return;
  Piece& piece = take_piece(flight, first * kPageBytes, count * kPageBytes);
  piece.step = Piece::Step::kPunch;
  piece.layer = top_;
  ++piece.layer->writes;
  if (!queue_->punch(piece, top_->data(), piece.offset, piece.length)) {
    written(piece);
    start_piece(piece, true);
  }
}

LayeredDisk::Piece& LayeredDisk::take_piece(Flight& flight, uint64_t offset, uint64_t length) {
  if (idle_pieces_.empty()) {
    idle_pieces_.push_back(pieces_.emplace_back(std::make_unique<Piece>()).get());
    pieces_.back()->base.piece = pieces_.back().get();
  }
  Piece& piece = *idle_pieces_.back();
  idle_pieces_.pop_back();
  ++flight.pieces;
  piece.flight = &flight;
  piece.step = Piece::Step::kStart;
  piece.offset = offset;
  piece.length = length;
  piece.zeroes = false;
  piece.base.memory.clear();
  piece.base.ranges.clear();  // a read with the ranges of an earlier request would zero them
  piece.entries.clear();
  piece.hashes.clear();
  return piece;
}

// After a step: gives the piece back where it is over, and has its request go on.
void LayeredDisk::start_piece(Piece& piece, bool over) {
  if (!over) return;
  Flight& flight = *piece.flight;
  release(piece);
  runnable_.push_back(&flight);
}

void LayeredDisk::release(Piece& piece) {
  if (piece.buffer) buffers_.give_back(std::move(piece.buffer));
  piece.layer.reset();
  piece.committed_file.reset();
  piece.parent.reset();
  --piece.flight->pieces;
  idle_pieces_.push_back(&piece);
}

// --- transfers ---

// Begins to read whole blocks out of a layer or a committed file.
bool LayeredDisk::read_blocks(Piece& piece, const Place& place, uint64_t block, uint64_t count,
                              std::byte* into) {
  piece.vector = {into, count * kPageBytes};
  piece.stuck = 0;
  piece.entries.clear();
  if (place.kind == Place::Kind::kLayer) {
    piece.layer = *place.layer;
    piece.file = &piece.layer->data();
    piece.file_offset = block * kPageBytes;
    return transfer(piece);
  }
  piece.parent = parent_;
  auto file = parent_->file(place.entry.slot);
  if (!file) return fail(piece, EIO, file.error().text());
  for (uint64_t i = 0; i < count; ++i) {
    auto next = find(block + i);
    if (!next) return fail(piece, EIO, next.error().text());
    piece.entries.push_back(next->entry);
  }
  piece.committed_file = std::move(*file);
  piece.file = piece.committed_file.get();
  piece.file_offset = place.entry.offset;
  return transfer(piece);
}

bool LayeredDisk::transfer(Piece& piece) {
  auto started = piece.step == Piece::Step::kWrite
                     ? queue_->writev(piece, *piece.file, {&piece.vector, 1}, piece.file_offset)
                     : queue_->readv(piece, *piece.file, {&piece.vector, 1}, piece.file_offset);
  if (!started) return fail(piece, EIO, started.error().text());
  return false;
}

// Takes the result of one; `whole`: nothing is left of it. True where the piece is over.
bool LayeredDisk::transferred(Piece& piece, int result, bool& whole) {
  whole = false;
  bool write = piece.step == Piece::Step::kWrite;
  if (result == -EINTR || result == -EAGAIN) return transfer(piece);
  if (write && (result == -ENOSPC || result == -EDQUOT)) {
    stalled_.push_back(&piece);
    full(*piece.file);
    return false;
  }
  if (result < 0) {
    return fail(
        piece, -result,
        fmt::format("{} at {}: {}", piece.file->name(), piece.file_offset, std::strerror(-result)));
  }
  auto bytes = static_cast<uint64_t>(result);
  whole = bytes == piece.vector.iov_len;
  if (whole) return false;
  // Direct access wants to go on at a multiple of its alignment.
  bytes -= bytes % piece.file->alignment();
  if (bytes > 0) piece.stuck = 0;
  if (bytes == 0 && ++piece.stuck > 3) {
    return fail(piece, EIO,
                fmt::format("{} ends before {}", piece.file->name(),
                            piece.file_offset + piece.vector.iov_len));
  }
  piece.vector = {static_cast<std::byte*>(piece.vector.iov_base) + bytes,
                  piece.vector.iov_len - bytes};
  piece.file_offset += bytes;
  return transfer(piece);
}

bool LayeredDisk::fail(Piece& piece, int error, const std::string& message) {
  base::log_error("disk {}: {} bytes at {}: {}", name_, piece.length, piece.offset, message);
  piece.flight->error = error;
  return true;
}

bool LayeredDisk::verify(Piece& piece, const std::byte* content) {
  for (size_t i = 0; i < piece.entries.size(); ++i) {
    auto checked =
        piece.parent->check(piece.entries[i], std::span(content + i * kPageBytes, kPageBytes));
    if (!checked) {
      fail(piece, EIO, checked.error().text());
      return false;
    }
  }
  return true;
}

// --- steps ---

// An operation of the piece is complete. True where the piece is over.
bool LayeredDisk::advance(Piece& piece) {
  using Step = Piece::Step;
  Flight& flight = *piece.flight;
  bool whole = false;
  switch (piece.step) {
    case Step::kPass:
      flight.error = piece.base.error;
      if (flight.exclusive) {
        --base_writes_;
        base_dirty_ = true;
        tell_waiting();
      }
      return true;
    case Step::kBaseRead:
      if (piece.base.error != 0) flight.error = piece.base.error;
      return true;
    case Step::kRead: {
      if (transferred(piece, piece.result, whole)) return true;
      if (!whole) return false;
      if (!verify(piece, piece.buffer.get())) return true;
      const std::byte* from = piece.buffer.get() + piece.offset % kPageBytes;
      walk_vectors(flight.request->memory, piece.position, piece.length,
                   [&](std::byte* memory, size_t bytes) {
                     std::memcpy(memory, from, bytes);
                     from += bytes;
                   });
      return true;
    }
    case Step::kFetchHead:
    case Step::kFetchTail:
      if (piece.file) {
        if (transferred(piece, piece.result, whole)) return true;
        if (!whole) return false;
        uint64_t block =
            piece.step == Step::kFetchHead ? 0 : piece.end_block() - 1 - piece.first_block();
        if (!verify(piece, piece.buffer.get() + block * kPageBytes)) return true;
      } else if (piece.base.error != 0) {
        return fail(piece, piece.base.error, "the image cannot be read");
      }
      return advance_write(piece);
    case Step::kWrite:
      if (transferred(piece, piece.result, whole)) {
        written(piece);
        return true;
      }
      if (!whole) return false;
      for (size_t i = 0; i < piece.hashes.size(); ++i) {
        piece.layer->set_data(piece.first_block() + i, piece.hashes[i]);
      }
      if (piece.layer->unlogged() > kMostUnlogged) begin_round();
      written(piece);
      return true;
    case Step::kPunch:
      // Where it failed only the space is lost: the map says zero.
      written(piece);
      return true;
    case Step::kStart:
      break;
  }
  assert(false);
  return true;
}

void LayeredDisk::written(Piece& piece) {
  --piece.layer->writes;
  if (piece.layer != top_) tell_waiting();
}

// Goes on with a write: first what it leaves of its first and of its last block is fetched, then
// all of it is copied, hashed and written.
bool LayeredDisk::advance_write(Piece& piece) {
  using Step = Piece::Step;
  uint64_t end = piece.offset + piece.length;
  uint64_t last = piece.end_block() - 1;
  // Nothing of a last block that the disk's end cuts off is left.
  bool whole_tail = end % kPageBytes == 0 || end == size();
  if (piece.step == Step::kStart) {
    piece.step = Step::kFetchHead;
    bool alone = last == piece.first_block();
    if (piece.offset % kPageBytes != 0 || (alone && !whole_tail)) {
      Fetch fetched = fetch(piece, piece.first_block(), piece.buffer.get());
      if (fetched != Fetch::kHere) return fetched == Fetch::kFailed;
    }
  }
  if (piece.step == Step::kFetchHead) {
    piece.step = Step::kFetchTail;
    if (!whole_tail && last != piece.first_block()) {
      Fetch fetched =
          fetch(piece, last, piece.buffer.get() + (last - piece.first_block()) * kPageBytes);
      if (fetched != Fetch::kHere) return fetched == Fetch::kFailed;
    }
  }
  return write_blocks(piece);
}

// Has a block read into `into`; a zero one is there at once.
LayeredDisk::Fetch LayeredDisk::fetch(Piece& piece, uint64_t block, std::byte* into) {
  auto place = find(block);
  if (!place) {
    fail(piece, EIO, place.error().text());
    return Fetch::kFailed;
  }
  piece.file = nullptr;
  if (place->kind == Place::Kind::kZero) {
    std::memset(into, 0, kPageBytes);
    return Fetch::kHere;
  }
  if (place->kind == Place::Kind::kBase) {
    uint64_t bytes = std::min(kPageBytes, size() - block * kPageBytes);
    std::memset(into + bytes, 0, kPageBytes - bytes);
    piece.base.type = Request::Type::kRead;
    piece.base.offset = block * kPageBytes;
    piece.base.memory.assign(1, {into, bytes});
    base_->start(piece.base);
    return Fetch::kLater;
  }
  return read_blocks(piece, *place, block, 1, into) ? Fetch::kFailed : Fetch::kLater;
}

bool LayeredDisk::write_blocks(Piece& piece) {
  std::byte* begin = piece.buffer.get();
  std::byte* to = begin + piece.offset % kPageBytes;
  if (piece.zeroes) {
    std::memset(to, 0, piece.length);
  } else {
    walk_vectors(piece.flight->request->memory, piece.position, piece.length,
                 [&](std::byte* memory, size_t bytes) {
                   std::memcpy(to, memory, bytes);
                   to += bytes;
                 });
  }
  uint64_t count = piece.end_block() - piece.first_block();
  // Behind the end of a disk that is not in whole blocks.
  if (uint64_t end = piece.offset + piece.length; end == size() && end % kPageBytes != 0) {
    uint64_t used = end - piece.first_block() * kPageBytes;
    std::memset(begin + used, 0, count * kPageBytes - used);
  }
  for (uint64_t i = 0; i < count; ++i) {
    piece.hashes.push_back(format_.hash({begin + i * kPageBytes, kPageBytes}));
  }
  piece.step = Piece::Step::kWrite;
  piece.layer = top_;
  ++piece.layer->writes;
  piece.file = &piece.layer->data();
  piece.file_offset = piece.first_block() * kPageBytes;
  piece.vector = {begin, count * kPageBytes};
  piece.stuck = 0;
  if (!transfer(piece)) return false;
  written(piece);
  return true;
}

}  // namespace snapshot
