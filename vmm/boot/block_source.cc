#include "vmm/boot/block_source.h"

#include <lz4.h>
#include <lzo/lzo1x.h>
#include <zlib.h>

#include <algorithm>
#include <bit>
#include <concepts>
#include <cstdint>
#include <cstring>

namespace vmm::boot {
namespace {

using base::fail;
using base::Result;

// What is left of a block format's input.
class Input {
 public:
  explicit Input(std::span<const std::byte> bytes) : bytes_(bytes) {}
  size_t left() const { return bytes_.size(); }
  const std::byte* data() const { return bytes_.data(); }

  Result<std::span<const std::byte>> take(size_t size) {
    if (size > bytes_.size()) return fail("compressed data is truncated");
    auto taken = bytes_.first(size);
    bytes_ = bytes_.subspan(size);
    return taken;
  }
  template <std::unsigned_integral T>
  Result<T> take_le() {
    TRY_ASSIGN(auto bytes, take(sizeof(T)));
    T value;
    std::memcpy(&value, bytes.data(), sizeof value);
    return value;
  }
  template <std::unsigned_integral T>
  Result<T> take_be() {
    TRY_ASSIGN(T value, take_le<T>());
    return std::byteswap(value);
  }

 private:
  std::span<const std::byte> bytes_;
};

// Hands out a sequence of blocks as a stream. A block goes straight to its destination where that
// has room for the largest one, otherwise through a buffer.
class BlockSource : public ByteSource {
 public:
  BlockSource(std::span<const std::byte> input, size_t largest_block)
      : input_(input), largest_block_(largest_block) {}

  Result<size_t> read(std::span<std::byte> into) final {
    size_t done = 0;
    while (done < into.size() && !(ended_ && ready_.empty())) {
      if (ready_.empty()) {
        if (into.size() - done >= largest_block_) {
          TRY_ASSIGN(size_t size, next_block(into.subspan(done)));
          ended_ = size == 0;
          done += size;
          continue;
        }
        if (!buffer_) buffer_ = std::make_unique_for_overwrite<std::byte[]>(largest_block_);
        TRY_ASSIGN(size_t size, next_block({buffer_.get(), largest_block_}));
        ended_ = size == 0;
        ready_ = {buffer_.get(), size};
      }
      size_t size = std::min(ready_.size(), into.size() - done);
      std::memcpy(into.data() + done, ready_.data(), size);
      ready_ = ready_.subspan(size);
      done += size;
    }
    return done;
  }

 protected:
  // Unpacks the next block into `into`, which has room for the largest one. 0: no more blocks.
  virtual Result<size_t> next_block(std::span<std::byte> into) = 0;
  Input input_;

 private:
  size_t largest_block_;
  std::unique_ptr<std::byte[]> buffer_;
  std::span<const std::byte> ready_;  // the part of buffer_ not handed out yet
  bool ended_ = false;
};

// lz4 doc/lz4_Frame_format.md, "Legacy frame": a magic number, then blocks of a 32-bit length and
// data. Nothing marks the end, and nothing checks the content but the size the kernel appends.
class Lz4LegacySource final : public BlockSource {
 public:
  explicit Lz4LegacySource(std::span<const std::byte> payload)
      : BlockSource(payload.subspan(kMagicSize), kBlockSize) {}

 private:
  static constexpr size_t kMagicSize = 4;
  static constexpr size_t kBlockSize = 8u << 20;

  Result<size_t> next_block(std::span<std::byte> into) override {
    if (input_.left() == 0) return 0;
    bool last_word = input_.left() == sizeof(uint32_t);
    TRY_ASSIGN(uint32_t length, input_.take_le<uint32_t>());
    if (last_word) {
      if (length != static_cast<uint32_t>(unpacked_))
        return fail("lz4 data is corrupt (its size is not the one recorded)");
      return 0;
    }
    if (length == 0) return fail("lz4 data is corrupt (empty block)");
    TRY_ASSIGN(auto block, input_.take(length));
    if (length > static_cast<uint32_t>(LZ4_COMPRESSBOUND(kBlockSize)))
      return fail("lz4 data is corrupt (block too long)");
    int size = LZ4_decompress_safe(reinterpret_cast<const char*>(block.data()),
                                   reinterpret_cast<char*>(into.data()), static_cast<int>(length),
                                   kBlockSize);
    if (size <= 0) return fail("lz4 data is corrupt");
    unpacked_ += static_cast<size_t>(size);
    return static_cast<size_t>(size);
  }

