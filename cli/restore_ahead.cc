#include "cli/restore_ahead.h"

#include <array>
#include <utility>

#include "vmm/base/thread.h"
#include "vmm/kvm.h"
#include "vmm/layout.h"

namespace cli {

namespace {

// In a VM this takes as long as making the guest's memory.
void learn_cpuid() {
  if (auto kvm = vmm::Kvm::open()) (void)kvm->supported_cpuid();
}

// Afterwards the page, and the index's way there, is in memory.
void read_generation_id(const snapshot::Snapshot& from) {
  const uint64_t page = vmm::layout::kGenerationId.gfn().value;  // of the first region of RAM
  std::array<std::byte, snapshot::kPageBytes> content;
  if (page < from.pages(snapshot::kRamSpace)) {
    (void)from.read_page(snapshot::kRamSpace, page, content);
  }
}

}  // namespace

RestoreAhead::RestoreAhead() {
  auto made = base::start_thread("restore-ahead", [wanted = opened_.get_future().share()] {
    learn_cpuid();
    const Opened& opened = wanted.get();
    if (opened.from) read_generation_id(*opened.from);
  });
  if (!made) return;
  thread_ = std::move(*made);
  base::run_elsewhere(thread_);
}

RestoreAhead::~RestoreAhead() {
  if (!told_) opened_.set_value({});
  if (thread_.joinable()) thread_.join();
}

void RestoreAhead::go_on(std::shared_ptr<const snapshot::Store> store,
                         std::shared_ptr<const snapshot::Snapshot> from) {
  told_ = true;
  opened_.set_value({std::move(store), std::move(from)});
}

}  // namespace cli
