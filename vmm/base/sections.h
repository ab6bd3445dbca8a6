// What is saved of a machine, beside its memory and disks: named, versioned byte strings, one for
// each part (a vCPU, the clock, a device). Who writes a section also reads it; a restore must take
// every section there is, so that a part nobody knows is refused by name and not forgotten.
//
// One thread at a time. A writer that is cleared keeps its memory: saving again allocates nothing.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "vmm/base/codec.h"
#include "vmm/base/result.h"

namespace base {

inline constexpr uint32_t kMaxSectionTag = 63;          // bytes of a tag
inline constexpr uint32_t kMaxSections = 4096;          // of one machine
inline constexpr uint32_t kMaxSectionBytes = 16 << 20;  // of one section

class SectionWriter {
 public:
  SectionWriter();
  // Begins a section, which ends where the next one begins. Tags are unique: "vcpu0",
  // "block:disk0".
  Encoder begin(std::string_view tag, uint32_t version);
  void clear();

  size_t count() const { return sections_.size(); }
  std::string_view tag(size_t index) const { return sections_[index].tag.data(); }
  uint32_t version(size_t index) const { return sections_[index].version; }
  std::span<const std::byte> data(size_t index) const;

 private:
  struct Place {
    std::array<char, kMaxSectionTag + 1> tag;  // ends in a zero byte
    uint32_t version;
    size_t offset;
  };
  std::vector<Place> sections_;
  std::vector<std::byte> bytes_;
};

// The sections of a snapshot, already verified to be the bytes that were written.
class SectionReader {
 public:
  struct Section {
    std::string tag;
    uint32_t version = 0;
    std::vector<std::byte> data;
  };
  explicit SectionReader(std::vector<Section> sections);

  bool has(std::string_view tag) const;
  // The data of a section of exactly `version`; each may be taken once. The error says what is
  // missing or which version this program reads.
  Result<Decoder> take(std::string_view tag, uint32_t version);
  // Fails, naming them, where sections were not taken.
  Result<void> finish() const;

  const std::vector<Section>& all() const { return sections_; }

 private:
  std::vector<Section> sections_;
  std::vector<bool> taken_;
};

}  // namespace base
