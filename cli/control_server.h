// Serves the control API of one machine on a Unix socket (0600), on a thread of its own. A client
// that is silent or slow costs a connection until its time is over, and holds up nobody.
//
// Created by `run` when the machine exists, destroyed before it.
#pragma once

#include <chrono>
#include <memory>
#include <string>
#include <unordered_map>

#include "cli/control_target.h"
#include "vmm/base/event_loop.h"
#include "vmm/base/fd.h"
#include "vmm/base/result.h"
#include "vmm/base/unix_socket.h"

namespace cli {

class ControlServer {
 public:
  static constexpr size_t kMaxConnections = 16;

  struct Timeouts {
    // To send a request that was begun, and to take its answer. Bytes that trickle in do not
    // extend it.
    std::chrono::milliseconds request{5000};
    // Between requests.
    std::chrono::milliseconds idle{60000};
  };

  // `target` must outlive the server. The listener listens.
  static base::Result<std::unique_ptr<ControlServer>> start(base::UnixListener listener,
                                                            ControlTarget& target,
                                                            Timeouts timeouts);
  static base::Result<std::unique_ptr<ControlServer>> start(base::UnixListener listener,
                                                            ControlTarget& target) {
    return start(std::move(listener), target, Timeouts());
  }
  // Answers the request being handled, then closes everything and removes the socket.
  ~ControlServer();

 private:
  struct Client;
  using Clock = std::chrono::steady_clock;

  ControlServer(base::UnixListener listener, base::Fd timer, ControlTarget& target,
                Timeouts timeouts);
  void accept_clients();
  void make_room();
  void serve(int fd);
  bool receive(Client& client);
  bool send(Client& client);
  void close_client(int fd);
  void close_late_clients();
  void set_timer();

  base::UnixListener listener_;
  base::Fd timer_;
  ControlTarget& target_;
  Timeouts timeouts_;
  std::unordered_map<int, std::unique_ptr<Client>> clients_;  // by descriptor; the loop's thread's
  std::unique_ptr<base::EventLoop> loop_;  // last: its thread uses all of the above
};

}  // namespace cli
