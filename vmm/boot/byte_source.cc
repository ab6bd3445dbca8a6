#include "vmm/boot/byte_source.h"

#include <bzlib.h>
#include <fmt/format.h>
#include <lzma.h>
#include <zlib.h>
#include <zstd.h>

#include <algorithm>
#include <climits>
#include <cstdint>
#include <cstring>
#include <string_view>
#include <vector>

#include "vmm/boot/block_source.h"

namespace vmm::boot {
namespace {

using base::fail;
using base::Result;
using Bytes = std::span<const std::byte>;

// Kernels are packed with dictionaries of up to 128 MiB; pages of it exist only once used.
constexpr uint64_t kDecoderMemoryMax = 256ull << 20;

class PlainSource final : public ByteSource {
 public:
  explicit PlainSource(Bytes bytes) : left_(bytes) {}
  Result<size_t> read(std::span<std::byte> into) override {
    size_t size = std::min(into.size(), left_.size());
    if (size > 0) std::memcpy(into.data(), left_.data(), size);
    left_ = left_.subspan(size);
    return size;
  }
  Result<uint64_t> skip(uint64_t bytes) override {
    size_t size = std::min<uint64_t>(bytes, left_.size());
    left_ = left_.subspan(size);
    return size;
  }

 private:
  Bytes left_;
};

// zlib and bzip2 take lengths as unsigned int: larger buffers go in pieces.
unsigned piece(size_t size) { return static_cast<unsigned>(std::min<size_t>(size, UINT_MAX / 2)); }

class GzipSource final : public ByteSource {
 public:
  explicit GzipSource(Bytes payload) : left_(payload) {
    constexpr int kGzipWrapper = 16;
    ready_ = ::inflateInit2(&stream_, MAX_WBITS + kGzipWrapper) == Z_OK;
  }
  ~GzipSource() override { ::inflateEnd(&stream_); }

  Result<size_t> read(std::span<std::byte> into) override {
    if (!ready_) return fail("zlib cannot start");
    size_t done = 0;
    while (done < into.size() && !ended_) {
      stream_.next_in = reinterpret_cast<Bytef*>(const_cast<std::byte*>(left_.data()));
      stream_.avail_in = piece(left_.size());
      stream_.next_out = reinterpret_cast<Bytef*>(into.data() + done);
      unsigned room = stream_.avail_out = piece(into.size() - done);
      unsigned had = stream_.avail_in;
      int status = ::inflate(&stream_, Z_NO_FLUSH);
      left_ = left_.subspan(had - stream_.avail_in);
      done += room - stream_.avail_out;
      if (status == Z_STREAM_END) {
        ended_ = true;
      } else if (status == Z_BUF_ERROR || (status == Z_OK && left_.empty() && done < into.size())) {
        return fail("gzip data is truncated");
      } else if (status != Z_OK) {
        return fail("gzip data is corrupt");
      }
    }
    return done;
  }

 private:
  Bytes left_;
  z_stream stream_{};
  bool ready_ = false;
  bool ended_ = false;
};

class LzmaSource final : public ByteSource {
 public:
  enum class Format { kXz, kAlone };
  LzmaSource(Bytes payload, Format format) {
    name_ = format == Format::kXz ? "xz" : "lzma";
    status_ = format == Format::kXz ? ::lzma_stream_decoder(&stream_, kDecoderMemoryMax, 0)
                                    : ::lzma_alone_decoder(&stream_, kDecoderMemoryMax);
    stream_.next_in = reinterpret_cast<const uint8_t*>(payload.data());
    stream_.avail_in = payload.size();
  }
  ~LzmaSource() override { ::lzma_end(&stream_); }

  Result<size_t> read(std::span<std::byte> into) override {
    stream_.next_out = reinterpret_cast<uint8_t*>(into.data());
    stream_.avail_out = into.size();
    while (stream_.avail_out > 0 && status_ == LZMA_OK) status_ = ::lzma_code(&stream_, LZMA_RUN);
    switch (status_) {
      case LZMA_OK:
      case LZMA_STREAM_END:
        return into.size() - stream_.avail_out;
      case LZMA_BUF_ERROR:
        return fail(fmt::format("{} data is truncated", name_));
      case LZMA_MEM_ERROR:
        return fail(fmt::format("no memory for the {} decoder", name_));
      case LZMA_MEMLIMIT_ERROR:
        return fail(fmt::format("{} data needs a dictionary of more than {} MiB", name_,
                                kDecoderMemoryMax >> 20));
      case LZMA_OPTIONS_ERROR:
        return fail(fmt::format("{} data uses a filter that liblzma does not have", name_));
      default:
        return fail(fmt::format("{} data is corrupt", name_));
    }
  }

 private:
  std::string_view name_;
  lzma_stream stream_ = LZMA_STREAM_INIT;
  lzma_ret status_;
};

class ZstdSource final : public ByteSource {
 public:
  explicit ZstdSource(Bytes payload)
      : context_(::ZSTD_createDCtx()), input_{payload.data(), payload.size(), 0} {}
  ~ZstdSource() override { ::ZSTD_freeDCtx(context_); }

