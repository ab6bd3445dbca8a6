// The registers that a core file shows, out of the vCPU sections of a snapshot.
#pragma once

#include <vector>

#include "snapshot/core_file.h"
#include "vmm/base/result.h"
#include "vmm/base/sections.h"

namespace snapshot {

// By vCPU, from 0.
base::Result<std::vector<CoreCpu>> core_registers(base::SectionReader& sections);

}  // namespace snapshot
