#include "cli/runtime_dir.h"

#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>

#include "vmm/base/unix_socket.h"

namespace cli {

std::string runtime_dir_path() {
  if (const char* xdg = std::getenv("XDG_RUNTIME_DIR"); xdg != nullptr && xdg[0] == '/') {
    return std::string(xdg) + "/minivmm";
  }
  if (::geteuid() == 0) return "/run/minivmm";
  return fmt::format("/tmp/minivmm-{}", ::geteuid());
}

base::Result<std::string> prepare_runtime_dir() {
  std::string path = runtime_dir_path();
  if (::mkdir(path.c_str(), 0700) < 0 && errno != EEXIST) {
    return base::fail_errno(
        fmt::format("create {} (XDG_RUNTIME_DIR chooses another directory)", path));
  }
  // In /tmp somebody else may have been here first, with a link or a directory of his own.
  struct stat info{};
  if (::lstat(path.c_str(), &info) < 0) return base::fail_errno("look at " + path);
  if (!S_ISDIR(info.st_mode) || info.st_uid != ::geteuid() || (info.st_mode & 0022) != 0) {
    return base::fail(fmt::format(
        "{} is not a directory that only you can write to: remove it, or set XDG_RUNTIME_DIR",
        path));
  }
  return path;
}

base::Result<void> check_vm_name(std::string_view name) {
  auto letter_or_digit = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
  };
  bool good = !name.empty() && name.size() <= 64 && letter_or_digit(name[0]) &&
              std::ranges::all_of(name, [&](char c) {
                return letter_or_digit(c) || c == '.' || c == '_' || c == '-';
              });
  if (good) return {};
  return base::fail(fmt::format(
      "'{}' is no name for a machine: 1 to 64 letters, digits, '.', '_', '-', first a letter or "
      "digit",
      name));
}

base::Result<void> check_socket_path(std::string_view path) {
  if (path.empty()) return base::fail("no path given");
  if (path.size() > base::kMaxUnixPath) {
    return base::fail(fmt::format("the path {} is too long for a Unix socket: {} bytes at most",
                                  path, base::kMaxUnixPath));
  }
  return {};
}

}  // namespace cli
