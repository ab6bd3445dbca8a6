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
build=$(realpath "$build")
export build
export clean=$build/lint
mkdir -p "$clean"

# shellcheck disable=SC2317,SC2329  # called through xargs
# lint FILES: one, or several separated by spaces that are looked at as one source. What takes the
# time is the headers: once for all of them instead of once for each.
lint() {
  set -o pipefail
  local files command key source=$PWD/$1 found file
  read -ra files <<<"$1"
  # As the build compiles it, but without the precompiled header, which is the compiler's own.
  command=$(jq -r --arg file "$PWD/${files[0]}" \
    'first(.[] | select(.file == $file)) | .command' "$build/compile_commands.json" |
    sed -E 's/.*ccache //; s/ -o .*//; s/ -(Winvalid-pch|fpch-preprocess|include [^ ]*cmake_pch[^ ]*)//g')
  if ((${#files[@]} > 1)); then
    source=$clean/$(cksum <<<"$1" | cut -d' ' -f1).cc
    printf "#include \"$PWD/%s\"\n" "${files[@]}" >"$source"
  fi
  # The compiler's own preprocessor is the quickest way to see every header the file takes in.
  key=$({ cat .clang-tidy && clang-tidy-19 --version && eval "$command -E $source"; } |
    sha256sum | cut -d' ' -f1) || {
    echo "check-lint: cannot preprocess $1 as $build/compile_commands.json says" >&2
    return 1
  }
  [ ! -e "$clean/$key" ] || return 0
  found=$(eval "clang-tidy-19 --config-file=.clang-tidy --quiet $source -- ${command#* }" 2>/dev/null) || {
    # Sources that the compiler takes apart but not together (the same name twice) are looked at apart.
    if ((${#files[@]} > 1)) && grep -q '\[clang-diagnostic-' <<<"$found"; then
      for file in "${files[@]}"; do lint "$file" || return; done
      return 0
    fi
    printf '%s\ncheck-lint: %s\n' "$found" "$1" >&2
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
# Up to ten of a directory of the program's together; of tests, whose names are the same more often,
# each apart.
groups=()
declare -A part=() size=()
for file in "${files[@]}"; do
  directory=${file%/*}
  if [[ $file != @(cli|devices|snapshot|vmm)/* ]]; then
    groups+=("$file")
    continue
  fi
  part[$directory]+="${part[$directory]:+ }$file"
  size[$directory]=$((${size[$directory]:-0} + 1))
  ((size[$directory] % 10)) || { groups+=("${part[$directory]}") && part[$directory]=; }
done
for directory in "${!part[@]}"; do
  [ -z "${part[$directory]}" ] || groups+=("${part[$directory]}")
done
# shellcheck disable=SC2016  # for the other shell to expand
printf '%s\0' "${groups[@]}" | xargs -0 -n1 -P"${JOBS:-2}" bash -c 'lint "$1"' lint
echo "check-lint: ${#files[@]} files"
