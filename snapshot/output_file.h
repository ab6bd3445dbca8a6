// A file made for other tools (an export): it has no name until it is complete, so that a full
// disk, Ctrl-C or kill -9 leaves nothing, and a file that is there is whole. Mode 0600: it holds
// what was in a guest's memory or on its disk.
//
// Owned and used by one thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "vmm/base/fd.h"
#include "vmm/base/result.h"

namespace snapshot {

class OutputFile {
 public:
  enum class Existing { kRefuse, kReplace };

  // Refuses at once where `path` exists and is not to be replaced, or is no regular file.
  static base::Result<OutputFile> create(const std::string& path, Existing existing);
  OutputFile(OutputFile&& other) noexcept;
  OutputFile& operator=(OutputFile&&) = delete;
  ~OutputFile();

  // What is never written reads as zero and takes no space.
  base::Result<void> write(uint64_t offset, std::span<const std::byte> from);
  base::Result<void> resize(uint64_t bytes);
  // Makes the content durable, then gives it its name.
  base::Result<void> finish();

  const std::string& path() const { return path_; }

 private:
  OutputFile(std::string path, Existing existing) : path_(std::move(path)), existing_(existing) {}
  base::Result<void> create_named();

  std::string path_;
  Existing existing_;
  base::Fd fd_;
  std::string temporary_;  // its name until it is complete; empty where it has none (O_TMPFILE)
};

}  // namespace snapshot
