#include "snapshot/fold_disk.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <array>

#include "snapshot/base_image.h"
#include "snapshot/space_reader.h"

namespace snapshot {
namespace {

using base::Result;

constexpr const char* kSuffix = ".folding";

constexpr std::string_view kIntroduction = "minivmm commit: store ";

// What a fold that was begun says of itself.
std::string marker_text(const Snapshot& snapshot, const Id& store, uint32_t disk) {
  return fmt::format("{}{} snapshot {} disk {}\n", kIntroduction, store.text(),
                     snapshot.id().text(), disk);
}

// A marker as a power cut leaves it that was not durable yet: without its end, or zeros instead.
bool is_torn(std::string_view found) {
  if (found.ends_with('\n')) return false;
  std::string_view text = found.substr(0, found.find('\0'));
  return text.starts_with(kIntroduction) || kIntroduction.starts_with(text);
}

Result<void> sync_directory_of(const std::string& path) {
  size_t slash = path.rfind('/');
  std::string directory = slash == std::string::npos ? "." : path.substr(0, slash + 1);
  TRY_ASSIGN(base::Fd fd, base::open_file(directory, O_RDONLY | O_DIRECTORY));
  if (::fsync(fd.get()) < 0) return base::fail_errno("write " + directory);
  return {};
}

// True where this very fold was begun before; an error where another one was.
Result<bool> was_begun(const std::string& marker, const std::string& text) {
  base::Fd fd(::open(marker.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));
  if (!fd) {
    if (errno == ENOENT) return false;
    return base::fail_errno(marker);
  }
  std::array<char, 256> content{};
  ssize_t bytes = ::read(fd.get(), content.data(), content.size());
  if (bytes < 0) return base::fail_errno(marker);
  std::string_view found(content.data(), static_cast<size_t>(bytes));
  if (found == text) return true;
  // Nothing had been written to the image then.
  if (is_torn(found)) return false;
  return base::fail(fmt::format(
      "{} says that another commit into this image was interrupted: complete that one first",
      marker));
}

// Durable when it returns, whoever wrote it first: one that was found may be in the page cache
// only. That one is written over, not truncated: the image may be half-folded already.
Result<void> make_marker(const std::string& marker, const std::string& text, bool begun) {
  int flags = O_CREAT | O_RDWR | O_NOFOLLOW | (begun ? 0 : O_TRUNC);
  TRY_ASSIGN(base::Fd fd, base::open_file(marker, flags));
  TRY(base::write_exact(fd.get(), text.data(), text.size(), 0));
  if (::fsync(fd.get()) < 0) return base::fail_errno("write " + marker);
  return sync_directory_of(marker);
}

// Reads everything there is, so that damage is found before the image is touched.
Result<void> verify(const Snapshot& snapshot, Space space, const Progress& progress) {
  auto nothing = [](uint64_t, std::span<const std::byte>) -> Result<void> { return {}; };
  SpaceReader reader(snapshot, space);
  return reader.read({.data = nothing, .zero = {}, .base = {}}, progress, 0,
                     2 * snapshot.pages(space) * kPageBytes);
}

class Fold {
 public:
  Fold(const Snapshot& snapshot, Space space, const BaseImage& image)
      : reader_(snapshot, space), image_(image), total_(2 * snapshot.pages(space) * kPageBytes) {}

  Result<void> write(const Progress& progress) {
    // From here on it is completed or begun again, not given up by a key.
    auto shown = [&](uint64_t done, uint64_t total) {
      if (progress) progress(done, total);
      return true;
    };
    auto data = [this](uint64_t first, std::span<const std::byte> from) {
      report.written += from.size() / kPageBytes;
      return put(first * kPageBytes, from);
    };
    auto zero = [this](uint64_t first, uint64_t count) -> Result<void> {
      report.zeroed += count;
      for (uint64_t at = 0; at < count; at += kZeroPages) {
        uint64_t pages = std::min(kZeroPages, count - at);
        TRY(put((first + at) * kPageBytes, std::span(zeros_).first(pages * kPageBytes)));
      }
      return {};
    };
    TRY(reader_.read({.data = data, .zero = zero, .base = {}}, shown, total_ / 2, total_));
    if (::fsync(image_.fd()) < 0) return base::fail_errno("write " + image_.path());
    return {};
  }

  FoldReport report;

 private:
  static constexpr uint64_t kZeroPages = 64;

  Result<void> put(uint64_t offset, std::span<const std::byte> from) {
    if (offset >= image_.size()) return {};
    uint64_t bytes = std::min<uint64_t>(from.size(), image_.size() - offset);
    auto written = base::write_exact(image_.fd(), from.data(), bytes, offset);
    if (!written) return std::unexpected(written.error().with("disk " + image_.path()));
    return {};
  }

  SpaceReader reader_;
  const BaseImage& image_;
  const uint64_t total_;
  std::vector<std::byte> zeros_ = std::vector<std::byte>(kZeroPages * kPageBytes);
};

}  // namespace

Result<FoldReport> fold_disk(const Snapshot& snapshot, const Id& store, uint32_t number,
                             const std::string& base, const Progress& progress) {
  TRY_ASSIGN(const Disk* disk, find_disk(snapshot.manifest(), number));
  if (disk->base.empty()) {
    return base::fail(
        fmt::format("disk {} has no base image to fold into: minivmm export makes one", number));
  }
  std::string marker = base + kSuffix;
  std::string text = marker_text(snapshot, store, number);
  TRY_ASSIGN(bool begun, was_begun(marker, text));
  {
    TRY_ASSIGN(BaseImage image, BaseImage::open(*disk, base, true));
    // A half-folded image is not the one that was recorded any more.
    if (!begun) TRY(image.check_identity());
    TRY(verify(snapshot, disk_space(number), progress));
  }
  // Before the image is opened for writing, which already changes its times: from here on it is no
  // longer the one that was recorded.
  auto open_image = [&]() -> Result<BaseImage> {
    TRY(make_marker(marker, text, begun));
    return BaseImage::open(*disk, base, false);
  };
  auto image = open_image();
  if (!image) {
    if (!begun) ::unlink(marker.c_str());
    return std::unexpected(image.error());
  }
  Fold fold(snapshot, disk_space(number), *image);
  if (auto written = fold.write(progress); !written) {
    return std::unexpected(
        written.error().with("interrupted, run the same command again to complete it"));
  }
  if (::unlink(marker.c_str()) < 0) return base::fail_errno("remove " + marker);
  TRY(sync_directory_of(marker));
  fold.report.resumed = begun;
  return fold.report;
}

}  // namespace snapshot
