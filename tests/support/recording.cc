#include "tests/support/recording.h"

namespace test {

const char* kind_name(Event::Kind kind) {
  switch (kind) {
    case Event::Kind::kCreate:
      return "create";
    case Event::Kind::kMakeDirectory:
      return "make directory";
    case Event::Kind::kRemove:
      return "remove";
    case Event::Kind::kRename:
      return "rename";
    case Event::Kind::kWrite:
      return "write";
    case Event::Kind::kTruncate:
      return "truncate";
    case Event::Kind::kPunch:
      return "punch";
    case Event::Kind::kSync:
      return "sync";
    case Event::Kind::kSyncDirectory:
      return "sync directory";
    case Event::Kind::kComplete:
      return "complete";
    case Event::Kind::kMark:
      return "mark";
  }
  return "?";
}

std::string text(const Event& event) {
  std::string text = "#" + std::to_string(event.serial) + " " + kind_name(event.kind);
  if (event.kind == Event::Kind::kComplete) text += " of #" + std::to_string(event.of);
  if (!event.text.empty()) text += " " + event.text;
  if (event.kind == Event::Kind::kWrite || event.kind == Event::Kind::kPunch) {
    text += " offset " + std::to_string(event.offset) + " length " + std::to_string(event.length);
  }
  if (event.kind == Event::Kind::kTruncate) text += " to " + std::to_string(event.offset);
  if (!event.complete) text += " (submitted)";
  if (event.failed) text += " (failed)";
  return text;
}

}  // namespace test
