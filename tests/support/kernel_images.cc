#include "tests/support/kernel_images.h"

#include <bzlib.h>
#include <lz4hc.h>
#include <lzma.h>
#include <lzo/lzo1x.h>
#include <zlib.h>
#include <zstd.h>

#include <algorithm>
#include <bit>
#include <cstdlib>
#include <cstring>
#include <random>
#include <string_view>

namespace test {
namespace {

using View = std::span<const std::byte>;

void require(bool ok) {
  if (!ok) std::abort();  // a compressor failed: the test itself is broken
}

template <typename T>
void append(Bytes& to, const T& value) {
  auto bytes = std::as_bytes(std::span(&value, 1));
  to.insert(to.end(), bytes.begin(), bytes.end());
}

template <typename T>
void append_be(Bytes& to, T value) {
  append(to, std::byteswap(value));
}

void append_bytes(Bytes& to, View bytes) { to.insert(to.end(), bytes.begin(), bytes.end()); }

uint8_t* raw(Bytes& bytes) { return reinterpret_cast<uint8_t*>(bytes.data()); }
const uint8_t* raw(View bytes) { return reinterpret_cast<const uint8_t*>(bytes.data()); }

Bytes pack_gzip(View data) {
  z_stream stream{};
  constexpr int kGzipWrapper = 16;
  require(::deflateInit2(&stream, 6, Z_DEFLATED, MAX_WBITS + kGzipWrapper, 8, Z_DEFAULT_STRATEGY) ==
          Z_OK);
  Bytes packed(::deflateBound(&stream, data.size()));
  stream.next_in = const_cast<uint8_t*>(raw(data));
  stream.avail_in = static_cast<unsigned>(data.size());
  stream.next_out = raw(packed);
  stream.avail_out = static_cast<unsigned>(packed.size());
  require(::deflate(&stream, Z_FINISH) == Z_STREAM_END);
  packed.resize(stream.total_out);
  ::deflateEnd(&stream);
  return packed;
}

Bytes pack_lzma(View data, Packing packing) {
  lzma_options_lzma options;
  require(!::lzma_lzma_preset(&options, 1));
  options.dict_size = 1 << 20;
  lzma_filter filters[3] = {};
  size_t count = 0;
  if (packing == Packing::kXzBcj) filters[count++] = {LZMA_FILTER_X86, nullptr};
  filters[count++] = {LZMA_FILTER_LZMA2, &options};
  filters[count] = {LZMA_VLI_UNKNOWN, nullptr};
  lzma_stream stream = LZMA_STREAM_INIT;
  require((packing == Packing::kLzma
               ? ::lzma_alone_encoder(&stream, &options)
               : ::lzma_stream_encoder(&stream, filters, LZMA_CHECK_CRC32)) == LZMA_OK);
  Bytes packed(data.size() + data.size() / 2 + 4096);
  stream.next_in = raw(data);
  stream.avail_in = data.size();
  stream.next_out = raw(packed);
  stream.avail_out = packed.size();
  require(::lzma_code(&stream, LZMA_FINISH) == LZMA_STREAM_END);
  packed.resize(stream.total_out);
  ::lzma_end(&stream);
  return packed;
}

Bytes pack_zstd(View data) {
  Bytes packed(::ZSTD_compressBound(data.size()));
  ZSTD_CCtx* context = ::ZSTD_createCCtx();
  ::ZSTD_CCtx_setParameter(context, ZSTD_c_checksumFlag, 1);
  size_t size = ::ZSTD_compress2(context, packed.data(), packed.size(), data.data(), data.size());
  ::ZSTD_freeCCtx(context);
  require(!::ZSTD_isError(size));
  packed.resize(size);
  return packed;
}

Bytes pack_bzip2(View data) {
  auto size = static_cast<unsigned>(data.size() + data.size() / 50 + 1024);
  Bytes packed(size);
  require(::BZ2_bzBuffToBuffCompress(reinterpret_cast<char*>(packed.data()), &size,
                                     const_cast<char*>(reinterpret_cast<const char*>(data.data())),
                                     static_cast<unsigned>(data.size()), 1, 0, 0) == BZ_OK);
  packed.resize(size);
  return packed;
}

Bytes pack_lz4_legacy(View data) {
  constexpr uint32_t kMagic = 0x184C'2102;
  constexpr size_t kBlockSize = 8u << 20;
  Bytes packed;
  append(packed, kMagic);
  while (!data.empty()) {
    View block = data.first(std::min(data.size(), kBlockSize));
    Bytes out(static_cast<size_t>(::LZ4_compressBound(static_cast<int>(block.size()))));
    int size = ::LZ4_compress_HC(reinterpret_cast<const char*>(block.data()),
                                 reinterpret_cast<char*>(out.data()),
                                 static_cast<int>(block.size()), static_cast<int>(out.size()), 3);
    require(size > 0);
    append(packed, static_cast<uint32_t>(size));
    append_bytes(packed, View(out).first(static_cast<size_t>(size)));
    data = data.subspan(block.size());
  }
  return packed;
}

Bytes pack_lzop(View data) {
  using namespace std::string_view_literals;
  constexpr size_t kBlockSize = 256u << 10;
  constexpr uint32_t kAdlerUnpacked = 0x1;
  constexpr uint32_t kAdlerPacked = 0x2;
  Bytes packed;
  append_bytes(packed, std::as_bytes(std::span("\x89LZO\0\r\n\x1a\n"sv)));
  append_be<uint16_t>(packed, 0x1040);  // version
  append_be<uint16_t>(packed, 0x20A0);  // of the library
  append_be<uint16_t>(packed, 0x0940);  // needed
  append<uint8_t>(packed, 3);           // method
  append<uint8_t>(packed, 9);           // level
  append_be<uint32_t>(packed, kAdlerUnpacked | kAdlerPacked);
  append_be<uint32_t>(packed, 0100644);  // mode
  append_be<uint32_t>(packed, 0);        // time
  append_be<uint32_t>(packed, 0);
  append<uint8_t>(packed, 0);      // no name
  append_be<uint32_t>(packed, 0);  // checksum of the header, which readers in kernels skip
  while (!data.empty()) {
    View block = data.first(std::min(data.size(), kBlockSize));
    Bytes out(block.size() + block.size() / 16 + 67);
    Bytes work(LZO1X_1_MEM_COMPRESS);
    lzo_uint size = out.size();
    require(::lzo1x_1_compress(raw(block), block.size(), raw(out), &size, work.data()) == LZO_E_OK);
    bool stored = size >= block.size();
    View content = stored ? block : View(out).first(size);
    append_be(packed, static_cast<uint32_t>(block.size()));
    append_be(packed, static_cast<uint32_t>(content.size()));
    append_be(packed,
              static_cast<uint32_t>(::adler32(1, raw(block), static_cast<unsigned>(block.size()))));
    if (!stored)
      append_be(packed, static_cast<uint32_t>(
                            ::adler32(1, raw(content), static_cast<unsigned>(content.size()))));
    append_bytes(packed, content);
    data = data.subspan(block.size());
  }
  append_be<uint32_t>(packed, 0);
  return packed;
}

template <typename Ehdr, typename Phdr, typename Shdr>
Bytes make_elf_of(const ElfSpec& spec) {
  constexpr bool kIs64 = sizeof(Ehdr) == sizeof(Elf64_Ehdr);
  using Word = decltype(Ehdr{}.e_entry);
  Bytes note;
  if (spec.pvh_entry) {
    append(note, Elf64_Nhdr{4, sizeof(Word), 18});
    append_bytes(note, std::as_bytes(std::span("Xen", 4)));
    note.resize((note.size() + spec.note_alignment - 1) / spec.note_alignment *
                spec.note_alignment);
    append(note, static_cast<Word>(*spec.pvh_entry));
  }
  std::vector<Phdr> headers;
  size_t offset = sizeof(Ehdr) + (spec.segments.size() + (note.empty() ? 0 : 1)) * sizeof(Phdr);
  Bytes content;
  if (!note.empty()) {
    Phdr header{};
    header.p_type = PT_NOTE;
    header.p_offset = static_cast<Word>(offset);
    header.p_filesz = header.p_memsz = static_cast<Word>(note.size());
    header.p_align = static_cast<Word>(spec.note_alignment);
    headers.push_back(header);
    append_bytes(content, note);
  }
  for (const ElfSegment& segment : spec.segments) {
    Phdr header{};
    header.p_type = PT_LOAD;
    header.p_offset = static_cast<Word>(offset + content.size());
    header.p_vaddr = static_cast<Word>(segment.vaddr);
    header.p_paddr = static_cast<Word>(segment.paddr);
    header.p_filesz = static_cast<Word>(segment.content.size());
    header.p_memsz = static_cast<Word>(std::max<uint64_t>(segment.memsz, segment.content.size()));
    headers.push_back(header);
    append_bytes(content, segment.content);
  }
  Ehdr header{};
  std::memcpy(header.e_ident, ELFMAG, SELFMAG);
  header.e_ident[EI_CLASS] = kIs64 ? ELFCLASS64 : ELFCLASS32;
  header.e_ident[EI_DATA] = ELFDATA2LSB;
  header.e_ident[EI_VERSION] = EV_CURRENT;
  header.e_type = spec.type;
  header.e_machine = spec.machine;
  header.e_version = EV_CURRENT;
  header.e_entry = static_cast<Word>(spec.entry);
  header.e_phoff = sizeof(Ehdr);
  header.e_shoff = static_cast<Word>(offset + content.size());
  header.e_ehsize = sizeof(Ehdr);
  header.e_phentsize = sizeof(Phdr);
  header.e_phnum = static_cast<uint16_t>(headers.size());
  header.e_shentsize = sizeof(Shdr);
  header.e_shnum = 1;
  Bytes image;
  append(image, header);
  for (const Phdr& program_header : headers) append(image, program_header);
  append_bytes(image, content);
  append(image, Shdr{});
  return image;
}

}  // namespace

std::string name(Packing packing) {
  switch (packing) {
    case Packing::kGzip:
      return "gzip";
    case Packing::kXz:
      return "xz";
    case Packing::kXzBcj:
      return "xz_bcj";
    case Packing::kLzma:
      return "lzma";
    case Packing::kZstd:
      return "zstd";
    case Packing::kBzip2:
      return "bzip2";
    case Packing::kLz4Legacy:
      return "lz4";
    case Packing::kLzop:
      return "lzo";
    case Packing::kNone:
      return "none";
  }
  return "?";
}

Bytes pack(Packing packing, View data) {
  switch (packing) {
    case Packing::kGzip:
      return pack_gzip(data);
    case Packing::kXz:
    case Packing::kXzBcj:
    case Packing::kLzma:
      return pack_lzma(data, packing);
    case Packing::kZstd:
      return pack_zstd(data);
    case Packing::kBzip2:
      return pack_bzip2(data);
    case Packing::kLz4Legacy:
      return pack_lz4_legacy(data);
    case Packing::kLzop:
      return pack_lzop(data);
    case Packing::kNone:
      return Bytes(data.begin(), data.end());
  }
  return {};
}

Bytes code_like(size_t size, uint32_t seed) {
  std::mt19937 random(seed);
  Bytes code;
  code.reserve(size + 8);
  while (code.size() < size) {
    uint32_t word = random();
    if (word % 4 == 0) {
      append<uint8_t>(code, 0xE8);  // call, near
      append<uint32_t>(code, 0x1000 - static_cast<uint32_t>(code.size()));
    } else {
      append<uint32_t>(code, word & 0x0F0F'0000);
    }
  }
  code.resize(size);
  return code;
}

Bytes make_elf(const ElfSpec& spec) {
  return spec.is_64bit ? make_elf_of<Elf64_Ehdr, Elf64_Phdr, Elf64_Shdr>(spec)
                       : make_elf_of<Elf32_Ehdr, Elf32_Phdr, Elf32_Shdr>(spec);
}

ElfSpec small_vmlinux(size_t code_size) {
  constexpr uint64_t kBssSize = 64 << 10;
  ElfSpec spec;
  ElfSegment text;
  text.content = code_like(code_size, 1);
  text.memsz = code_size + kBssSize;
  spec.segments.push_back(text);
  return spec;
}

Bytes make_bzimage(View payload, uint32_t unpacked_size,
                   const std::function<void(setup_header&)>& adjust) {
  constexpr size_t kHeaderOffset = 0x1F1;
  Bytes image(kBzImageProtectedStart + kBzImagePayloadOffset);
  append_bytes(image, payload);
  append(image, unpacked_size);
  size_t payload_length = image.size() - kBzImageProtectedStart - kBzImagePayloadOffset;
  image.resize((image.size() + 15) / 16 * 16);
  for (size_t i = 0; i < 16; ++i) image[kBzImageProtectedStart + 0x200 + i] = std::byte{0x90};

  setup_header header{};
  header.setup_sects = kBzImageProtectedStart / 512 - 1;
  header.syssize = static_cast<uint32_t>((image.size() - kBzImageProtectedStart) / 16);
  header.boot_flag = 0xAA55;
  header.jump = static_cast<uint16_t>(0xEB | (kHeaderOffset + sizeof header - 0x202) << 8);
  header.header = 0x5372'6448;
  header.version = 0x020F;
  header.loadflags = LOADED_HIGH;
  header.code32_start = 0x10'0000;
  header.initrd_addr_max = 0x7FFF'FFFF;
  header.kernel_alignment = 0x20'0000;
  header.relocatable_kernel = 1;
  header.min_alignment = 21;
  header.xloadflags = XLF_KERNEL_64;
  header.cmdline_size = 2047;
  header.payload_offset = kBzImagePayloadOffset;
  header.payload_length = static_cast<uint32_t>(payload_length);
  header.pref_address = 0x100'0000;
  header.init_size = std::max<uint32_t>(unpacked_size + 0x1'0000, 0x8'0000);
  if (adjust) adjust(header);
  std::memcpy(image.data() + kHeaderOffset, &header, sizeof header);
  return image;
}

Bytes make_bzimage(Packing packing, View vmlinux,
                   const std::function<void(setup_header&)>& adjust) {
  return make_bzimage(pack(packing, vmlinux), static_cast<uint32_t>(vmlinux.size()), adjust);
}

}  // namespace test
