// A machine's memory and disk as far as a store sees them: pages a test changes, committed through
// the store's own interface, beside the content every snapshot must have (a plain map).
#pragma once

#include <gtest/gtest.h>

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "snapshot/store/store.h"

namespace test {

using Page = std::array<std::byte, snapshot::kPageBytes>;
using Content = std::map<uint64_t, uint64_t>;  // page: what it is filled with; 0 is a zero page

struct alignas(snapshot::kPageBytes) PageBuffer {
  Page bytes{};
};

// A page that no other number gives.
inline void fill_page(Page& page, uint64_t number) {
  auto* words = reinterpret_cast<uint64_t*>(page.data());
  for (size_t i = 0; i < page.size() / sizeof(uint64_t); ++i) {
    words[i] = number == 0 ? 0 : number * 0x9E37'79B9'7F4A'7C15 + i;
  }
}

class StoreMachine {
 public:
  StoreMachine(snapshot::Store& store, uint64_t pages, std::optional<snapshot::Id> parent = {},
               Content content = {})
      : store_(store), pages_(pages), content_(std::move(content)) {
    auto branch = store.create_branch(parent, "vm");
    if (!branch) ADD_FAILURE() << branch.error().text();
    branch_ = std::move(*branch);
  }

  void write(uint64_t page, uint64_t number) {
    content_[page] = number;
    changed_[page] = number;
  }

  // All that is not zero in a full one, what was written since the last one otherwise.
  base::Result<snapshot::Id> commit(snapshot::Kind kind) {
    TRY_ASSIGN(auto commit, branch_->begin(kind));
    const bool full = kind == snapshot::Kind::kFull;
    const Content& source = full ? content_ : changed_;
    TRY_ASSIGN(const snapshot::Slot slot,
               commit->create_pack(source.size() * snapshot::kPageBytes));
    std::vector<snapshot::PageEntry> entries;
    uint64_t offset = snapshot::kPackHeaderBytes;
    auto buffer = std::make_unique<PageBuffer>();
    for (const auto& [page, number] : source) {
      if (number == 0) {
        if (!full) entries.push_back({page, 0, snapshot::kSlotZero, 0});
        continue;
      }
      fill_page(buffer->bytes, number);
      TRY(commit->file(slot).write(offset, buffer->bytes));
      entries.push_back({page, store_.hash(buffer->bytes), slot, offset});
      offset += snapshot::kPageBytes;
    }
    TRY(commit->set_pages(snapshot::kRamSpace, pages_, std::move(entries)));
    base::SectionWriter sections;
    sections.begin("vcpu0", 1).u64(content_.size());
    sections.begin("clock", 2).string("now");
    snapshot::SnapshotNotes notes;
    notes.memory = {{0, pages_ * snapshot::kPageBytes}};
    notes.config = "{\"vcpus\":1}";
    notes.time_ns = ++time_ns_;
    notes.pause_ns = 5;
    TRY_ASSIGN(auto taken, commit->finish(sections, notes));
    history_[taken->id()] = content_;
    changed_.clear();
    return taken->id();
  }

  snapshot::Branch& branch() { return *branch_; }
  void end() { branch_.reset(); }
  const Content& content() const { return content_; }
  const std::map<snapshot::Id, Content>& history() const { return history_; }
  uint64_t pages() const { return pages_; }
  void set_time(uint64_t time_ns) { time_ns_ = time_ns; }

 private:
  snapshot::Store& store_;
  const uint64_t pages_;
  std::unique_ptr<snapshot::Branch> branch_;
  Content content_, changed_;
  std::map<snapshot::Id, Content> history_;
  uint64_t time_ns_ = 0;
};

// "" where every page of the snapshot is what `content` says, by single and by ranged look-ups.
inline std::string differs(const snapshot::Snapshot& snapshot, const Content& content,
                           uint64_t pages) {
  std::vector<snapshot::PageEntry> entries(pages);
  if (auto found = snapshot.find_range(snapshot::kRamSpace, 0, entries); !found) {
    return found.error().text();
  }
  Page expected, read;
  for (uint64_t page = 0; page < pages; ++page) {
    auto entry = snapshot.find(snapshot::kRamSpace, page);
    if (!entry) return entry.error().text();
    if (entry->slot != entries[page].slot || entry->offset != entries[page].offset ||
        entry->hash != entries[page].hash || entries[page].page != page || entry->page != page) {
      return "find and find_range differ at page " + std::to_string(page);
    }
    if (auto done = snapshot.read_page(snapshot::kRamSpace, page, read); !done) {
      return done.error().text();
    }
    auto number = content.find(page);
    fill_page(expected, number == content.end() ? 0 : number->second);
    if (read != expected) return "page " + std::to_string(page) + " differs";
  }
  return "";
}

}  // namespace test
