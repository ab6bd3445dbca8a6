#include "devices/virtio/balloon.h"

#include <fmt/format.h>
#include <sys/epoll.h>

#include <algorithm>

#include "devices/virtio/chain_io.h"
#include "vmm/base/endian.h"

namespace virtio {

using base::Result;

namespace {

// Features and configuration (virtio 1.2, 5.5.3 and 5.5.4).
constexpr uint64_t kStatsQueue = 1 << 1;
constexpr uint64_t kDeflateOnOom = 1 << 2;
constexpr uint64_t kPageReporting = 1 << 5;
constexpr uint32_t kConfigTarget = 0;
constexpr uint32_t kConfigActual = 4;

struct [[gnu::packed]] Statistic {  // virtio 1.2, 5.5.6.3
  uint16_t tag;
  uint64_t value;
};
static_assert(sizeof(Statistic) == 10);
constexpr uint64_t kMaxStatistics = 64;

}  // namespace

Result<std::unique_ptr<Balloon>> Balloon::create(std::string name, const BalloonOptions& options) {
  TRY_ASSIGN(base::EventFd again, base::EventFd::create());
  TRY_ASSIGN(base::EventFd asked, base::EventFd::create());
  return std::unique_ptr<Balloon>(
      new Balloon(std::move(name), options, std::move(again), std::move(asked)));
}

uint64_t Balloon::features() const {
  return kStatsQueue | (options_.deflate_on_oom ? kDeflateOnOom : 0) |
         (options_.page_reporting ? kPageReporting : 0);
}

// The specification numbers the queues as queue_sizes() does; Linux leaves out those whose feature
// was not taken and moves the others up. Free page hints are not offered, so each number has one
// meaning still.
Balloon::Role Balloon::role(uint16_t queue) const {
  switch (queue) {
    case 0:
      return Role::kInflate;
    case 1:
      return Role::kDeflate;
    case kStatisticsQueue:
      return accepted_ & kStatsQueue ? Role::kStatistics : Role::kReport;
    default:
      return Role::kReport;
  }
}

std::array<uint8_t, 16> Balloon::config() const {
  std::array<uint8_t, 16> config{};
  base::store_le(config, kConfigTarget, target_pages_.load());
  base::store_le(config, kConfigActual, actual_pages_.load());
  return config;
}

void Balloon::read_config(uint32_t offset, std::span<uint8_t> data) const {
  read_config_bytes(config(), offset, data);
}

void Balloon::write_config(uint32_t offset, std::span<const uint8_t> data) {
  auto bytes = config();
  for (size_t i = 0; i < data.size(); ++i) {
    uint64_t at = uint64_t{offset} + i;
    if (at >= kConfigActual && at < kConfigActual + 4) bytes[at] = data[i];
  }
  actual_pages_ = base::load_le<uint32_t>(bytes, kConfigActual);
}

Result<void> Balloon::set_target(uint64_t mib) {
  uint64_t guest_mib = options_.guest_bytes >> 20;
  if (mib > guest_mib) {
    return base::fail(
        fmt::format("balloon of {} MiB: the guest has {} MiB, choose less", mib, guest_mib));
  }
  target_pages_ = static_cast<uint32_t>(mib * kPagesPerMib);
  target_changed_ = true;
  asked_.signal();
  return {};
}

void Balloon::request_statistics() {
  statistics_wanted_ = true;
  asked_.signal();
}

BalloonCounters Balloon::counters() const {
  return {inflated_.load(), deflated_.load(), reported_.load(), refused_.load()};
}

Result<void> Balloon::activate(Transport& transport, uint64_t features) {
  transport_ = &transport;
  accepted_ = features;
  TRY(transport.watch(again_.fd(), EPOLLIN, [this](uint32_t) { return finish_queues(); }));
  return transport.watch(asked_.fd(), EPOLLIN, [this](uint32_t) { return answer_control(); });
}

Result<void> Balloon::finish_queues() {
  again_.consume();
  for (uint16_t queue = 0; unfinished_ >> queue != 0; ++queue) {
    if (unfinished_ & (1u << queue)) TRY(process(queue));
  }
  return {};
}

bool Balloon::reset() {
  transport_->unwatch(again_.fd());
  transport_->unwatch(asked_.fd());
  again_.consume();
  transport_ = nullptr;
  unfinished_ = 0;
  statistics_buffer_.reset();
  actual_pages_ = 0;  // a driver that begins anew holds nothing
  return true;
}

Result<void> Balloon::answer_control() {
  asked_.consume();
  if (target_changed_.exchange(false)) transport_->config_changed();
  if (!statistics_buffer_ || !statistics_wanted_.exchange(false)) return {};
  TRY(transport_->queue(kStatisticsQueue).push(*statistics_buffer_, 0));
  statistics_buffer_.reset();
  return transport_->interrupt(kStatisticsQueue);
}

Result<void> Balloon::process(uint16_t queue) {
  unfinished_ &= ~(1u << queue);
  if (role(queue) == Role::kStatistics) return take_statistics();
  return empty_queue(queue);
}

Result<void> Balloon::empty_queue(uint16_t index) {
  Virtqueue& queue = transport_->queue(index);
  TRY(queue.disable_kicks());
  uint64_t pages = 0;
  for (int requests = 0;; ++requests) {
    if (pages >= kTurnPages || requests == kTurnRequests) {
      unfinished_ |= 1u << index;
      again_.signal();
      break;
    }
    TRY_ASSIGN(bool popped, queue.pop(chain_));
    if (!popped) {
      TRY_ASSIGN(bool more, queue.enable_kicks());
      if (!more) break;
      TRY(queue.disable_kicks());
      continue;
    }
    TRY_ASSIGN(uint64_t done, handle(role(index), chain_));
    pages += done;
    TRY(queue.push(chain_.head, 0));
  }
  return transport_->interrupt(index);
}

// Returns the number of pages that were given up.
Result<uint64_t> Balloon::handle(Role role, const DescriptorChain& chain) {
  switch (role) {
    case Role::kInflate:
      return inflate(chain);
    case Role::kReport:
      return report(chain);
    default:
      // The guest takes pages out of the balloon: they come back as it touches them.
      deflated_ += chain.readable_bytes() / sizeof(uint32_t);
      return 0;
  }
}

Result<uint64_t> Balloon::inflate(const DescriptorChain& chain) {
  uint64_t count = chain.readable_bytes() / sizeof(uint32_t);
  if (count > kMaxRequestPages) {
    return base::fail(
        fmt::format("balloon request of {} pages, at most {} are taken", count, kMaxRequestPages));
  }
  std::array<uint32_t, 256> numbers;
  uint64_t done = 0, given_up = 0;
  // Pages that follow each other go in one call.
  vmm::Gfn first;
  uint64_t run = 0;
  while (done < count) {
    auto piece = std::span(numbers).first(std::min<uint64_t>(count - done, numbers.size()));
    TRY(read_chain(transport_->memory(), chain, done * sizeof(uint32_t),
                   std::as_writable_bytes(piece)));
    for (uint32_t number : piece) {
      if (run > 0 && number == first.value + run) {
        ++run;
        continue;
      }
      TRY_ASSIGN(uint64_t pages, discard(first, run));
      given_up += pages;
      first = vmm::Gfn{number};
      run = 1;
    }
    done += piece.size();
  }
  TRY_ASSIGN(uint64_t pages, discard(first, run));
  given_up += pages;
  inflated_ += given_up;
  return count;
}

// Each buffer of a report is a free range of the guest; what fills no page stays.
Result<uint64_t> Balloon::report(const DescriptorChain& chain) {
  uint64_t given_up = 0;
  for (const Buffer& buffer : chain.writable) {
    uint64_t first = (buffer.gpa.value + vmm::kPageSize - 1) >> vmm::kPageShift;
    uint64_t end = (buffer.gpa.value + buffer.length) >> vmm::kPageShift;
    if (end <= first) continue;
    TRY_ASSIGN(uint64_t pages, discard(vmm::Gfn{first}, end - first));
    given_up += pages;
  }
  reported_ += given_up;
  return given_up;
}

// Returns how many of the pages were RAM and are gone now.
Result<uint64_t> Balloon::discard(vmm::Gfn first, uint64_t pages) {
  if (pages == 0) return 0;
  vmm::GuestMemory& memory = transport_->memory();
  vmm::Gpa start{first.value << vmm::kPageShift};
  uint64_t length = pages << vmm::kPageShift;
  if (memory.view(start, length)) {
    TRY_ASSIGN(bool gone, memory.discard(start, length));
    if (gone) return pages;
    refused_ += pages;
    return 0;
  }
  if (pages == 1) {
    ++refused_;
    return 0;
  }
  // A run that leaves RAM: page by page.
  uint64_t given_up = 0;
  for (uint64_t i = 0; i < pages; ++i) {
    TRY_ASSIGN(uint64_t page, discard(vmm::Gfn{first.value + i}, 1));
    given_up += page;
  }
  return given_up;
}

// The driver keeps one buffer with us; it comes with new values each time it was given back.
Result<void> Balloon::take_statistics() {
  Virtqueue& queue = transport_->queue(kStatisticsQueue);
  bool popped = false;
  do {
    TRY_ASSIGN(popped, queue.pop(chain_));
    if (popped) {
      if (statistics_buffer_) return base::fail("balloon driver gave a second statistics buffer");
      statistics_buffer_ = chain_.head;
      uint64_t count = std::min(chain_.readable_bytes() / sizeof(Statistic), kMaxStatistics);
      for (uint64_t i = 0; i < count; ++i) {
        Statistic entry;
        TRY(read_chain(transport_->memory(), chain_, i * sizeof entry,
                       std::as_writable_bytes(std::span(&entry, 1))));
        uint64_t value = entry.value;
        if (entry.tag < statistics_.size()) statistics_[entry.tag] = value;
      }
      continue;
    }
    TRY_ASSIGN(popped, queue.enable_kicks());
  } while (popped);
  // Asked for before the driver had a buffer here.
  return statistics_wanted_ ? answer_control() : Result<void>();
}

}  // namespace virtio
