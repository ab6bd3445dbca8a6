#!/usr/bin/env bash
# No source is longer than 500 lines but those listed in long_files.txt, each with its reason; and
# none is listed that does not need it.
set -euo pipefail
list=$(dirname "$0")/long_files.txt
bad=0
allowed=$(sed -n 's/^\([^# ][^ ]*\).*/\1/p' "$list")
while read -r lines file; do
  if grep -qxF "$file" <<<"$allowed"; then
    ((lines > 500)) || { echo "$file: $lines lines, and in $list: take it out"; bad=1; }
  elif ((lines > 500)); then
    echo "$file: $lines lines: find its second subject, or list it in $list with a reason"
    bad=1
  fi
done < <(git ls-files '*.h' '*.cc' '*.c' '*.S' '*.sh' '*.py' | xargs wc -l | grep -v ' total$')
exit $bad
