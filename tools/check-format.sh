#!/usr/bin/env bash
# Are all C++ files of the repository formatted as .clang-format says? "--fix" formats them.
# Without the tool it ends with 77, which ctest takes for a skipped test.
set -euo pipefail
cd "$(dirname "$0")/.."

command -v clang-format-19 >/dev/null || {
  echo "check-format: clang-format-19 is missing: apt-get install clang-format-19" >&2
  exit 77
}
how=(--dry-run -Werror)
[ "${1:-}" != --fix ] || how=(-i)
mapfile -t files < <(git ls-files '*.h' '*.cc')
clang-format-19 "${how[@]}" "${files[@]}"
echo "check-format: ${#files[@]} files"
