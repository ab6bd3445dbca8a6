#include "cli/vm_registry.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <thread>

#include "cli/runtime_dir.h"
#include "vmm/base/path.h"
#include "vmm/base/unix_socket.h"

namespace cli {
namespace {

constexpr std::string_view kLockSuffix = ".lock";
constexpr size_t kMaxLockBytes = 4096;
constexpr int kMaxUnnamed = 10000;
constexpr int kAttempts = 5;
constexpr std::chrono::milliseconds kMoment(10);

// Open file description locks: they belong to the descriptor, so that two descriptors of one
// process conflict, and asking about one does not take it.
struct flock whole_file() {
  struct flock lock{};
  lock.l_type = F_WRLCK;
  lock.l_whence = SEEK_SET;
  return lock;
}

bool take_lock(int fd) {
  struct flock lock = whole_file();
  return ::fcntl(fd, F_OFD_SETLK, &lock) == 0;
}

bool is_locked(int fd) {
  struct flock lock = whole_file();
  return ::fcntl(fd, F_OFD_GETLK, &lock) == 0 && lock.l_type != F_UNLCK;
}

// Whether `path` still names the file of `fd`: somebody may have removed it before we got the lock.
bool still_there(int fd, const std::string& path) {
  struct stat ours{}, there{};
  return ::fstat(fd, &ours) == 0 && ::lstat(path.c_str(), &there) == 0 &&
         ours.st_dev == there.st_dev && ours.st_ino == there.st_ino;
}

std::string lock_path(const std::string& directory, const std::string& name) {
  return fmt::format("{}/{}{}", directory, name, kLockSuffix);
}

// What the file says; none where its owner has not written it yet.
std::optional<RunningVm> read_lock(int fd, const std::string& name) {
  std::string text(kMaxLockBytes, '\0');
  ssize_t count = ::pread(fd, text.data(), text.size(), 0);
  text.resize(static_cast<size_t>(std::max<ssize_t>(count, 0)));
  auto value = nlohmann::json::parse(text, nullptr, false);
  if (!value.is_object() || !value.contains("pid") || !value["pid"].is_number_integer() ||
      !value.contains("socket") || !value["socket"].is_string()) {
    return std::nullopt;
  }
  return RunningVm{name, value["pid"].get<pid_t>(), value["socket"].get<std::string>()};
}

base::Result<void> write_lock(int fd, const RunningVm& vm) {
  // The path is the user's: it need not be UTF-8.
  std::string text = nlohmann::json{{"pid", vm.pid}, {"socket", vm.socket}}.dump(
      -1, ' ', false, nlohmann::json::error_handler_t::replace);
  if (::ftruncate(fd, 0) < 0) return base::fail_errno("truncate");
  return base::write_exact(fd, text.data(), text.size(), 0);
}

// Whether a killed process left it; one that somebody listens on is another machine's by now.
bool is_dead_socket(const std::string& path) {
  struct stat info{};
  if (::lstat(path.c_str(), &info) < 0 || !S_ISSOCK(info.st_mode)) return false;
  auto live = base::connect_unix(path);
  return !live && live.error().os_error() == ECONNREFUSED;
}

// To be called with the lock taken.
void remove_remains(int fd, const std::string& path, const std::string& name) {
  auto vm = read_lock(fd, name);
  if (vm && is_dead_socket(vm->socket)) ::unlink(vm->socket.c_str());
  ::unlink(path.c_str());
}

// The locked, empty file of `name`; an empty Fd where the name is taken.
base::Result<base::Fd> try_claim(const std::string& directory, const std::string& name) {
  std::string path = lock_path(directory, name);
  // `ps` holds the lock of a dead machine for a moment while it removes the remains.
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    TRY_ASSIGN(base::Fd fd, base::open_file(path, O_RDWR | O_CREAT | O_NOFOLLOW, 0600));
    if (!take_lock(fd.get())) {
      auto vm = read_lock(fd.get(), name);
      if (vm && (::kill(vm->pid, 0) == 0 || errno == EPERM)) return base::Fd();
      std::this_thread::sleep_for(kMoment);
      continue;
    }
    if (!still_there(fd.get(), path)) continue;
    struct stat info{};
    if (::fstat(fd.get(), &info) == 0 && info.st_size == 0) return fd;
    remove_remains(fd.get(), path, name);
  }
  return base::Fd();
}

// To be called with the lock taken and written, so that of two who want a socket at once one sees
// the other. No remains name it then: who removes them would take one that is bound, but does not
// listen yet, for a dead one.
base::Result<void> check_socket_is_free(const std::string& directory, const RunningVm& vm) {
  // A lock that `ps` holds for a moment looks like a machine's.
  for (int attempt = 0;; ++attempt) {
    TRY_ASSIGN(const auto vms, running_vms(directory));
    const bool bound = ::access(vm.socket.c_str(), F_OK) == 0;
    const auto other = std::ranges::find_if(vms, [&](const RunningVm& running) {
      // Of two at the same instant the first by name.
      return running.socket == vm.socket && running.name != vm.name &&
             (bound || running.name < vm.name);
    });
    if (other == vms.end()) return {};
    if (attempt == kAttempts) {
      return base::fail(fmt::format(
          "the machine {} has the control socket {}: choose another --api-socket, or stop it: "
          "minivmm stop {}",
          other->name, vm.socket, other->name));
    }
    std::this_thread::sleep_for(kMoment);
  }
}

}  // namespace

