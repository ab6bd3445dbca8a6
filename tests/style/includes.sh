#!/usr/bin/env bash
# Includes point down: vmm/base <- vmm <- devices <- snapshot <- cli, and nothing of the program
# includes tests/ or bench/. Paths are from the root of the repository. Nothing of the program
# brings in the C++ streams and locales, of which a static program has a quarter more to start.
set -euo pipefail

# shellcheck disable=SC2016  # for awk to expand
git ls-files 'vmm/*.h' 'vmm/*.cc' 'devices/*.h' 'devices/*.cc' 'snapshot/*.h' 'snapshot/*.cc' \
  'cli/*.h' 'cli/*.cc' | xargs awk '
  function rank(path) {
    if (path ~ /^vmm\/base\//) return 1
    if (path ~ /^vmm\//) return 2
    if (path ~ /^devices\//) return 3
    if (path ~ /^snapshot\//) return 4
    if (path ~ /^cli\//) return 5
    return 9
  }
  /^#include "/ {
    split($0, part, "\"")
    if (rank(part[2]) > rank(FILENAME)) {
      printf "%s:%d: may not include %s\n", FILENAME, FNR, part[2]
      bad = 1
    }
    ++seen
  }
  /^#include <(filesystem|fstream|iomanip|iostream|istream|locale|ostream|regex|sstream)>/ {
    printf "%s:%d: %s brings in the streams (see vmm/base/path.h)\n", FILENAME, FNR, $2
    bad = 1
  }
  END {
    if (!seen) { print "no include found: is this the root of the repository?"; bad = 1 }
    exit bad
  }'
