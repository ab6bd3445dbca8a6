#include "vmm/base/path.h"

#include <dirent.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <memory>
#include <ranges>
#include <string_view>

namespace base {

bool is_directory(const std::string& path) {
  struct stat status;
  return ::stat(path.c_str(), &status) == 0 && S_ISDIR(status.st_mode);
}

bool same_file(const std::string& a, const std::string& b) {
  struct stat of_a, of_b;
  return ::stat(a.c_str(), &of_a) == 0 && ::stat(b.c_str(), &of_b) == 0 &&
         of_a.st_dev == of_b.st_dev && of_a.st_ino == of_b.st_ino;
}

Result<std::string> absolute_path(const std::string& path) {
  std::string whole;
  if (!path.starts_with('/')) {
    std::unique_ptr<char, decltype(&std::free)> here(::getcwd(nullptr, 0), std::free);
    if (!here) return fail_errno("working directory");
    if (std::string_view(here.get()) != "/") whole = here.get();
  }
  for (auto part : std::views::split(std::string_view(path), '/')) {
    const std::string_view name(part.begin(), part.end());
    if (!name.empty() && name != ".") whole.append("/").append(name);
  }
  return whole.empty() ? "/" : whole;
}

std::string parent_directory(std::string path) {
  while (path.size() > 1 && path.ends_with('/')) path.pop_back();
  size_t slash = path.rfind('/');
  if (slash == std::string::npos) return ".";
  path.resize(slash);
  while (path.ends_with('/')) path.pop_back();
  return path.empty() ? "/" : path;
}

Result<std::vector<std::string>> names_in(Fd directory) {
  auto close = [](DIR* opened) { ::closedir(opened); };
  std::unique_ptr<DIR, decltype(close)> stream(::fdopendir(directory.get()));
  if (!stream) return fail_errno("read directory");
  (void)directory.release();  // the stream's now
  ::rewinddir(stream.get());
  std::vector<std::string> names;
  for (;;) {
    errno = 0;
    const dirent* entry = ::readdir(stream.get());
    if (entry == nullptr) break;
    std::string_view name = entry->d_name;
    if (name != "." && name != "..") names.emplace_back(name);
  }
  if (errno != 0) return fail_errno("read directory");
  std::ranges::sort(names);
  return names;
}

}  // namespace base
