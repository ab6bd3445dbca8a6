#!/usr/bin/env bash
# Shell scripts pass shellcheck.
set -euo pipefail
command -v shellcheck >/dev/null || { echo "skipped: shellcheck is not installed"; exit 77; }
git ls-files '*.sh' '.ci/*' | xargs shellcheck -x
