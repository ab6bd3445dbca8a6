#include "cli/escape_keys.h"

namespace cli {

EscapeKeys::Keys EscapeKeys::filter(std::span<const uint8_t> typed) {
  constexpr uint8_t kCtrlA = 0x01;
  Keys keys;
  for (uint8_t key : typed) {
    if (!escaped_) {
      if (key == kCtrlA) {
        escaped_ = true;
      } else {
        keys.guest.push_back(key);
      }
      continue;
    }
    escaped_ = false;
    switch (key) {
      case kCtrlA:
        keys.guest.push_back(kCtrlA);
        break;
      case 'x':
      case 'X':
        keys.commands.push_back(KeyCommand::kStop);
        break;
      case 'h':
      case 'H':
      case '?':
        keys.commands.push_back(KeyCommand::kHelp);
        break;
      case 'c':
      case 'C':
        keys.commands.push_back(KeyCommand::kControl);
        break;
      default:
        break;
    }
  }
  return keys;
}

}  // namespace cli
