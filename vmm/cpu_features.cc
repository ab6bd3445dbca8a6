// Leaves and bits: Intel SDM volume 2A, CPUID; AMD APM volume 3, appendix E. Names as in Linux's
// /proc/cpuinfo.
#include "vmm/cpu_features.h"

#include <asm/kvm_para.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <string>
#include <string_view>

#include "vmm/layout.h"

namespace vmm {

using base::fail;
using base::Result;

namespace {

static_assert(sizeof(kvm_cpuid_entry2) == 40);

constexpr uint32_t kMostEntries = 256;  // of one vCPU (KVM_MAX_CPUID_ENTRIES)

enum Register { kEax, kEbx, kEcx, kEdx };
constexpr std::array<const char*, 4> kRegisterNames{"EAX", "EBX", "ECX", "EDX"};

// Registers that consist of feature bits. `changing`: bits that follow CR4 of the running guest.
// `names`: of the bits from 0 up, "" or missing where they have none here.
struct FeatureWord {
  uint32_t function, index;
  Register word;
  uint32_t changing;
  std::string_view names;  // separated by spaces, "-" for none
};

constexpr FeatureWord kFeatureWords[] = {
    {0x1, 0, kEcx, 1u << 27,
     "pni pclmulqdq dtes64 monitor ds_cpl vmx smx est tm2 ssse3 cid sdbg fma cx16 xtpr pdcm - pcid "
     "dca sse4_1 sse4_2 x2apic movbe popcnt tsc_deadline_timer aes xsave osxsave avx f16c rdrand "
     "hypervisor"},
    {0x1, 0, kEdx, 0,
     "fpu vme de pse tsc msr pae mce cx8 apic - sep mtrr pge mca cmov pat pse36 pn clflush - dts "
     "acpi mmx fxsr sse sse2 ss ht tm ia64 pbe"},
    {0x7, 0, kEbx, 0,
     "fsgsbase tsc_adjust sgx bmi1 hle avx2 - smep bmi2 erms invpcid rtm cqm - mpx rdt_a avx512f "
     "avx512dq rdseed adx smap avx512ifma - clflushopt clwb intel_pt avx512pf avx512er avx512cd "
     "sha_ni avx512bw avx512vl"},
    {0x7, 0, kEcx, 1u << 4,
     "prefetchwt1 avx512vbmi umip pku ospke waitpkg avx512_vbmi2 shstk gfni vaes vpclmulqdq "
     "avx512_vnni avx512_bitalg tme avx512_vpopcntdq - la57 - - - - - rdpid - bus_lock_detect "
     "cldemote - movdiri movdir64b enqcmd"},
    {0x7, 0, kEdx, 0,
     "- - avx512_4vnniw avx512_4fmaps fsrm uintr - - avx512_vp2intersect - md_clear - - - "
     "serialize "
     "- tsxldtrk - pconfig arch_lbr ibt - amx_bf16 avx512_fp16 amx_tile amx_int8 spec_ctrl "
     "intel_stibp flush_l1d arch_capabilities - spec_ctrl_ssbd"},
    {0x7, 1, kEax, 0,
     "- - - - avx_vnni avx512_bf16 - - - - fzrm fsrs fsrc - - - - - - - - amx_fp16 - avx_ifma"},
    {0x7, 1, kEdx, 0, ""},
    {0xD, 0, kEax, 0, "x87 sse_state avx_state bndregs bndcsr opmask zmm_hi256 hi16_zmm - pkru"},
    {0xD, 1, kEax, 0, "xsaveopt xsavec xgetbv1 xsaves xfd"},
    {0x8000'0001, 0, kEcx, 0,
     "lahf_lm cmp_legacy svm extapic cr8_legacy abm sse4a misalignsse 3dnowprefetch osvw ibs xop "
     "skinit wdt - lwp fma4 tce - nodeid_msr - tbm topoext perfctr_core perfctr_nb - bpext ptsc "
     "perfctr_llc mwaitx"},
    {0x8000'0001, 0, kEdx, 0,
     "- - - - - - - - - - - syscall - - - - - - - mp nx - mmxext - - fxsr_opt pdpe1gb rdtscp - lm "
     "3dnowext 3dnow"},
    {0x8000'0007, 0, kEdx, 0, "- - - - - - - - constant_tsc"},
    {0x8000'0008, 0, kEbx, 0,
     "clzero irperf xsaveerptr - rdpru - - - - wbnoinvd - - amd_ibpb - amd_ibrs amd_stibp - - - - "
     "- "
     "- - - amd_ssbd virt_ssbd"},
    {0x8000'0021, 0, kEax, 0, ""},
    {KVM_CPUID_FEATURES, 0, kEax, 0,
     "kvmclock kvm_nop_io_delay kvm_mmu_op kvmclock2 kvm_async_pf kvm_steal_time kvm_pv_eoi "
     "kvm_pv_unhalt - kvm_pv_tlb_flush - kvm_pv_ipi kvm_poll_control kvm_pv_sched_yield"},
};

const kvm_cpuid_entry2* find(std::span<const kvm_cpuid_entry2> table, uint32_t function,
                             uint32_t index) {
  auto found = std::ranges::find_if(table, [&](const kvm_cpuid_entry2& entry) {
    bool indexed = entry.flags & KVM_CPUID_FLAG_SIGNIFCANT_INDEX;
    return entry.function == function && (indexed ? entry.index == index : index == 0);
  });
  return found == table.end() ? nullptr : &*found;
}

uint32_t word_of(std::span<const kvm_cpuid_entry2> table, const FeatureWord& feature) {
  const kvm_cpuid_entry2* entry = find(table, feature.function, feature.index);
  if (entry == nullptr) return 0;
  return std::array{entry->eax, entry->ebx, entry->ecx, entry->edx}[feature.word];
}

std::string feature_name(const FeatureWord& feature, unsigned bit) {
  std::string_view names = feature.names;
  for (unsigned skip = 0; skip < bit && !names.empty(); ++skip) {
    names.remove_prefix(std::min(names.find(' '), names.size() - 1) + 1);
  }
  std::string_view name = names.substr(0, names.find(' '));
  if (!name.empty() && name != "-") return std::string(name);
  return fmt::format("CPUID {:#x}.{} {} bit {}", feature.function, feature.index,
                     kRegisterNames[feature.word], bit);
}

// Of a table without leaf 0 empty.
std::string vendor(std::span<const kvm_cpuid_entry2> table) {
  const kvm_cpuid_entry2* leaf = find(table, 0, 0);
  if (leaf == nullptr) return "";
  std::array<uint32_t, 3> words{leaf->ebx, leaf->edx, leaf->ecx};
  std::string name(sizeof words, '\0');
  std::memcpy(name.data(), words.data(), sizeof words);
  for (char& c : name) {
    if (c < ' ' || c > '~') c = '?';  // it may come from a file
  }
  return name;
}

}  // namespace

void encode_cpuid(std::span<const CpuidTable> tables, base::Encoder encoder) {
  encoder.u32(static_cast<uint32_t>(tables.size()));
  for (const CpuidTable& table : tables) {
    encoder.u32(static_cast<uint32_t>(table.size()));
    encoder.bytes(std::as_bytes(std::span(table)));
  }
}

Result<std::vector<CpuidTable>> take_cpuid(base::SectionReader& reader) {
  TRY_ASSIGN(base::Decoder decoder, reader.take("cpuid", kCpuidSectionVersion));
  uint32_t cpus = decoder.u32();
  if (cpus < 1 || cpus > layout::kMaxCpus) decoder.refuse();
  std::vector<CpuidTable> tables;
  for (uint32_t i = 0; decoder.ok() && i < cpus; ++i) {
    uint32_t entries = decoder.u32();
    if (entries > kMostEntries) decoder.refuse();
    auto bytes = decoder.bytes(entries * sizeof(kvm_cpuid_entry2));
    CpuidTable& table = tables.emplace_back(bytes.size() / sizeof(kvm_cpuid_entry2));
    if (!bytes.empty()) std::memcpy(table.data(), bytes.data(), bytes.size());
  }
  TRY(decoder.finish("section 'cpuid'"));
  return tables;
}

Result<void> check_features(std::span<const kvm_cpuid_entry2> saved,
                            std::span<const kvm_cpuid_entry2> offered) {
  if (vendor(saved) != vendor(offered)) {
    return fail(fmt::format("the guest ran on a processor of {}, this host's is of {}",
                            vendor(saved), vendor(offered)));
  }
  std::string missing;
  for (const FeatureWord& feature : kFeatureWords) {
    uint32_t lost = word_of(saved, feature) & ~word_of(offered, feature) & ~feature.changing;
    for (unsigned bit = 0; bit < 32; ++bit) {
      if (!(lost >> bit & 1)) continue;
      missing += (missing.empty() ? "" : ", ") + feature_name(feature, bit);
    }
  }
  if (missing.empty()) return {};
  return fail("this host's processor lacks features that the guest uses: " + missing +
              "; restore on a host that has them");
}

}  // namespace vmm
