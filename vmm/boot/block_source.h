// The two formats whose library unpacks single blocks and leaves the framing to its user: lz4's
// legacy frame and lzop. Bytes are hostile: every length is checked against what is left.
#pragma once

#include <cstddef>
#include <memory>
#include <span>

#include "vmm/base/result.h"
#include "vmm/boot/byte_source.h"

namespace vmm::boot {

// `payload` starts with the format's magic number, and outlives the source.
std::unique_ptr<ByteSource> lz4_legacy_source(std::span<const std::byte> payload);
base::Result<std::unique_ptr<ByteSource>> lzop_source(std::span<const std::byte> payload);

}  // namespace vmm::boot
