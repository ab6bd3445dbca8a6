#include "tests/crash/watched_directory.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdarg>
#include <filesystem>
#include <fstream>
#include <stdexcept>

// Their names are ld's.
// NOLINTBEGIN
extern "C" {
int __real_open(const char* path, int flags, ...);
int __real_close(int fd);
ssize_t __real_read(int fd, void* into, size_t bytes);
ssize_t __real_pread(int fd, void* into, size_t bytes, off_t offset);
ssize_t __real_pwrite(int fd, const void* from, size_t bytes, off_t offset);
int __real_unlink(const char* path);
}
// NOLINTEND

namespace test {
namespace {

WatchedDirectory* watched = nullptr;

std::string whole_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

Contents contents_of(const std::string& bytes) {
  Contents contents;
  contents.write(0, std::as_bytes(std::span(bytes)));
  contents.resize(bytes.size());
  return contents;
}

std::string bytes_of(const Contents& contents) {
  std::string bytes(contents.size(), '\0');
  contents.read(0, std::as_writable_bytes(std::span(bytes)));
  return bytes;
}

// Into the file that has the name now, so that whoever has it open sees it.
void overwrite(const std::string& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary | std::ios::trunc) << bytes;
}

template <typename T>
T failing(const Fault& fault, T result) {
  errno = fault.error;
  return result;
}

}  // namespace

DiskImage image_of_directory(const std::string& path) {
  DiskImage image;
  Inode inode = kRootInode;
  for (const auto& entry : std::filesystem::directory_iterator(path)) {
    image.nodes[++inode].contents = contents_of(whole_file(entry.path()));
    image.nodes[kRootInode].entries[entry.path().filename()] = inode;
  }
  return image;
}

void write_directory(const std::string& path, const DiskImage& image) {
  for (const auto& entry : std::filesystem::directory_iterator(path)) {
    if (!image.find(entry.path().filename())) std::filesystem::remove(entry.path());
  }
  for (const auto& [name, inode] : image.nodes.at(kRootInode).entries) {
    overwrite(path + "/" + name, bytes_of(image.nodes.at(inode).contents));
  }
}

std::string content_of(const DiskImage& image, const std::string& name) {
  auto inode = image.find(name);
  return inode ? bytes_of(image.nodes.at(*inode).contents) : "";
}

WatchedDirectory::WatchedDirectory(std::string path)
    : path_(std::move(path)), start_(image_of_directory(path_)) {
  if (watched != nullptr) throw std::runtime_error("another directory is watched");
  inodes_ = start_.nodes.at(kRootInode).entries;
  for (const auto& [name, inode] : inodes_) synced_[name] = start_.nodes.at(inode).contents;
  next_inode_ = start_.nodes.rbegin()->first + 1;
  watched = this;
}

WatchedDirectory::~WatchedDirectory() { watched = nullptr; }

// "" is the directory itself.
std::optional<std::string> WatchedDirectory::name_in(const char* path) const {
  std::string text(path);
  if (!text.starts_with(path_)) return {};
  text.erase(0, path_.size());
  if (text.empty() || text == "/") return "";
  if (text[0] != '/') return {};
  return text.substr(1);
}

std::optional<Fault> WatchedDirectory::fault(Call call, const std::string& name) {
  CallSite site{calls_++, call, name};
  return plan_ ? plan_(site) : std::nullopt;
}

Event& WatchedDirectory::record(Event::Kind kind, const std::string& text) {
  Event& event = recording_.emplace_back();
  event.kind = kind;
  event.serial = recording_.size();
  event.text = text;
  return event;
}

std::optional<int> WatchedDirectory::open(const char* path, int flags, unsigned mode) {
  auto name = name_in(path);
  if (!name) return {};
  auto known = inodes_.find(*name);
  bool made = !name->empty() && known == inodes_.end() && (flags & O_CREAT) != 0;
  if (auto fault = this->fault(made ? Call::kCreate : Call::kOpen, *name)) {
    return failing(*fault, -1);
  }
  int fd = __real_open(path, flags, mode);
  if (fd < 0) return fd;
  if (made) {
    known = inodes_.emplace(*name, next_inode_++).first;
    Event& event = record(Event::Kind::kCreate, *name);
    event.inode = known->second;
    event.directory = kRootInode;
    event.entry = *name;
  } else if ((flags & O_TRUNC) != 0) {
    Event& event = record(Event::Kind::kTruncate, *name);
    event.inode = known->second;
  }
  open_[fd] = {*name, name->empty() ? kRootInode : known->second};
  return fd;
}

