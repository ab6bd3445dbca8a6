# shellcheck shell=bash
# The few words that the shell tests are written in. Sourced first; end with "finish".

# shellcheck disable=SC2034 # for the tests
repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
failures=0 checks=0

# same NAME ACTUAL EXPECTED
same() {
    checks=$((checks + 1))
    if [[ $2 != "$3" ]]; then
        failures=$((failures + 1))
        printf 'FAIL %s\n  got:      %q\n  expected: %q\n' "$1" "$2" "$3"
    fi
}

# matches NAME ACTUAL REGULAR-EXPRESSION
matches() {
    checks=$((checks + 1))
    if [[ ! $2 =~ $3 ]]; then
        failures=$((failures + 1))
        printf 'FAIL %s\n  got:     %q\n  no match for: %s\n' "$1" "$2" "$3"
    fi
}

finish() {
    echo "$((checks - failures)) of $checks checks passed"
    ((failures == 0)) || exit 1
}
