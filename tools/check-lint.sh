#!/usr/bin/env bash
# Runs clang-tidy (.clang-tidy) over the C++ sources and the shell scripts through shellcheck.
#   tools/check-lint.sh [FILE.cc…]     all files that a build compiles, or these
# A file whose preprocessed text was clean before is not looked at again, so only the first run
# takes minutes.
#   BUILD=build/release   the configured build folder, for its compile_commands.json
#   JOBS=2                how many at once
set -euo pipefail
cd "$(dirname "$0")/.."

build=${BUILD:-build/release}
for tool in clang-tidy-19 shellcheck jq; do
  command -v "$tool" >/dev/null || {
    echo "check-lint: $tool is missing: apt-get install $tool" >&2
    exit 2
  }
done
[ -f "$build/compile_commands.json" ] || {
  echo "check-lint: $build is not configured: cmake --preset release, or set BUILD" >&2
  exit 2
}
export build
export clean=$build/lint
mkdir -p "$clean"

# shellcheck disable=SC2317,SC2329  # called through xargs
lint() {
  set -o pipefail
  local file=$PWD/$1 command key
  command=$(jq -r --arg file "$file" \
    'first(.[] | select(.file == $file)) | .command' "$build/compile_commands.json")
  command=${command#*ccache }
  # The compiler's own preprocessor is the quickest way to see every header the file takes in.
  key=$({
    cat .clang-tidy && clang-tidy-19 --version && cd "$build" &&
      eval "${command% -o *} -E $file"
  } | sha256sum | cut -d' ' -f1) || {
    echo "check-lint: cannot preprocess $1 as $build/compile_commands.json says" >&2
    return 1
  }
  [ ! -e "$clean/$key" ] || return 0
  clang-tidy-19 -p "$build" --quiet "$file" 2>/dev/null || {
    echo "check-lint: $1" >&2
    return 1
  }
  touch "$clean/$key"
}
export -f lint

if [ $# -gt 0 ]; then
  files=("$@")
else
  mapfile -t files < <(jq -r '.[].file' "$build/compile_commands.json" |
    sed -n "s|^$PWD/||p" | grep '\.cc$' | sort -u)
  mapfile -t scripts < <(git ls-files '*.sh')
  shellcheck -x "${scripts[@]}"
fi
# shellcheck disable=SC2016  # for the other shell to expand
printf '%s\0' "${files[@]}" | xargs -0 -n1 -P"${JOBS:-2}" bash -c 'lint "$1"' lint
echo "check-lint: ${#files[@]} files"
