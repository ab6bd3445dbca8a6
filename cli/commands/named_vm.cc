#include "cli/commands/named_vm.h"

#include <chrono>
#include <thread>

#include "cli/runtime_dir.h"

namespace cli {
namespace {
constexpr int kLooks = 30;
constexpr std::chrono::milliseconds kMoment(10);
}  // namespace

std::shared_ptr<std::string> add_vm_name(Syntax& syntax) {
  auto name = std::make_shared<std::string>();

  syntax.argument("NAME", *name, "the machine, as minivmm ps lists it");
  return name;
}

base::Result<RunningVm> find_vm(const std::string& name) {
  return find_vm(runtime_dir_path(), name);
}

bool ended(const std::string& name, const base::Error& error) {
  const bool answered = error.os_error() == 0;
  for (int look = 1; vm_runs(runtime_dir_path(), name); ++look) {
    if (answered || look == kLooks) return false;
    std::this_thread::sleep_for(kMoment);
  }
  return true;
}

}  // namespace cli
