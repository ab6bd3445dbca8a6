#include "snapshot/output_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdio>

#include "snapshot/types.h"

namespace snapshot {
namespace {

using base::Result;

std::string directory_of(const std::string& path) {
  size_t slash = path.rfind('/');
  if (slash == std::string::npos) return ".";
  return slash == 0 ? "/" : path.substr(0, slash);
}

Result<std::string> temporary_name(const std::string& path) {
  TRY_ASSIGN(Id id, Id::random());
  size_t slash = path.rfind('/');
  size_t name = slash == std::string::npos ? 0 : slash + 1;
  return path.substr(0, name) + "." + path.substr(name, 100) + "." + id.text();
}

base::Error exists(const std::string& path) {
  return base::Error(path + " exists: name another file, or say --force to replace it");
}

}  // namespace

Result<OutputFile> OutputFile::create(const std::string& path, Existing existing) {
  struct stat info{};
  if (::lstat(path.c_str(), &info) == 0) {
    if (!S_ISREG(info.st_mode))
      return base::fail(path + " is there and no regular file: name another");
    if (existing == Existing::kRefuse) return std::unexpected(exists(path));
  } else if (errno != ENOENT) {
    return base::fail_errno("make " + path);
  }
  OutputFile file(path, existing);
  file.fd_.reset(::open(directory_of(path).c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600));
  if (!file.fd_) {
    // Not every file system has O_TMPFILE (open(2)); EISDIR is a kernel's that has not.
    if (errno != EOPNOTSUPP && errno != EISDIR && errno != EINVAL)
      return base::fail_errno("make " + path);
    TRY(file.create_named());
  }
  return file;
}

Result<void> OutputFile::create_named() {
  TRY_ASSIGN(std::string name, temporary_name(path_));
  fd_.reset(::open(name.c_str(), O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (!fd_) return base::fail_errno("make " + path_);
  temporary_ = std::move(name);
  return {};
}

OutputFile::OutputFile(OutputFile&& other) noexcept
    : path_(std::move(other.path_)),
      existing_(other.existing_),
      fd_(std::move(other.fd_)),
      temporary_(std::exchange(other.temporary_, {})) {}

OutputFile::~OutputFile() {
  if (!temporary_.empty()) ::unlink(temporary_.c_str());
}

Result<void> OutputFile::write(uint64_t offset, std::span<const std::byte> from) {
  auto written = base::write_exact(fd_.get(), from.data(), from.size(), offset);
  if (!written) return std::unexpected(written.error().with(path_));
  return {};
}

Result<void> OutputFile::resize(uint64_t bytes) {
  if (::ftruncate(fd_.get(), static_cast<off_t>(bytes)) < 0)
    return base::fail_errno(fmt::format("{}: make it {} bytes long", path_, bytes));
  return {};
}

Result<void> OutputFile::finish() {
  if (::fsync(fd_.get()) < 0) return base::fail_errno("write " + path_);
  // link(2) never replaces; what is to replace needs a name first.
  bool replace = existing_ == Existing::kReplace;
  std::string source = temporary_.empty() ? fmt::format("/proc/self/fd/{}", fd_.get()) : temporary_;
  if (!replace || temporary_.empty()) {
    std::string name = path_;
    if (replace) {
      TRY_ASSIGN(name, temporary_name(path_));
    }
    if (::linkat(AT_FDCWD, source.c_str(), AT_FDCWD, name.c_str(), AT_SYMLINK_FOLLOW) < 0) {
      if (errno == EEXIST) return std::unexpected(exists(path_));
      return base::fail_errno("name " + path_);
    }
    if (replace) temporary_ = name;
  }
  if (replace) {
    if (::rename(temporary_.c_str(), path_.c_str()) < 0)
      return base::fail_errno("replace " + path_);
    temporary_.clear();
  }
  TRY_ASSIGN(base::Fd directory, base::open_file(directory_of(path_), O_RDONLY | O_DIRECTORY));
  if (::fsync(directory.get()) < 0) return base::fail_errno("write " + directory_of(path_));
  return {};
}

}  // namespace snapshot
