#include "tests/crash/mutations.h"

#include <algorithm>
#include <cctype>
#include <map>

namespace test {
namespace {

bool is_sync(const Event& event) {
  return (event.kind == Event::Kind::kSync || event.kind == Event::Kind::kSyncDirectory) &&
         !event.failed;
}
bool is_border(const Event& event) {
  return event.kind == Event::Kind::kRename || event.kind == Event::Kind::kMark;
}

// "packs/0123…" as "packs/*".
std::string without_ids(const std::string& path) {
  std::string text;
  for (size_t at = 0; at < path.size();) {
    size_t end = at;
    while (end < path.size() && std::isxdigit(static_cast<unsigned char>(path[end]))) ++end;
    constexpr size_t kIdDigits = 32;
    if (end - at == kIdDigits) {
      text += '*';
      at = end;
    } else {
      text += path[at++];
    }
  }
  return text;
}

class Mutator {
 public:
  explicit Mutator(const Recording& recording) : recording_(recording) {
    for (size_t at = 0; at < recording.size(); ++at) {
      const Event& event = recording[at];
      if (event.kind == Event::Kind::kComplete) completion_[event.of] = at;
    }
  }

  std::vector<Mutation> all() {
    for (size_t at = 0; at < recording_.size(); ++at) {
      if (is_sync(recording_[at])) {
        leave_out(at);
        postpone(at);
        overtake_write(at);
      }
      if (recording_[at].kind == Event::Kind::kRename) hasten(at);
    }
    return std::move(mutations_);
  }

 private:
  void add(const std::string& what, size_t at, Recording recording, size_t from) {
    std::string step;
    for (size_t i = 0; i < at; ++i) {
      if (recording_[i].kind == Event::Kind::kMark) step = recording_[i].text;
    }
    step = step.substr(step.find(' ') + 1);
    std::string name = "[" + step + "] " + what + ": " + kind_name(recording_[at].kind) + " " +
                       without_ids(recording_[at].text);
    mutations_.push_back({name, std::move(recording), from});
  }

  // Where the effect of an event is there: itself, or its completion.
  size_t end_of(size_t at) const {
    auto found = completion_.find(recording_[at].serial);
    return found == completion_.end() ? at : found->second;
  }

  Recording without(size_t at) const {
    Recording result;
    for (size_t i = 0; i < recording_.size(); ++i) {
      if (i != at && i != end_of(at)) result.push_back(recording_[i]);
    }
    return result;
  }

  static size_t position(const Recording& recording, uint64_t serial) {
    auto found = std::ranges::find(recording, serial, &Event::serial);
    return static_cast<size_t>(found - recording.begin());
  }

  static void insert(Recording& recording, size_t at, Event event) {
    event.complete = true;
    recording.insert(recording.begin() + static_cast<ptrdiff_t>(at), std::move(event));
  }

  void leave_out(size_t at) { add("left out", at, without(at), at); }

  // The sync begins only after the next rename or acknowledgement.
  void postpone(size_t at) {
    size_t border = end_of(at);
    while (border < recording_.size() && !is_border(recording_[border])) ++border;
    if (border == recording_.size()) return;
    Recording result = without(at);
    insert(result, position(result, recording_[border].serial) + 1, recording_[at]);
    bool rename = recording_[border].kind == Event::Kind::kRename;
    add(rename ? "after the rename" : "after the answer", at, std::move(result), at);
  }

  // The rename does not wait for the syncs since the last rename or acknowledgement.
  void hasten(size_t at) {
    size_t first = at;
    for (size_t i = at; i > 0 && !is_border(recording_[i - 1]); --i) {
      if (is_sync(recording_[i - 1])) first = i - 1;
    }
    if (first == at) return;
    Recording result = recording_;
    std::rotate(result.begin() + static_cast<ptrdiff_t>(first),
                result.begin() + static_cast<ptrdiff_t>(at),
                result.begin() + static_cast<ptrdiff_t>(at) + 1);
    add("before the syncs", at, std::move(result), first);
  }

  // The sync does not wait for the last write it would cover.
  void overtake_write(size_t at) {
    if (recording_[at].kind != Event::Kind::kSync) return;
    for (size_t write = at; write-- > 0;) {
      const Event& event = recording_[write];
      if (event.inode != recording_[at].inode) continue;
      if (is_sync(event)) return;
      if (event.kind != Event::Kind::kWrite || end_of(write) > at || event.failed) continue;
      Recording result = without(write);
      insert(result, position(result, recording_[at].serial) + 1, event);
      add("before the last write", at, std::move(result), write);
      return;
    }
  }

  const Recording& recording_;
  std::map<uint64_t, size_t> completion_;  // serial → position of its kComplete
  std::vector<Mutation> mutations_;
};

}  // namespace

std::vector<Mutation> mutations(const Recording& recording) { return Mutator(recording).all(); }

}  // namespace test
