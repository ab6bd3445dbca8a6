#include "tests/payload/snapshot_guest.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <random>
#include <stdexcept>

#include "snapshot/eager.h"
#include "snapshot/export_memory.h"
#include "tests/support/delayed_storage.h"

namespace payload_test {

using snapshot::Capture;
using snapshot::Id;
using snapshot::kPageBytes;
using snapshot::kRamSpace;
using snapshot::Pager;

namespace {

std::vector<std::byte> memory_of(const vmm::GuestMemory& memory) {
  std::vector<std::byte> bytes;
  bytes.reserve(memory.size());
  for (const auto& region : memory.regions()) {
    bytes.insert(bytes.end(), region.host, region.host + region.size);
  }
  return bytes;
}

// Of a pager: whoever waits for a page would wait for ever.
[[noreturn]] void end_test(const base::Error& error) {
  std::fprintf(stderr, "%s\n", error.text().c_str());
  std::abort();
}

template <typename T>
T value_of(base::Result<T> result) {
  if (!result) throw std::runtime_error(result.error().text());
  return std::move(*result);
}

}  // namespace

void SnapshotPayloadTest::SetUp() {
  if (auto why = cannot_run()) GTEST_SKIP() << *why;
  store_ = value_of(snapshot::Store::open_or_create(directory_.file("store")));
}

void SnapshotPayloadTest::delay_writes(uint64_t seed) {
  auto storage = value_of(snapshot::open_storage(directory_.file("store")));
  store_ = value_of(snapshot::Store::open(test::delay_writes(std::move(storage), {.seed = seed})));
}

void SnapshotPayloadTest::boot(const Guest::Options& options) {
  options_ = options;
  branch_ = value_of(store_->create_branch(std::nullopt, "vm"));
  Disks disks = make_disks(nullptr);
  attach(value_of(Guest::create(options, std::move(disks.devices))), disks);
  guest_->machine().run();
}

void SnapshotPayloadTest::attach(std::unique_ptr<Guest> guest, const Disks& disks) {
  guest_ = std::move(guest);
  live_ = value_of(snapshot::MachineGuest::create(guest_->machine(), guest_->platform(),
                                                  disks.layered, disks.described));
  capture_.emplace(*live_, *store_, *branch_);
}

void SnapshotPayloadTest::restore_lazily(const Id& id, Pager::Ahead ahead) {
  end_guest();
  auto from = value_of(store_->load(id));
  branch_ = value_of(store_->create_branch(id, "vm"));
  Disks disks = make_disks(from);
  auto fill = [&](vmm::GuestMemory& memory) -> base::Result<std::shared_ptr<void>> {
    TRY(snapshot::check_memory(memory, *from));
    TRY_ASSIGN(pager_, Pager::create(memory, from, end_test));
    TRY(pager_->begin());
    TRY(pager_->bring_ahead([ahead] { return ahead; }));
    return pager_;
  };
  attach(value_of(
             Guest::restore(options_, value_of(from->sections()), fill, std::move(disks.devices))),
         disks);
  guest_->machine().run();
}

void SnapshotPayloadTest::end_guest() {
  capture_.reset();
  live_.reset();
  branch_.reset();
  pager_.reset();
  guest_.reset();
}

Capture::Outcome SnapshotPayloadTest::take(Capture::Options options) {
  options.in_pause = [this, also = options.in_pause] {
    if (also) also();
    at_pause_ = memory_of(guest_->machine().memory());
  };
  return value_of(capture_->take(options, progress_));
}

void SnapshotPayloadTest::expect_stored(const Id& id, const std::vector<std::byte>& memory,
                                        const Pages& pages) {
  auto snapshot = value_of(store_->load(id));
  uint64_t count = std::min(pages.count, memory.size() / kPageBytes - pages.first);
  std::vector<uint64_t> numbers(count);
  for (uint64_t i = 0; i < count; ++i) numbers[i] = pages.first + i;
  std::array<std::byte, kPageBytes> page, patched;
  auto equal = [&](const std::byte* content, uint64_t number) {
    const uint64_t begin = number * kPageBytes;
    const std::byte* expected = memory.data() + begin;
    if (std::memcmp(content, expected, kPageBytes) == 0) return true;
    std::memcpy(patched.data(), content, kPageBytes);
    for (const Extent& except : pages.except) {
      const uint64_t from = std::clamp(except.offset, begin, begin + kPageBytes) - begin;
      const uint64_t to =
          std::clamp(except.offset + except.bytes, begin, begin + kPageBytes) - begin;
      std::memcpy(patched.data() + from, expected + from, to - from);
    }
    return std::memcmp(patched.data(), expected, kPageBytes) == 0;
  };

  for (uint64_t number : numbers) {
    auto read = snapshot->read_page(kRamSpace, number, page);
    ASSERT_TRUE(read) << read.error().text();
    ASSERT_TRUE(equal(page.data(), number)) << "reader: page " << number;
  }

  auto eager = value_of(vmm::GuestMemory::create(memory.size()));
  auto filled = snapshot::fill_memory(*eager, *store_, *snapshot);
  ASSERT_TRUE(filled) << filled.error().text();
  for (uint64_t number : numbers) {
    ASSERT_TRUE(equal(eager->host(number), number)) << "eager: page " << number;
  }

  auto lazy = value_of(vmm::GuestMemory::create(memory.size()));
  auto pager = value_of(Pager::create(*lazy, snapshot, end_test));
  ASSERT_TRUE(pager->begin());
  ASSERT_TRUE(pager->bring_ahead());
  std::ranges::shuffle(numbers, std::mt19937_64(id.low));
  for (uint64_t number : numbers) {
    ASSERT_TRUE(equal(lazy->host(number), number)) << "lazy: page " << number;
  }
  pager.reset();

  std::string path = directory_.file("exported");
  auto exported =
      snapshot::export_memory(*snapshot, path, snapshot::OutputFile::Existing::kReplace, {});
  ASSERT_TRUE(exported) << exported.error().text();
  std::ifstream file(path, std::ios::binary);
  std::ranges::sort(numbers);
  for (uint64_t number : numbers) {
    file.seekg(static_cast<std::streamoff>(lazy->gpa_of(number).value));
    file.read(reinterpret_cast<char*>(page.data()), kPageBytes);
    ASSERT_TRUE(file && equal(page.data(), number)) << "exported: page " << number;
  }
}

}  // namespace payload_test