  size_t unpacked_ = 0;
};

// The container of lzop(1): a big-endian header, then blocks of unpacked length, packed length,
// checksums and data; unpacked length 0 ends it. The kernel's reader allows blocks of 256 KiB.
class LzopSource final : public BlockSource {
 public:
  explicit LzopSource(std::span<const std::byte> payload)
      : BlockSource(payload.subspan(kMagicSize), kBlockSize) {}

  Result<void> read_header() {
    constexpr uint16_t kVersionWithLevel = 0x0940;
    TRY_ASSIGN(uint16_t version, input_.take_be<uint16_t>());
    TRY(input_.take(2));                                    // version of the library
    if (version >= kVersionWithLevel) TRY(input_.take(2));  // version needed
    TRY(input_.take(1));                                    // method
    if (version >= kVersionWithLevel) TRY(input_.take(1));  // level
    TRY_ASSIGN(flags_, input_.take_be<uint32_t>());
    if (flags_ & kFilter) return fail("lzop data uses a filter, which no kernel does");
    TRY(input_.take(4 + 4));                                // mode, time
    if (version >= kVersionWithLevel) TRY(input_.take(4));  // time, upper half
    TRY_ASSIGN(uint8_t name_length, input_.take_le<uint8_t>());
    TRY(input_.take(name_length + 4u));  // name, checksum of the header
    if (flags_ & kExtraField) return fail("lzop data has an extra field, which no kernel has");
    return {};
  }

 private:
  static constexpr size_t kMagicSize = 9;
  static constexpr size_t kBlockSize = 256u << 10;
  enum Flags : uint32_t {
    kAdlerUnpacked = 0x1,
    kAdlerPacked = 0x2,
    kExtraField = 0x40,
    kCrcUnpacked = 0x100,
    kCrcPacked = 0x200,
    kFilter = 0x800,
  };

  Result<size_t> next_block(std::span<std::byte> into) override {
    TRY_ASSIGN(uint32_t unpacked, input_.take_be<uint32_t>());
    if (unpacked == 0) return 0;
    TRY_ASSIGN(uint32_t packed, input_.take_be<uint32_t>());
    if (unpacked > kBlockSize || packed == 0 || packed > unpacked)
      return fail("lzop data is corrupt (block length)");
    uint32_t adler = 0;
    uint32_t crc = 0;
    if (flags_ & kAdlerUnpacked) {
      TRY_ASSIGN(adler, input_.take_be<uint32_t>());
    }
    if (flags_ & kCrcUnpacked) {
      TRY_ASSIGN(crc, input_.take_be<uint32_t>());
    }
    // A block that did not shrink is stored, without a second checksum.
    if (packed < unpacked) {
      if (flags_ & kAdlerPacked) TRY(input_.take(4));
      if (flags_ & kCrcPacked) TRY(input_.take(4));
    }
    TRY_ASSIGN(auto block, input_.take(packed));
    auto* output = reinterpret_cast<uint8_t*>(into.data());
    if (packed == unpacked) {
      std::memcpy(output, block.data(), packed);
    } else {
      lzo_uint size = unpacked;
      int status = lzo1x_decompress_safe(reinterpret_cast<const uint8_t*>(block.data()), packed,
                                         output, &size, nullptr);
      if (status != LZO_E_OK || size != unpacked) return fail("lzo data is corrupt");
    }
    if ((flags_ & kAdlerUnpacked && adler != ::adler32(1, output, unpacked)) ||
        (flags_ & kCrcUnpacked && crc != ::crc32(0, output, unpacked)))
      return fail("lzo data is corrupt (checksum)");
    return unpacked;
  }

  uint32_t flags_ = 0;
};

}  // namespace

std::unique_ptr<ByteSource> lz4_legacy_source(std::span<const std::byte> payload) {
  return std::make_unique<Lz4LegacySource>(payload);
}

Result<std::unique_ptr<ByteSource>> lzop_source(std::span<const std::byte> payload) {
  auto source = std::make_unique<LzopSource>(payload);
  TRY(source->read_header());
  return source;
}

}  // namespace vmm::boot
