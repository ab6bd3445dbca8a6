// Paths and directories. Instead of std::filesystem, which brings the C++ streams and locales into
// a static program: a fifth of what is relocated at each start.
#pragma once

#include <string>
#include <vector>

#include "vmm/base/fd.h"
#include "vmm/base/result.h"

namespace base {

bool is_directory(const std::string& path);
// Do both exist, and are they one file, whatever their names?
bool same_file(const std::string& a, const std::string& b);
// With the working directory before it, unless it begins at the root, and without "." and empty
// parts; ".." stays, which may be that of a link.
Result<std::string> absolute_path(const std::string& path);
// Where the entry is that `path` names: "." for a name alone, "/" for what is at the root.
std::string parent_directory(std::string path);
// The names in a directory, sorted, without "." and "..". `directory` is open for reading, and read
// from its beginning.
Result<std::vector<std::string>> names_in(Fd directory);

}  // namespace base
