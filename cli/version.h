// The version of the program, from CMake's project().
#pragma once

namespace cli {

inline constexpr const char* kVersion = MINIVMM_VERSION;

}  // namespace cli
