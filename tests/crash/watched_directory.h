// A real directory whose files are used past snapshot::Storage: system calls on them are recorded
// and fail as those of a model file system (model_storage.h). No fsync of the program is really
// done.
//
// One at a time, on one thread. The calls arrive by ld's --wrap (tests/CMakeLists.txt): open,
// close, read, pread, pwrite, fsync and unlink; others pass by unseen. There are no directories in
// it.
#pragma once

#include <map>
#include <optional>
#include <string>

#include "tests/support/disk_image.h"
#include "tests/support/model_storage.h"
#include "tests/support/recording.h"

namespace test {

// All files of a directory as an image, and the other way round: those that are not in it go.
DiskImage image_of_directory(const std::string& path);
void write_directory(const std::string& path, const DiskImage& image);
std::string content_of(const DiskImage& image, const std::string& name);

class WatchedDirectory {
 public:
  // What is there is durable.
  explicit WatchedDirectory(std::string path);
  WatchedDirectory(const WatchedDirectory&) = delete;
  WatchedDirectory& operator=(const WatchedDirectory&) = delete;
  ~WatchedDirectory();

  const std::string& path() const { return path_; }
  const DiskImage& start() const { return start_; }
  const Recording& recording() const { return recording_; }
  void mark(const std::string& text) { record(Event::Kind::kMark, text); }
  void set_faults(FaultPlan plan) { plan_ = std::move(plan); }
  uint64_t calls() const { return calls_; }

  // The system calls; nothing where they are not about one of these files.
  std::optional<int> open(const char* path, int flags, unsigned mode);
  void closed(int fd) { open_.erase(fd); }
  std::optional<ssize_t> read(int fd, void* into, size_t bytes, std::optional<off_t> offset);
  std::optional<ssize_t> write(int fd, const void* from, size_t bytes, off_t offset);
  std::optional<int> sync(int fd);
  std::optional<int> unlink(const char* path);

 private:
  struct OpenFile {
    std::string name;  // "" for the directory
    Inode inode = kRootInode;
  };
  std::optional<std::string> name_in(const char* path) const;
  std::optional<Fault> fault(Call call, const std::string& name);
  Event& record(Event::Kind kind, const std::string& text);

  const std::string path_;
  const DiskImage start_;
  Recording recording_;
  std::map<std::string, Inode> inodes_;
  std::map<int, OpenFile> open_;  // by descriptor
  std::map<std::string, Contents> synced_;
  Inode next_inode_ = 0;
  FaultPlan plan_;
  uint64_t calls_ = 0;
};

}  // namespace test
