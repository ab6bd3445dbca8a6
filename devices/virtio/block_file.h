// What a virtual disk is kept in: a raw image file or a block device, locked against other
// machines for as long as it is open. Its owner sends the requests itself (file_disk.h, io_uring on
// fd()); this file decides how the disk is opened and what may be asked of it.
#pragma once

#include <cstdint>
#include <string>

#include "devices/virtio/disk.h"
#include "vmm/base/fd.h"
#include "vmm/base/result.h"

namespace virtio {

class BlockFile {
 public:
  // How requests reach the disk. Direct ones (O_DIRECT) go past the host's page cache; memory,
  // offset and length are multiples of a sector. A file system without it gives buffered access.
  enum class Access { kAutomatic, kBuffered, kDirect };

  struct Options {
    std::string path;
    bool read_only = false;
    Access access = Access::kAutomatic;
    bool raw = false;  // even where it begins as other formats do: a guest may have written that
  };

  // Opens and locks: one machine writes, or any number read. Size and type are checked.
  static base::Result<BlockFile> open(const Options& options);
  // Takes a descriptor that is already open, as it is: nothing is locked or checked. `direct`: it
  // wants what direct access wants.
  static BlockFile adopt(base::Fd fd, uint64_t size, bool read_only, bool direct = false);

  // Nothing is written any more: others may read it now, but none may write.
  base::Result<void> share();

  int fd() const { return fd_.get(); }
  uint64_t size() const { return size_; }  // bytes, a multiple of kSectorBytes
  bool read_only() const { return read_only_; }
  bool direct() const { return direct_; }
  // Can parts of it be given back (FALLOC_FL_PUNCH_HOLE)?
  bool can_punch() const { return can_punch_; }

 private:
  BlockFile() = default;
  base::Result<void> lock(const std::string& path);
  base::Result<void> check_content(const std::string& path, bool surely_raw);
  base::Result<void> check_format(const std::string& path);
  void choose_access(Access wanted);

  base::Fd fd_;
  uint64_t size_ = 0;
  bool read_only_ = false;
  bool direct_ = false;
  bool can_punch_ = false;
};

}  // namespace virtio
