#!/usr/bin/env bash
# usage: registered.sh BUILD: every *_test.cc is compiled into some test program, or it tests
# nothing.
set -euo pipefail
bad=0
while read -r file; do
  grep -qF "\"file\": \"$PWD/$file\"" "$1/compile_commands.json" || {
    echo "$file is in no test program"
    bad=1
  }
done < <(git ls-files '*_test.cc')
exit $bad
