#include "tests/crash/guest.h"

#include <cstring>
#include <list>
#include <numeric>

#include "tests/crash/disk.h"

namespace test {

using base::fail;
using base::Result;
using snapshot::kPageBytes;
using snapshot::PageEntry;

PageBytes page_bytes(uint64_t value) {
  PageBytes page;
  for (size_t at = 0; at < kPageBytes; at += sizeof value) {
    std::memcpy(page.bytes.data() + at, &value, sizeof value);
  }
  return page;
}

Result<uint64_t> page_value(std::span<const std::byte> bytes) {
  uint64_t value;
  std::memcpy(&value, bytes.data(), sizeof value);
  if (std::memcmp(bytes.data(), page_bytes(value).bytes.data(), kPageBytes) == 0) return value;
  return fail("a page is a mixture");
}

namespace {

struct PageWrite : snapshot::IoQueue::Operation {
  std::vector<PageBytes> pages;
  std::vector<iovec> vectors;
  uint64_t offset = 0;
};

// Writes runs of up to four pages, several at once, whatever order they finish in.
Result<void> write_all(snapshot::Store& store, snapshot::File& file, uint64_t offset,
                       const std::vector<PageBytes>& pages) {
  constexpr size_t kPagesAtOnce = 4;
  std::list<PageWrite> writes;
  TRY_ASSIGN(auto queue, store.storage().make_queue(8));
  for (size_t first = 0; first < pages.size(); first += kPagesAtOnce) {
    PageWrite& write = writes.emplace_back();
    size_t count = std::min(kPagesAtOnce, pages.size() - first);
    write.pages.assign(pages.begin() + static_cast<ptrdiff_t>(first),
                       pages.begin() + static_cast<ptrdiff_t>(first + count));
    write.offset = offset + first * kPageBytes;
    for (PageBytes& page : write.pages) write.vectors.push_back({page.bytes.data(), kPageBytes});
    TRY(queue->writev(write, file, write.vectors, write.offset));
  }
  TRY(queue->submit());
  while (queue->wait_completion() != nullptr) {
  }
  for (const PageWrite& write : writes) {
    if (write.result < 0) return fail("write " + file.name(), -write.result);
    if (static_cast<size_t>(write.result) < write.pages.size() * kPageBytes) {
      return fail("write " + file.name() + ": it was short");
    }
  }
  return {};
}

}  // namespace

Result<std::vector<PageEntry>> Guest::write_pages(snapshot::Store& store, snapshot::Commit& commit,
                                                  const std::vector<uint64_t>& pages) {
  std::vector<PageEntry> entries;
  std::vector<PageBytes> contents;
  TRY_ASSIGN(auto pack, commit.create_pack(pages.size() * kPageBytes));
  for (uint64_t page : pages) {
    PageEntry entry{.page = page};
    if (ram_[page] != 0) {
      PageBytes content = page_bytes(ram_[page]);
      entry.hash = store.hash(content.bytes);
      entry.slot = pack;
      entry.offset = kPageBytes * (1 + contents.size());
      contents.push_back(content);
    }
    entries.push_back(entry);
  }
  TRY(write_all(store, commit.file(pack), kPageBytes, contents));
  return entries;
}

Content Guest::content() const { return {ram_, disk_ ? disk_->content() : Pages()}; }

Result<std::shared_ptr<const snapshot::Snapshot>> Guest::commit(
    snapshot::Store& store, snapshot::Branch& branch, snapshot::Kind kind,
    const std::function<void()>& meanwhile) {
  std::vector<uint64_t> pages(dirty_.begin(), dirty_.end());
  if (kind == snapshot::Kind::kFull) {
    pages.resize(ram_.size());
    std::iota(pages.begin(), pages.end(), uint64_t{0});
  }
  TRY_ASSIGN(auto commit, branch.begin(kind));
  if (disk_) TRY(disk_->freeze(branch));
  if (meanwhile) meanwhile();
  TRY_ASSIGN(auto entries, write_pages(store, *commit, pages));
  if (kind == snapshot::Kind::kFull) {
    std::erase_if(entries,
                  [](const PageEntry& entry) { return entry.slot == snapshot::kSlotZero; });
  }
  TRY(commit->set_pages(snapshot::kRamSpace, ram_.size(), std::move(entries)));
  snapshot::SnapshotNotes notes;
  notes.memory = {{.gpa = 0, .size = ram_.size() * kPageBytes}};
  notes.config = "{}";
  if (disk_) TRY(disk_->add_to(*commit, notes));
  base::SectionWriter sections;
  sections.begin("vcpu0", 1).u64(ram_[0]);
  return commit->finish(sections, notes);
}

Result<snapshot::Id> Guest::take(snapshot::Store& store, snapshot::Branch& branch,
                                 snapshot::Kind kind, const std::function<void()>& meanwhile) {
  auto taken = commit(store, branch, kind, meanwhile);
  if (!taken) {
    if (disk_) disk_->commit_failed(taken.error());
    return std::unexpected(taken.error());
  }
  if (disk_) disk_->committed(*taken);
  dirty_.clear();
  return (*taken)->id();
}

Result<Content> read_content(snapshot::Store& store, const snapshot::Id& id) {
  TRY_ASSIGN(auto snapshot, store.load(id));
  Content content;
  content.ram.resize(snapshot->pages(snapshot::kRamSpace));
  for (uint64_t page = 0; page < content.ram.size(); ++page) {
    PageBytes bytes;
    TRY(snapshot->read_page(snapshot::kRamSpace, page, bytes.bytes));
    TRY_ASSIGN(content.ram[page], page_value(bytes.bytes));
  }
  TRY_ASSIGN(auto sections, snapshot->sections());
  TRY_ASSIGN(auto vcpu, sections.take("vcpu0", 1));
  if (vcpu.u64() != content.ram[0]) return fail("the state is another snapshot's");
  TRY_ASSIGN(content.disk, read_disk(*snapshot));
  return content;
}

}  // namespace test
