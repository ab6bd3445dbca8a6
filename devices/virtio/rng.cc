#include "devices/virtio/rng.h"

#include <sys/epoll.h>
#include <sys/random.h>

#include <algorithm>
#include <array>

#include "devices/virtio/chain_io.h"

namespace virtio {

using base::Result;

Result<std::unique_ptr<Rng>> Rng::create(std::string name) {
  TRY_ASSIGN(base::EventFd again, base::EventFd::create());
  return std::unique_ptr<Rng>(new Rng(std::move(name), std::move(again)));
}

Result<void> Rng::activate(Transport& transport, uint64_t) {
  transport_ = &transport;
  return transport.watch(again_.fd(), EPOLLIN, [this](uint32_t) {
    again_.consume();
    return process(0);
  });
}

bool Rng::reset() {
  transport_->unwatch(again_.fd());
  again_.consume();
  transport_ = nullptr;
  return true;
}

Result<void> Rng::process(uint16_t) {
  Virtqueue& queue = transport_->queue(0);
  TRY(queue.disable_kicks());
  uint32_t given = 0;
  for (uint32_t requests = 0;; ++requests) {
    if (given >= kTurnBytes || requests == kTurnRequests) {
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
    TRY_ASSIGN(uint32_t written, fill(chain_));
    TRY(queue.push(chain_.head, written));
    given += written;
  }
  bytes_.fetch_add(given, std::memory_order_relaxed);
  return transport_->interrupt(0);
}

Result<uint32_t> Rng::fill(const DescriptorChain& chain) {
  if (!chain.readable.empty()) return base::fail("entropy request with a readable descriptor");
  auto wanted = static_cast<uint32_t>(std::min<uint64_t>(chain.writable_bytes(), kMaxRequestBytes));
  uint32_t done = 0;
  std::array<std::byte, 4096> bytes;
  while (done < wanted) {
    size_t piece = std::min<size_t>(wanted - done, bytes.size());
    // Without GRND_NONBLOCK this could wait for the host's pool, in its first seconds only.
    ssize_t got = ::getrandom(bytes.data(), piece, GRND_NONBLOCK);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return base::fail_errno("getrandom");
    TRY(write_chain(transport_->memory(), chain, done,
                    std::span(bytes).first(static_cast<size_t>(got))));
    done += static_cast<uint32_t>(got);
  }
  return done;
}

}  // namespace virtio
