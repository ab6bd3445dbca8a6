#include "snapshot/store/format.h"

#include <fmt/format.h>
#include <xxhash.h>

namespace snapshot {

namespace {
constexpr uint64_t kReadCompatible = 0;  // bits set by us; unknown ones do not matter to a reader

uint64_t unseeded(std::span<const std::byte> bytes) {
  return XXH3_64bits(bytes.data(), bytes.size());
}
}  // namespace

uint64_t Format::hash(std::span<const std::byte> bytes) const {
  return XXH3_64bits_withSeed(bytes.data(), bytes.size(), seed);
}

std::vector<std::byte> encode_format(const Format& format) {
  std::vector<std::byte> bytes;
  base::Encoder out(bytes);
  out.bytes(std::as_bytes(std::span(kStoreMagic)));
  out.u32(kFormatVersion);
  out.u32(kHashXxh3);
  out.u64(kKnownIncompatible);
  out.u64(kReadCompatible);
  encode_id(out, format.uuid);
  out.u64(format.seed);
  out.u64(unseeded(bytes));
  return bytes;
}

base::Result<Format> decode_format(std::span<const std::byte> bytes) {
  if (bytes.size() != kFormatBytes || !has_magic(bytes, kStoreMagic)) {
    return base::fail("FORMAT is not that of a snapshot store");
  }
  base::Decoder in(bytes.subspan(kMagicBytes));
  const uint32_t version = in.u32();
  const uint32_t algorithm = in.u32();
  const uint64_t incompatible = in.u64();
  in.u64();
  Format format;
  format.uuid = decode_id(in);
  format.seed = in.u64();
  const uint64_t hash = in.u64();
  TRY(in.finish("FORMAT"));
  if (hash != unseeded(bytes.first(kFormatBytes - sizeof hash))) {
    return base::fail("FORMAT is damaged: its hash is wrong");
  }
  if (version != kFormatVersion || algorithm != kHashXxh3 || (incompatible & ~kKnownIncompatible)) {
    return base::fail(
        fmt::format("the store has format {} (hash {}, features {:#x}), this minivmm reads format "
                    "{}: use {}",
                    version, algorithm, incompatible, kFormatVersion,
                    version < kFormatVersion ? "the one that made it" : "a newer one"));
  }
  return format;
}

std::vector<std::byte> encode_pack_header(const Format& format, const Id& id) {
  std::vector<std::byte> bytes;
  bytes.reserve(kPackHeaderBytes);
  base::Encoder out(bytes);
  out.bytes(std::as_bytes(std::span(kPackMagic)));
  encode_id(out, format.uuid);
  encode_id(out, id);
  bytes.resize(kPackHeaderBytes - sizeof(uint64_t));
  out.u64(format.hash(bytes));
  return bytes;
}

base::Result<void> check_pack_header(const Format& format, const Id& id,
                                     std::span<const std::byte> bytes) {
  if (std::ranges::equal(bytes, encode_pack_header(format, id))) return {};
  return base::fail("the header is damaged, or that of another pack or store");
}

}  // namespace snapshot
