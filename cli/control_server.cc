#include "cli/control_server.h"

#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include <algorithm>
#include <array>

#include "cli/control_routes.h"
#include "cli/http_connection.h"
#include "vmm/base/log.h"

namespace cli {

struct ControlServer::Client {
  base::Fd socket;
  HttpConnection http;
  std::string output;
  Clock::time_point deadline;
  bool was_idle = true;
};

base::Result<std::unique_ptr<ControlServer>> ControlServer::start(base::UnixListener listener,
                                                                  ControlTarget& target,
                                                                  Timeouts timeouts) {
  base::Fd timer(::timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK));
  if (!timer) return base::fail_errno("timerfd_create");
  std::unique_ptr<ControlServer> server(
      new ControlServer(std::move(listener), std::move(timer), target, timeouts));
  TRY_ASSIGN(server->loop_, base::EventLoop::create("control"));
  ControlServer* self = server.get();
  TRY(self->loop_->watch(self->timer_.get(), EPOLLIN,
                         [self](uint32_t) { self->close_late_clients(); }));
  TRY(self->loop_->watch(self->listener_.fd(), EPOLLIN,
                         [self](uint32_t) { self->accept_clients(); }));
  return server;
}

ControlServer::ControlServer(base::UnixListener listener, base::Fd timer, ControlTarget& target,
                             Timeouts timeouts)
    : listener_(std::move(listener)),
      timer_(std::move(timer)),
      target_(target),
      timeouts_(timeouts) {}

ControlServer::~ControlServer() = default;

void ControlServer::accept_clients() {
  for (;;) {
    auto socket = listener_.accept();
    if (!socket) break;
    if (clients_.size() >= kMaxConnections) make_room();
    int fd = socket->get();
    auto handle = [this](const ControlRequest& request) {
      return handle_request(target_, request);
    };
    // The first request is due within its time: only a client that has been served may idle.
    auto client = std::unique_ptr<Client>(new Client{std::move(*socket), HttpConnection(handle), "",
                                                     Clock::now() + timeouts_.request, false});
    clients_[fd] = std::move(client);
    auto watched = loop_->watch(fd, EPOLLIN, [this, fd](uint32_t) { serve(fd); });
    if (!watched) {
      base::log_warning("control socket: {}", watched.error().text());
      clients_.erase(fd);
    }
  }
  set_timer();
}

// The client whose time is over first goes: it has been silent for the longest.
void ControlServer::make_room() {
  auto first = std::ranges::min_element(clients_, {},
                                        [](const auto& entry) { return entry.second->deadline; });
  close_client(first->first);
}

void ControlServer::serve(int fd) {
  auto found = clients_.find(fd);
  if (found == clients_.end()) return;
  Client& client = *found->second;
  // Nothing is read while an answer waits to be taken, so that output stays bounded.
  bool open = (!client.output.empty() || receive(client)) && send(client);
  if (!open || (client.output.empty() && client.http.closing())) {
    close_client(fd);
  } else {
    bool watching = loop_->change(fd, client.output.empty() ? EPOLLIN : EPOLLOUT).has_value();
    if (!watching) close_client(fd);
  }
  set_timer();
}

// False where the client is gone.
bool ControlServer::receive(Client& client) {
  std::array<char, 4096> chunk;
  ssize_t count = ::recv(client.socket.get(), chunk.data(), chunk.size(), 0);
  if (count < 0) return errno == EAGAIN || errno == EINTR;
  if (count == 0) return false;
  bool answered = false;
  client.http.receive({chunk.data(), static_cast<size_t>(count)}, client.output);
  answered = !client.output.empty();
  bool idle = client.http.idle();
  if (answered || (client.was_idle && !idle)) client.deadline = Clock::now() + timeouts_.request;
  client.was_idle = idle;
  return true;
}

bool ControlServer::send(Client& client) {
  if (client.output.empty()) return true;
  ssize_t count =
      ::send(client.socket.get(), client.output.data(), client.output.size(), MSG_NOSIGNAL);
  if (count < 0) return errno == EAGAIN || errno == EINTR;
  client.output.erase(0, static_cast<size_t>(count));
  if (client.output.empty() && client.was_idle) client.deadline = Clock::now() + timeouts_.idle;
  return true;
}

void ControlServer::close_client(int fd) {
  loop_->unwatch(fd);
  clients_.erase(fd);
}

void ControlServer::close_late_clients() {
  uint64_t expirations = 0;
  [[maybe_unused]] ssize_t count = ::read(timer_.get(), &expirations, sizeof expirations);
  std::vector<int> late;
  for (const auto& [fd, client] : clients_) {
    if (client->deadline <= Clock::now()) late.push_back(fd);
  }
  for (int fd : late) close_client(fd);
  set_timer();
}

// At the first deadline; off where there is no client.
void ControlServer::set_timer() {
  itimerspec when{};
  if (!clients_.empty()) {
    auto first = std::ranges::min_element(clients_, {},
                                          [](const auto& entry) { return entry.second->deadline; });
    auto ns = std::chrono::nanoseconds(first->second->deadline - Clock::now()).count();
    ns = std::max<decltype(ns)>(ns, 1'000'000);
    when.it_value.tv_sec = ns / 1'000'000'000;
    when.it_value.tv_nsec = ns % 1'000'000'000;
  }
  ::timerfd_settime(timer_.get(), 0, &when, nullptr);
}

}  // namespace cli
