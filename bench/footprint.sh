#!/usr/bin/env bash
# What the program itself costs: time of `minivmm --version`, and the memory of a running machine
# besides guest RAM (1 vCPU, 128 MiB, payload guest). Runs on any host with /dev/kvm.
#
#   bench/footprint.sh BUILD_DIR [RUNS]        e.g. bench/footprint.sh build/release
set -euo pipefail
build=$1 runs=${2:-201}
minivmm=$build/minivmm

times=()
for ((i = 0; i < runs; i++)); do
    start=$EPOCHREALTIME
    "$minivmm" --version >/dev/null
    end=$EPOCHREALTIME
    times+=($((10#${end/./} - 10#${start/./})))
done
# What starting any program costs here, for comparison.
empty=()
for ((i = 0; i < runs; i++)); do
    start=$EPOCHREALTIME
    /bin/true
    end=$EPOCHREALTIME
    empty+=($((10#${end/./} - 10#${start/./})))
done
at() { # at PERCENT VALUES...: that percentile
    local percent=$1
    shift
    printf '%s\n' "$@" | sort -n | sed -n "$((1 + ($# - 1) * percent / 100))p"
}
echo "minivmm --version, fork and exec included, $runs runs:" \
    "median $(at 50 "${times[@]}") us, p90 $(at 90 "${times[@]}") us (target 2000);" \
    "/bin/true: median $(at 50 "${empty[@]}") us"

"$minivmm" run --kernel "$build/payloads/dirty.elf" --memory 128M \
    --cmdline "size=32M rate=10000" --console none </dev/null >/dev/null &
pid=$!
trap 'kill -9 $pid 2>/dev/null || true' EXIT
sleep 3
# The one mapping of 131072 kB is guest RAM.
awk '/^Size:/ {size = $2} size == 131072 {next}
     /^Rss:/ {rss += $2} /^Private_Dirty:/ {dirty += $2}
     END {printf "memory besides guest RAM: %d KiB resident, of which %d KiB are its own " \
                 "(target 5120)\n", rss, dirty}' "/proc/$pid/smaps"
echo "threads: $(find "/proc/$pid/task" -mindepth 1 -maxdepth 1 | wc -l)," \
    "program file: $(($(stat -L -c %s "$minivmm") / 1024)) KiB with debug information"
