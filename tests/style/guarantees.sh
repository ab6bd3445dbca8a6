#!/usr/bin/env bash
# Every test that docs/guarantees.md names is there.
# shellcheck disable=SC2016 # the backquotes are the page's
set -euo pipefail
names=$(grep -oE '`[A-Z][A-Za-z]+(Test|Commands|Memory|Disk)(\.[A-Za-z0-9]+)?`' docs/guarantees.md |
  tr -d '`' | sort -u)
[ -n "$names" ] || { echo "docs/guarantees.md names no test"; exit 1; }
bad=0
while read -r name; do
  suite=${name%%.*}
  test=${name#"$suite"}
  git grep -qE "^(TEST|TEST_F|TEST_P)\\($suite, ${test#.}" -- 'tests/*_test.cc' || {
    echo "docs/guarantees.md: there is no test $name"
    bad=1
  }
done <<<"$names"
exit $bad
