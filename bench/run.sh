#!/usr/bin/env bash
# Measures the snapshot engine beside its peers (fio, QEMU with the same payload guest, all in the
# same run) and prints a table: value, spread, target, peer. Needs /dev/kvm; runs natively.
#
#   bench/run.sh [--quick] [--json FILE] [--svg DIR] [--only PART…] [--build DIR]
#                [--memory MIB] [--work DIR]
#
#   --quick   smaller guests and fewer runs: minutes instead of an hour
#   --json    the same as a list of {name, value, unit, target, met, peer, peer_value,
#             spread, why}: why a target was missed, where a floor measured in the same run explains it
#   --svg     plots of the run (bench/plot.py)
#   --memory  of the guest, MiB, half of it its working set; default 2048, quick 512
#   --only    of: program stalls sizes full_snapshots verify_and_eager restores working_set clones
#             dirty_tracking boot
#   --build   default build/release
#   --work    where stores go, on the file system to measure; default /var/tmp
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
for tool in python3 fio qemu-system-x86_64; do
    command -v "$tool" >/dev/null || { echo "run.sh: $tool is missing: tools/setup.sh" >&2 && exit 2; }
done
exec python3 "$here/measure.py" "$@"
