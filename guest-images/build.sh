#!/usr/bin/env bash
# Makes every image that tests, benchmarks and the demo use, and the lab's machine; quiet and
# quick when they are up to date. What each is: guest-images/README.md.
set -euo pipefail
# shellcheck source=guest-images/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

lock_cache
"$recipes/initramfs.sh"
"$recipes/rootdisk.sh"
"$recipes/rootdisk.sh" --fio
"$recipes/../tools/lab-prepare.sh" >/dev/null
