#include "vmm/boot/bzimage.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <random>

#include "tests/support/kernel_images.h"
#include "vmm/boot/kernel.h"
#include "vmm/layout.h"

namespace vmm::boot {
namespace {

using test::Bytes;
using test::Packing;
using testing::HasSubstr;

constexpr Gpa kRsdp{0xE'0000};
constexpr uint64_t kKernelBase = 16 * layout::kMiB;

std::unique_ptr<GuestMemory> guest(uint64_t mib) {
  return *GuestMemory::create(mib * layout::kMiB);
}

KernelSpec direct() {
  return {.kernel_path = "vmlinuz", .initrd_path = {}, .command_line = "quiet"};
}

KernelSpec stub() {
  KernelSpec spec = direct();
  spec.boot_path = BootPath::kStub;
  return spec;
}

std::string error_of(std::span<const std::byte> image, const KernelSpec& spec = direct(),
                     uint64_t mib = 64) {
  auto entry = load_kernel_image(*guest(mib), image, spec, kRsdp);
  return entry ? "no error" : entry.error().text();
}

Bytes guest_bytes(const GuestMemory& memory, uint64_t gpa, size_t size) {
  Bytes bytes(size);
  EXPECT_TRUE(memory.read(Gpa{gpa}, bytes));
  return bytes;
}

class BzImagePacking : public testing::TestWithParam<Packing> {};

TEST_P(BzImagePacking, IsUnpackedToWhereItRuns) {
  test::ElfSpec vmlinux = test::small_vmlinux(100'000);
  Bytes image = test::make_bzimage(GetParam(), test::make_elf(vmlinux));
  auto memory = guest(64);
  auto entry = load_kernel_image(*memory, image, direct(), kRsdp);
  ASSERT_TRUE(entry) << entry.error().text();
  EXPECT_EQ(entry->mode, Entry::Mode::kLong64);
  EXPECT_EQ(entry->rip, Gpa{kKernelBase});
  EXPECT_EQ(entry->boot_data, layout::kZeroPage);
  const Bytes& code = vmlinux.segments[0].content;
  EXPECT_TRUE(guest_bytes(*memory, kKernelBase, code.size()) == code);
  EXPECT_TRUE(memory->is_dirty(Gpa{kKernelBase}.gfn()));
  EXPECT_TRUE(memory->is_dirty(Gpa{kKernelBase + code.size() - 1}.gfn()));
  EXPECT_FALSE(memory->is_dirty(Gpa{kKernelBase + code.size() + kPageSize}.gfn())) << "bss";
}

INSTANTIATE_TEST_SUITE_P(Boot, BzImagePacking, testing::ValuesIn(test::kAllPackings),
                         [](const auto& packing) { return test::name(packing.param); });

TEST(BzImage, SegmentsGoToTheirPhysicalAddresses) {
  test::ElfSpec vmlinux = test::small_vmlinux(10'000);
  test::ElfSegment percpu{.paddr = kKernelBase + 0x20'0000, .vaddr = 0, .content = {}, .memsz = 0};
  percpu.content = test::code_like(5'001, 9);
  vmlinux.segments.push_back(percpu);
  auto memory = guest(64);
  auto image = test::make_bzimage(Packing::kZstd, test::make_elf(vmlinux));
  ASSERT_TRUE(load_kernel_image(*memory, image, direct(), kRsdp));
  EXPECT_TRUE(guest_bytes(*memory, kKernelBase, 10'000) == vmlinux.segments[0].content);
  EXPECT_TRUE(guest_bytes(*memory, percpu.paddr, 5'001) == percpu.content);
}

TEST(BzImage, StubIsLoadedWholeAndEnteredAtItsEntry64) {
  Bytes image = test::make_bzimage(Packing::kGzip, test::make_elf(test::small_vmlinux(10'000)));
  auto memory = guest(64);
  auto entry = load_kernel_image(*memory, image, stub(), kRsdp);
  ASSERT_TRUE(entry) << entry.error().text();
  EXPECT_EQ(entry->mode, Entry::Mode::kLong64);
  EXPECT_EQ(entry->rip, Gpa{kKernelBase + 0x200});
  Bytes protected_mode(image.begin() + test::kBzImageProtectedStart, image.end());
  EXPECT_TRUE(guest_bytes(*memory, kKernelBase, protected_mode.size()) == protected_mode);
  auto params = *memory->load<boot_params>(layout::kZeroPage);
  EXPECT_EQ(params.hdr.code32_start, kKernelBase);
}

TEST(BzImage, StubGoesWhereAlignmentAndRelocatabilityAllow) {
  Bytes elf = test::make_elf(test::small_vmlinux(1'000));
  Bytes aligned = test::make_bzimage(Packing::kGzip, elf, [](setup_header& header) {
    header.pref_address = kKernelBase + 1;
    header.kernel_alignment = 0x40'0000;
  });
  EXPECT_EQ(load_kernel_image(*guest(64), aligned, stub(), kRsdp)->rip,
            Gpa{kKernelBase + 0x40'0000 + 0x200});
  Bytes fixed = test::make_bzimage(Packing::kGzip, elf,
                                   [](setup_header& header) { header.relocatable_kernel = 0; });
  EXPECT_EQ(load_kernel_image(*guest(64), fixed, stub(), kRsdp)->rip, Gpa{0x10'0200});
}

TEST(BzImage, StubNeedsRoomForItsInitSize) {
  Bytes image = test::make_bzimage(Packing::kGzip, test::make_elf(test::small_vmlinux(1'000)),
                                   [](setup_header& header) { header.init_size = 20 << 20; });
  EXPECT_EQ(error_of(image, stub(), 36), "no error");
  EXPECT_EQ(error_of(image, stub(), 35),
            "kernel vmlinuz: needs memory up to 36 MiB, the guest has 35 MiB: give more --memory");
}

TEST(BzImage, SaysHowMuchMemoryTheUnpackedKernelNeeds) {
  test::ElfSpec vmlinux = test::small_vmlinux(1'000);
  vmlinux.segments[0].memsz = 9 << 20;
  Bytes image = test::make_bzimage(Packing::kGzip, test::make_elf(vmlinux));
  EXPECT_EQ(error_of(image, direct(), 25), "no error");
  EXPECT_THAT(error_of(image, direct(), 24), HasSubstr("needs memory up to 25 MiB"));
  EXPECT_THAT(error_of(image, direct(), 1), HasSubstr("memory too small"));
}

TEST(BzImage, RefusesWhatItCannotBoot) {
  Bytes elf = test::make_elf(test::small_vmlinux(1'000));
  auto refusal = [&](const std::function<void(setup_header&)>& adjust,
                     const KernelSpec& spec = direct()) {
    return error_of(test::make_bzimage(Packing::kGzip, elf, adjust), spec);
  };
  EXPECT_THAT(refusal([](setup_header& header) { header.version = 0x020B; }),
              HasSubstr("boot protocol 2.11, at least 2.12"));
  EXPECT_THAT(refusal([](setup_header& header) { header.xloadflags = 0; }),
              HasSubstr("32-bit kernel"));
  EXPECT_THAT(refusal([](setup_header& header) { header.loadflags = 0; }), HasSubstr("zImage"));
  EXPECT_THAT(refusal([](setup_header& header) { header.payload_offset = 0xFFFF'FFF0; }),
              HasSubstr("payload lies outside"));
  EXPECT_THAT(refusal([](setup_header& header) { header.payload_length = 0xFFFF'FFF0; }),
              HasSubstr("payload lies outside"));
  EXPECT_THAT(refusal([](setup_header& header) { header.syssize += 1; }), HasSubstr("truncated"));
  EXPECT_THAT(refusal([](setup_header& header) { header.syssize = 0xFFFF'FFFF; }),
              HasSubstr("truncated"));
  EXPECT_THAT(refusal([](setup_header& header) { header.setup_sects = 255; }),
              HasSubstr("truncated"));
  EXPECT_THAT(refusal([](setup_header& header) { header.header = 0; }), HasSubstr("not a kernel"));
  EXPECT_THAT(refusal([](setup_header& header) { header.kernel_alignment = 0; }, stub()),
              HasSubstr("alignment of 0x0"));
  EXPECT_THAT(refusal([](setup_header& header) { header.kernel_alignment = 3; }, stub()),
              HasSubstr("alignment of 0x3"));
  EXPECT_THAT(refusal([](setup_header& header) { header.pref_address = ~0ull; }, stub()),
              HasSubstr("above 3072 MiB"));
  EXPECT_THAT(refusal([](setup_header& header) { header.init_size = ~0u; }, stub()),
              HasSubstr("give more --memory"));
}

TEST(BzImage, RefusesAPayloadLargerThanDeclared) {
  test::ElfSpec vmlinux = test::small_vmlinux(1'000);
  auto with_init_size = [](uint32_t size) {
    return [size](setup_header& header) { header.init_size = size; };
  };
  Bytes elf = test::make_elf(vmlinux);
  auto elf_size = static_cast<uint32_t>(elf.size());
  EXPECT_EQ(error_of(test::make_bzimage(Packing::kGzip, elf, with_init_size(elf_size))),
            "no error");
  EXPECT_THAT(error_of(test::make_bzimage(Packing::kGzip, elf, with_init_size(elf_size - 1))),
              HasSubstr("larger than"));
  // A bomb: what follows the segments is 64 MiB of zeroes.
  elf.resize(64 << 20);
  EXPECT_THAT(error_of(test::make_bzimage(Packing::kZstd, elf, with_init_size(1 << 20))),
              HasSubstr("larger than the 1048576 bytes it declares"));
}

TEST(BzImage, NamesAnUnknownPacking) {
  Bytes payload(100, std::byte{0xAB});
  EXPECT_THAT(error_of(test::make_bzimage(payload, 100)), HasSubstr("ab ab ab ab ab ab"));
  EXPECT_THAT(error_of(test::make_bzimage(payload, 100)), HasSubstr("--boot=stub"));
}

TEST(BzImage, RefusesDamagedPayloads) {
  Bytes elf = test::make_elf(test::small_vmlinux(50'000));
  for (Packing packing :
       {Packing::kGzip, Packing::kXzBcj, Packing::kZstd, Packing::kBzip2, Packing::kLzop}) {
    Bytes packed = test::pack(packing, elf);
    packed[packed.size() / 2] ^= std::byte{0x10};
    EXPECT_NE(error_of(test::make_bzimage(packed, static_cast<uint32_t>(elf.size()))), "no error")
        << test::name(packing);
  }
}

TEST(BzImage, TruncatedAnywhereIsRefused) {
  auto memory = guest(64);
  for (const KernelSpec& spec : {direct(), stub()}) {
    Bytes image = test::make_bzimage(Packing::kLzma, test::make_elf(test::small_vmlinux(2'000)));
    ASSERT_TRUE(load_kernel_image(*memory, image, spec, kRsdp));
    for (size_t size = 0; size < image.size(); ++size) {
      Bytes cut(image.begin(), image.begin() + static_cast<ptrdiff_t>(size));
      EXPECT_FALSE(load_kernel_image(*memory, cut, spec, kRsdp)) << "cut to " << size;
    }
  }
}

TEST(BzImage, RandomDamageNeverCrashes) {
  auto memory = guest(64);
  std::mt19937 random(11);
  for (Packing packing : test::kAllPackings) {
    Bytes image = test::make_bzimage(packing, test::make_elf(test::small_vmlinux(2'000)));
    for (int round = 0; round < 200; ++round) {
      Bytes damaged = image;
      // Half of the flips into the header, where the numbers are.
      size_t first = round % 2 == 0 ? 0x1F1 : 0;
      size_t range = round % 2 == 0 ? sizeof(setup_header) : damaged.size();
      for (int flips = 0; flips < 1 + round % 4; ++flips)
        damaged[first + random() % range] ^= std::byte{static_cast<uint8_t>(1 + random() % 255)};
      KernelSpec spec = round % 3 == 0 ? stub() : direct();
      auto entry = load_kernel_image(*memory, damaged, spec, kRsdp);
      if (entry) {
        EXPECT_GE(entry->rip, layout::kKernelStart);
        EXPECT_TRUE(memory->view(entry->rip, 1));
      } else {
        EXPECT_EQ(entry.error().text().find('\n'), std::string::npos);
      }
    }
  }
}

}  // namespace
}  // namespace vmm::boot
