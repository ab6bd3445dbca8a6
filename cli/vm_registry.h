// The running machines of this user, by name: for each one a file NAME.lock in the runtime
// directory, locked as long as its process lives, that says its pid and control socket. The lock
// makes a name unique and tells a running machine from the remains of one that was killed.
//
// Any process may look; only the owner of a lock, or who has taken the lock of a dead machine,
// removes files.
#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

#include "vmm/base/fd.h"
#include "vmm/base/result.h"

namespace cli {

struct RunningVm {
  std::string name;
  pid_t pid = 0;
  std::string socket;
};

// The claim of a running machine on its name. Destroyed last: it removes the lock file.
class VmName {
 public:
  // Takes `name`, or the first free of vm1, vm2, … where it is empty. `socket` empty: NAME.sock in
  // `directory` (prepare_runtime_dir()); refused where another machine has it. Remains of a dead
  // machine of that name are removed.
  static base::Result<VmName> claim(const std::string& directory, const std::string& name,
                                    const std::string& socket);

  VmName(VmName&&) noexcept = default;
  VmName& operator=(VmName&&) = delete;
  ~VmName();

  const std::string& name() const { return vm_.name; }
  // Where to serve the control API.
  const std::string& socket() const { return vm_.socket; }

 private:
  VmName(RunningVm vm, std::string lock_path, base::Fd lock)
      : vm_(std::move(vm)), lock_path_(std::move(lock_path)), lock_(std::move(lock)) {}

  RunningVm vm_;
  std::string lock_path_;
  base::Fd lock_;
};

// All running machines by name; removes what dead ones left. An empty list where the directory is
// missing.
base::Result<std::vector<RunningVm>> running_vms(const std::string& directory);

// The error says which machines there are.
base::Result<RunningVm> find_vm(const std::string& directory, const std::string& name);

// Whether a machine of that name (still) runs.
bool vm_runs(const std::string& directory, const std::string& name);

}  // namespace cli