base::Result<VmName> VmName::claim(const std::string& directory, const std::string& name,
                                   const std::string& socket) {
  std::string taken = name;
  base::Fd lock;
  if (!name.empty()) {
    TRY_ASSIGN(lock, try_claim(directory, name));
    if (!lock) {
      return base::fail(fmt::format(
          "a machine named {} runs already: choose another --name, or stop it: minivmm stop {}",
          name, name));
    }
  }
  for (int i = 1; !lock && i <= kMaxUnnamed; ++i) {
    taken = fmt::format("vm{}", i);
    TRY_ASSIGN(lock, try_claim(directory, taken));
  }
  if (!lock) return base::fail("no free name for the machine: give it a --name");

  std::string path = lock_path(directory, taken);
  RunningVm vm{taken, ::getpid(), socket};
  if (socket.empty()) {
    vm.socket = fmt::format("{}/{}.sock", directory, taken);
  } else if (socket[0] != '/') {
    // Clients stand in other directories.
    std::unique_ptr<char, decltype(&::free)> here(::getcwd(nullptr, 0), ::free);
    if (!here) return base::fail_errno("find the current directory");
    vm.socket = fmt::format("{}/{}", here.get(), socket);
  }
  VmName claimed(std::move(vm), path, std::move(lock));
  TRY(check_socket_path(claimed.socket()));
  if (auto written = write_lock(claimed.lock_.get(), claimed.vm_); !written) {
    return std::unexpected(written.error().with(path));
  }
  if (!socket.empty()) TRY(check_socket_is_free(directory, claimed.vm_));
  return claimed;
}

VmName::~VmName() {
  if (lock_) ::unlink(lock_path_.c_str());
}

base::Result<std::vector<RunningVm>> running_vms(const std::string& directory) {
  std::vector<RunningVm> vms;
  auto opened = base::open_file(directory, O_RDONLY | O_DIRECTORY);
  if (!opened && opened.error().os_error() == ENOENT) return vms;
  if (!opened) return std::unexpected(opened.error());
  auto files = base::names_in(std::move(*opened));
  if (!files) return std::unexpected(files.error().with(directory));
  for (const std::string& file : *files) {
    if (!file.ends_with(kLockSuffix)) continue;
    std::string name = file.substr(0, file.size() - kLockSuffix.size());
    std::string path = lock_path(directory, name);
    // O_RDWR: a write lock needs a descriptor that can write.
    auto fd = base::open_file(path, O_RDWR | O_NOFOLLOW | O_NONBLOCK);
    if (!fd || !check_vm_name(name)) continue;
    if (is_locked(fd->get())) {
      if (auto vm = read_lock(fd->get(), name)) vms.push_back(std::move(*vm));
    } else if (take_lock(fd->get()) && still_there(fd->get(), path)) {
      remove_remains(fd->get(), path, name);
    }
  }
  std::ranges::sort(vms, {}, &RunningVm::name);
  return vms;
}

base::Result<RunningVm> find_vm(const std::string& directory, const std::string& name) {
  TRY_ASSIGN(auto vms, running_vms(directory));
  std::vector<std::string> names;
  for (RunningVm& vm : vms) {
    if (vm.name == name) return std::move(vm);
    names.push_back(vm.name);
  }
  return base::fail(fmt::format(
      "no machine named {} runs ({})", name,
      names.empty() ? "none does" : fmt::format("running: {}", fmt::join(names, ", "))));
}

bool vm_runs(const std::string& directory, const std::string& name) {
  auto fd = base::open_file(lock_path(directory, name), O_RDWR | O_NOFOLLOW | O_NONBLOCK);
  return fd && is_locked(fd->get());
}

}  // namespace cli
