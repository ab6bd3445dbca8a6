#include "vmm/memory_template.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>

#include "vmm/layout.h"

namespace vmm {
namespace {

constexpr uint64_t kBytes = 1 << 20;

base::Result<void> fill(GuestMemory& memory) {
  for (uint64_t page = 0; page < memory.ram_pages(); ++page) {
    TRY(memory.store<uint64_t>(memory.gpa_of(page), page + 1));
  }
  return {};
}

std::unique_ptr<GuestMemory> copy_of(const MemoryTemplate& memory, uint64_t bytes = kBytes) {
  return *GuestMemory::create(bytes, memory.copy());
}

TEST(MemoryTemplate, EachMachineBeginsWithItAndWritesItsOwn) {
  auto memory = MemoryTemplate::create(kBytes, fill);
  ASSERT_TRUE(memory) << memory.error().text();
  auto one = copy_of(*memory), other = copy_of(*memory);
  ASSERT_TRUE(one->store<uint64_t>(Gpa{5 * 4096}, 77));
  EXPECT_EQ(*one->load<uint64_t>(Gpa{5 * 4096}), 77u);
  EXPECT_EQ(*other->load<uint64_t>(Gpa{5 * 4096}), 6u);
  EXPECT_EQ(*copy_of(*memory)->load<uint64_t>(Gpa{5 * 4096}), 6u);
  EXPECT_EQ(*one->load<uint64_t>(Gpa{6 * 4096}), 7u);
}

TEST(MemoryTemplate, WhatAMachineGivesBackIsZeroAndNotTheTemplate) {
  auto memory = *MemoryTemplate::create(kBytes, fill);
  auto machine = copy_of(memory);
  ASSERT_TRUE(machine->store<uint64_t>(Gpa{9 * 4096}, 77));
  ASSERT_TRUE(machine->discard(Gpa{9 * 4096}, 2 * 4096));
  EXPECT_EQ(*machine->load<uint64_t>(Gpa{8 * 4096}), 9u);
  EXPECT_EQ(*machine->load<uint64_t>(Gpa{9 * 4096}), 0u);
  EXPECT_EQ(*machine->load<uint64_t>(Gpa{10 * 4096}), 0u);
  EXPECT_EQ(*machine->load<uint64_t>(Gpa{11 * 4096}), 12u);
  EXPECT_TRUE(machine->is_dirty(Gfn{10}));
  ASSERT_TRUE(machine->store<uint64_t>(Gpa{10 * 4096}, 5));
  EXPECT_EQ(*machine->load<uint64_t>(Gpa{10 * 4096}), 5u);
}

// A balloon that takes every second page must not use up the process's mappings.
TEST(MemoryTemplate, GivesBackAsManyRunsAsTheProcessCanBear) {
  constexpr uint64_t kLarge = 320 << 20, kPages = kLarge / 4096, kLimit = 65'530;
  auto memory = *MemoryTemplate::create(kLarge, [](GuestMemory& into) -> base::Result<void> {
    return into.store<uint64_t>(Gpa{(kPages - 2) * 4096}, 7);
  });
  auto machine = copy_of(memory, kLarge);
  uint64_t gone = 0;
  for (uint64_t page = 0; page < kPages; page += 2) {
    auto discarded = machine->discard(Gpa{page * 4096}, 4096);
    ASSERT_TRUE(discarded) << page << ": " << discarded.error().text();
    gone += *discarded;
  }
  EXPECT_GT(gone, 1000u);
  EXPECT_LT(gone, kLimit / 2);
  EXPECT_EQ(*machine->load<uint64_t>(Gpa{(kPages - 2) * 4096}), 7u) << "it was to stay";
  // What was given back once can be given back again, as often as the guest likes.
  ASSERT_TRUE(machine->store<uint64_t>(Gpa{4096 * 2}, 9));
  EXPECT_TRUE(*machine->discard(Gpa{4096 * 2}, 4096));
  EXPECT_EQ(*machine->load<uint64_t>(Gpa{4096 * 2}), 0u);
  void* more = ::mmap(nullptr, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  EXPECT_NE(more, MAP_FAILED);
  ::munmap(more, 4096);
}

TEST(MemoryTemplate, HoldsBothSidesOfTheHole) {
  constexpr uint64_t kLarge = 4 * layout::kGiB;
  auto memory = MemoryTemplate::create(kLarge, [](GuestMemory& into) -> base::Result<void> {
    TRY(into.store<uint32_t>(Gpa{0x1000}, 1));
    return into.store<uint32_t>(layout::kHighRamStart, 2);
  });
  ASSERT_TRUE(memory) << memory.error().text();
  auto machine = copy_of(*memory, kLarge);
  EXPECT_EQ(*machine->load<uint32_t>(Gpa{0x1000}), 1u);
  EXPECT_EQ(*machine->load<uint32_t>(layout::kHighRamStart), 2u);
}

TEST(MemoryTemplate, NobodyCanWriteIt) {
  auto memory = *MemoryTemplate::create(kBytes, fill);
  int fd = memory.copy().fd;
  EXPECT_EQ(::mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0), MAP_FAILED);
  EXPECT_LT(::pwrite(fd, "x", 1, 0), 0);
  EXPECT_LT(::ftruncate(fd, 0), 0);
}

TEST(MemoryTemplate, IsNotThereWhereItCannotBeFilled) {
  auto memory = MemoryTemplate::create(
      kBytes, [](GuestMemory&) -> base::Result<void> { return base::fail("page 3 is damaged"); });
  ASSERT_FALSE(memory);
  EXPECT_EQ(memory.error().text(), "page 3 is damaged");
}

}  // namespace
}  // namespace vmm
