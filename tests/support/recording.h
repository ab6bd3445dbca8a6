// Everything that happened to a model file system (model_storage.h), in order: what the crash tests
// replay. A transfer of an IoQueue is two events: it may reach the disk from the first on, and a
// sync that comes later than the second covers it. A plain value.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "tests/support/disk_image.h"

namespace test {

struct Event {
  enum class Kind {
    kCreate,         // directory/entry -> inode
    kMakeDirectory,  // the same
    kRemove,         // directory/entry
    kRename,         // directory/entry -> to_directory/to_entry, both of inode
    kWrite,          // data at offset of inode
    kTruncate,       // inode, offset: the new size
    kPunch,          // inode, offset, length
    kSync,           // inode
    kSyncDirectory,  // inode
    kComplete,       // of the event `of`
    kMark,           // `text`, put there by the test: "the commit returned"
  };

  Kind kind = Kind::kMark;
  uint64_t serial = 0;  // unique in the recording, the same in every mutation of it
  uint64_t of = 0;
  bool complete = true;  // at once; false: by a later kComplete, or never
  // A sync that fails leaves the disk as it is, and no later sync covers what was dirty then. A
  // write that fails may have left anything of itself.
  bool failed = false;
  Inode inode = 0, directory = 0, to_directory = 0;
  std::string entry, to_entry;
  uint64_t offset = 0, length = 0;
  std::shared_ptr<const std::vector<std::byte>> data;
  std::string text;  // for messages: the path; of a mark: what it says
};

using Recording = std::vector<Event>;

const char* kind_name(Event::Kind kind);
// "write packs/0123 offset 4096 length 512".
std::string text(const Event& event);

}  // namespace test
