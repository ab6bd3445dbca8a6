// Where running machines are found: one directory a user, 0700.
//   $XDG_RUNTIME_DIR/minivmm, else /run/minivmm for root, else /tmp/minivmm-UID
#pragma once

#include <string>
#include <string_view>

#include "vmm/base/result.h"

namespace cli {

// The path alone; nothing is looked at.
std::string runtime_dir_path();

// The path of a directory that exists now and that nobody else can write to: made where it is
// missing, refused where it belongs to somebody else or is open to others.
base::Result<std::string> prepare_runtime_dir();

// 1 to 64 letters, digits, '.', '_', '-', the first a letter or digit: it becomes a file name.
base::Result<void> check_vm_name(std::string_view name);

// Not empty and short enough for a Unix socket's address.
base::Result<void> check_socket_path(std::string_view path);

}  // namespace cli
