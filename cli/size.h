// Sizes and numbers as a person writes them on the command line.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "vmm/base/result.h"

namespace cli {

// "256M", "2G", "512K", "1T": bytes, in powers of 1024. The unit must be said, so that no number
// is taken for bytes by one reader and for MiB by another.
base::Result<uint64_t> parse_size(std::string_view text);

// 1 KiB and more as "256 MiB", "1.5 GiB".
std::string format_size(uint64_t bytes);

// A decimal number from `least` to `most`; nothing before or after it.
base::Result<uint64_t> parse_number(std::string_view text, uint64_t least, uint64_t most);

}  // namespace cli