std::optional<ssize_t> WatchedDirectory::read(int fd, void* into, size_t bytes,
                                              std::optional<off_t> offset) {
  auto file = open_.find(fd);
  if (file == open_.end()) return {};
  if (auto fault = this->fault(Call::kRead, file->second.name)) return failing(*fault, -1);
  return offset ? __real_pread(fd, into, bytes, *offset) : __real_read(fd, into, bytes);
}

std::optional<ssize_t> WatchedDirectory::write(int fd, const void* from, size_t bytes,
                                               off_t offset) {
  auto file = open_.find(fd);
  if (file == open_.end()) return {};
  auto fault = this->fault(Call::kWrite, file->second.name);
  if (fault && fault->not_made) return failing(*fault, -1);
  size_t written = !fault ? bytes : fault->short_write ? bytes / 2 : 0;
  if (written > 0 && __real_pwrite(fd, from, written, offset) != static_cast<ssize_t>(written)) {
    throw std::runtime_error("a test's file takes no writes");
  }
  // One that fails may have left anything of itself.
  size_t reaches = fault && !fault->short_write ? bytes : written;
  const auto* data = static_cast<const std::byte*>(from);
  Event& event = record(Event::Kind::kWrite, file->second.name);
  event.inode = file->second.inode;
  event.offset = static_cast<uint64_t>(offset);
  event.length = reaches;
  event.data = std::make_shared<std::vector<std::byte>>(data, data + reaches);
  event.failed = fault && !fault->short_write;
  if (event.failed) return failing(*fault, -1);
  return written;
}

std::optional<int> WatchedDirectory::sync(int fd) {
  auto file = open_.find(fd);
  if (file == open_.end()) return {};
  const std::string& name = file->second.name;
  auto fault = this->fault(name.empty() ? Call::kSyncDirectory : Call::kSync, name);
  if (fault && fault->not_made) return failing(*fault, -1);
  Event& event = record(name.empty() ? Event::Kind::kSyncDirectory : Event::Kind::kSync, name);
  event.inode = file->second.inode;
  event.failed = fault.has_value();
  std::string path = path_ + "/" + name;
  if (fault) {
    if (fault->drop_unsynced && !name.empty()) overwrite(path, bytes_of(synced_[name]));
    return failing(*fault, -1);
  }
  if (!name.empty()) synced_[name] = contents_of(whole_file(path));
  return 0;
}

std::optional<int> WatchedDirectory::unlink(const char* path) {
  auto name = name_in(path);
  if (!name) return {};
  if (auto fault = this->fault(Call::kRemove, *name)) return failing(*fault, -1);
  int result = __real_unlink(path);
  if (result < 0) return result;
  Event& event = record(Event::Kind::kRemove, *name);
  event.inode = inodes_.at(*name);
  event.directory = kRootInode;
  event.entry = *name;
  inodes_.erase(*name);
  synced_.erase(*name);
  return result;
}

}  // namespace test

using test::watched;

// NOLINTBEGIN
extern "C" {

int __wrap_open(const char* path, int flags, ...) {
  unsigned mode = 0;
  if ((flags & O_CREAT) != 0 || (flags & O_TMPFILE) == O_TMPFILE) {
    va_list rest;
    va_start(rest, flags);
    mode = va_arg(rest, unsigned);
    va_end(rest);
  }
  auto result = watched ? watched->open(path, flags, mode) : std::nullopt;
  return result ? *result : __real_open(path, flags, mode);
}

int __wrap_close(int fd) {
  if (watched) watched->closed(fd);
  return __real_close(fd);
}

ssize_t __wrap_read(int fd, void* into, size_t bytes) {
  auto result = watched ? watched->read(fd, into, bytes, {}) : std::nullopt;
  return result ? *result : __real_read(fd, into, bytes);
}

ssize_t __wrap_pread(int fd, void* into, size_t bytes, off_t offset) {
  auto result = watched ? watched->read(fd, into, bytes, offset) : std::nullopt;
  return result ? *result : __real_pread(fd, into, bytes, offset);
}

ssize_t __wrap_pwrite(int fd, const void* from, size_t bytes, off_t offset) {
  auto result = watched ? watched->write(fd, from, bytes, offset) : std::nullopt;
  return result ? *result : __real_pwrite(fd, from, bytes, offset);
}

int __wrap_fsync(int fd) {
  auto result = watched ? watched->sync(fd) : std::nullopt;
  return result.value_or(0);
}

int __wrap_unlink(const char* path) {
  auto result = watched ? watched->unlink(path) : std::nullopt;
  return result ? *result : __real_unlink(path);
}

}  // extern "C"
// NOLINTEND
