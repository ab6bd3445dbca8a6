// The keys that are for the VMM and not for the guest: Ctrl-A, then one more, as QEMU has them.
//   x  stop the machine at once       h, ?  list the keys
//   c  how to control the machine     Ctrl-A  one Ctrl-A for the guest
// Any other key after Ctrl-A is dropped, as QEMU does.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace cli {

enum class KeyCommand { kStop, kHelp, kControl };

class EscapeKeys {
 public:
  struct Keys {
    std::vector<uint8_t> guest;
    std::vector<KeyCommand> commands;
  };

  // Ctrl-A and the next key may come in two calls.
  Keys filter(std::span<const uint8_t> typed);

 private:
  bool escaped_ = false;
};

inline constexpr const char* kEscapeKeysHelp =
    "Ctrl-A x stop the machine, Ctrl-A c how to control it, Ctrl-A Ctrl-A send Ctrl-A, "
    "Ctrl-A h this help";

}  // namespace cli
