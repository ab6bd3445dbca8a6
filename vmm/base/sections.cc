#include "vmm/base/sections.h"

#include <algorithm>
#include <cassert>

namespace base {

namespace {
constexpr size_t kExpectedSections = 64;
constexpr size_t kExpectedBytes = 256 << 10;
}  // namespace

SectionWriter::SectionWriter() {
  sections_.reserve(kExpectedSections);
  bytes_.reserve(kExpectedBytes);
}

Encoder SectionWriter::begin(std::string_view tag, uint32_t version) {
  assert(!tag.empty() && tag.size() <= kMaxSectionTag && sections_.size() < kMaxSections);
  sections_.push_back({{}, version, bytes_.size()});
  std::ranges::copy(tag, sections_.back().tag.begin());
  return Encoder(bytes_);
}

void SectionWriter::clear() {
  sections_.clear();
  bytes_.clear();
}

std::span<const std::byte> SectionWriter::data(size_t index) const {
  size_t end = index + 1 < sections_.size() ? sections_[index + 1].offset : bytes_.size();
  return std::span(bytes_).subspan(sections_[index].offset, end - sections_[index].offset);
}

SectionReader::SectionReader(std::vector<Section> sections)
    : sections_(std::move(sections)), taken_(sections_.size(), false) {}

bool SectionReader::has(std::string_view tag) const {
  for (const Section& section : sections_) {
    if (section.tag == tag) return true;
  }
  return false;
}

Result<Decoder> SectionReader::take(std::string_view tag, uint32_t version) {
  for (size_t i = 0; i < sections_.size(); ++i) {
    if (sections_[i].tag != tag) continue;
    if (taken_[i]) return fail("section '" + std::string(tag) + "' is used twice");
    if (sections_[i].version != version) {
      return fail("section '" + std::string(tag) + "' has version " +
                  std::to_string(sections_[i].version) + ", this minivmm reads version " +
                  std::to_string(version));
    }
    taken_[i] = true;
    return Decoder(sections_[i].data);
  }
  return fail("the snapshot has no section '" + std::string(tag) + "'");
}

Result<void> SectionReader::finish() const {
  std::string unknown;
  for (size_t i = 0; i < sections_.size(); ++i) {
    if (!taken_[i]) unknown += (unknown.empty() ? "'" : ", '") + sections_[i].tag + "'";
  }
  if (unknown.empty()) return {};
  return fail("the snapshot has sections that this machine has no part for: " + unknown);
}

}  // namespace base
