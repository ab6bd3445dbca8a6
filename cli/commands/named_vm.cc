#include "cli/commands/named_vm.h"

#include "cli/runtime_dir.h"

namespace cli {

std::shared_ptr<std::string> add_vm_name(CLI::App& app) {
  auto name = std::make_shared<std::string>();

  app.add_option("NAME", *name, "the machine, as minivmm ps lists it")->required();
  return name;
}

base::Result<RunningVm> find_vm(const std::string& name) {
  return find_vm(runtime_dir_path(), name);
}

}  // namespace cli