  Result<size_t> read(std::span<std::byte> into) override {
    if (context_ == nullptr) return fail("no memory for the zstd decoder");
    ZSTD_outBuffer output{into.data(), into.size(), 0};
    while (output.pos < output.size && !ended_) {
      size_t before = output.pos;
      size_t input_before = input_.pos;
      size_t status = ::ZSTD_decompressStream(context_, &output, &input_);
      if (::ZSTD_isError(status))
        return fail(fmt::format("zstd data is corrupt ({})", ::ZSTD_getErrorName(status)));
      ended_ = status == 0;
      if (!ended_ && output.pos == before && input_.pos == input_before)
        return fail("zstd data is truncated");
    }
    return output.pos;
  }

 private:
  ZSTD_DCtx* context_;
  ZSTD_inBuffer input_;
  bool ended_ = false;
};

class Bzip2Source final : public ByteSource {
 public:
  explicit Bzip2Source(Bytes payload) : left_(payload) {
    ready_ = ::BZ2_bzDecompressInit(&stream_, 0, 0) == BZ_OK;
  }
  ~Bzip2Source() override { ::BZ2_bzDecompressEnd(&stream_); }

  Result<size_t> read(std::span<std::byte> into) override {
    if (!ready_) return fail("libbz2 cannot start");
    size_t done = 0;
    while (done < into.size() && !ended_) {
      stream_.next_in = reinterpret_cast<char*>(const_cast<std::byte*>(left_.data()));
      stream_.avail_in = piece(left_.size());
      stream_.next_out = reinterpret_cast<char*>(into.data() + done);
      unsigned room = stream_.avail_out = piece(into.size() - done);
      unsigned had = stream_.avail_in;
      int status = ::BZ2_bzDecompress(&stream_);
      left_ = left_.subspan(had - stream_.avail_in);
      done += room - stream_.avail_out;
      if (status == BZ_STREAM_END) {
        ended_ = true;
      } else if (status != BZ_OK) {
        return fail("bzip2 data is corrupt");
      } else if (left_.empty() && done < into.size()) {
        return fail("bzip2 data is truncated");
      }
    }
    return done;
  }

 private:
  Bytes left_;
  bz_stream stream_{};
  bool ready_ = false;
  bool ended_ = false;
};

bool starts_with(Bytes bytes, std::string_view magic) {
  return bytes.size() >= magic.size() && std::memcmp(bytes.data(), magic.data(), magic.size()) == 0;
}

}  // namespace

Result<uint64_t> ByteSource::skip(uint64_t bytes) {
  std::vector<std::byte> scratch(std::min<uint64_t>(bytes, 64 << 10));
  uint64_t skipped = 0;
  while (skipped < bytes) {
    auto part = std::span(scratch).first(std::min<uint64_t>(bytes - skipped, scratch.size()));
    TRY_ASSIGN(size_t size, read(part));
    skipped += size;
    if (size < part.size()) break;
  }
  return skipped;
}

std::unique_ptr<ByteSource> plain_source(Bytes bytes) {
  return std::make_unique<PlainSource>(bytes);
}

Result<std::unique_ptr<ByteSource>> unpacking_source(Bytes payload) {
  using namespace std::string_view_literals;
  if (starts_with(payload, "\x1f\x8b"sv)) return std::make_unique<GzipSource>(payload);
  if (starts_with(payload,
                  "\xfd"
                  "7zXZ\0"sv))
    return std::make_unique<LzmaSource>(payload, LzmaSource::Format::kXz);
  // A dictionary size of whole 64 KiB is what tells .lzma from noise; see lzma-file-format.txt.
  if (starts_with(payload, "\x5d\0\0"sv))
    return std::make_unique<LzmaSource>(payload, LzmaSource::Format::kAlone);
  if (starts_with(payload, "\x28\xb5\x2f\xfd"sv)) return std::make_unique<ZstdSource>(payload);
  if (starts_with(payload, "BZh"sv)) return std::make_unique<Bzip2Source>(payload);
  if (starts_with(payload, "\x02\x21\x4c\x18"sv)) return lz4_legacy_source(payload);
  if (starts_with(payload, "\x89LZO\0\r\n\x1a\n"sv)) return lzop_source(payload);
  if (starts_with(payload,
                  "\x7f"
                  "ELF"sv))
    return plain_source(payload);

  std::string magic;
  for (std::byte byte : payload.first(std::min<size_t>(payload.size(), 6)))
    magic += fmt::format("{}{:02x}", magic.empty() ? "" : " ", std::to_integer<unsigned>(byte));
  return fail(
      fmt::format("the payload is compressed in an unknown way (it starts with {}): boot "
                  "it with --boot=stub",
                  magic.empty() ? "nothing" : magic));
}

}  // namespace vmm::boot
