// The argument NAME of the commands that talk to one running machine.
#pragma once

#include <memory>
#include <string>

#include "cli/syntax.h"
#include "cli/vm_registry.h"
#include "vmm/base/result.h"

namespace cli {

std::shared_ptr<std::string> add_vm_name(Syntax& syntax);

// In this user's runtime directory.
base::Result<RunningVm> find_vm(const std::string& name);

// Whether the machine that a request failed at, with `error`, has ended: its socket goes a moment
// before its name does.
bool ended(const std::string& name, const base::Error& error);

}  // namespace cli
