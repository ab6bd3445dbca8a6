#!/usr/bin/env bash
# The second part of tools/demo.sh: a payload guest writes a working set of 256 MiB, 10,000 pages a
# second, reads the time stamp counter all the while, and reports the longest gaps it saw. Asked for
# them after some seconds without snapshots, and after as many in which snapshots were taken.
set -euo pipefail
minivmm=$MINIVMM_BUILD/minivmm
seconds=5
emulated=${MINIVMM_LAB:-}
[[ -z $emulated ]] || seconds=20
work=$(mktemp -d /tmp/minivmm-demo-XXXXXX)
vm=''
# shellcheck disable=SC2317 # called by the trap
finish() {
    [[ -z $vm ]] || kill -9 "$vm" 2>/dev/null || true
    wait 2>/dev/null  # bash would say here that it was killed
    rm -rf "$work"
}
trap finish EXIT

# await TEXT: until the guest has said so, N times in all.
await() {
    local tries
    for ((tries = 0; tries < 600; tries++)); do
        (($(grep -c "$1" "$work/console") < ${2:-1})) || return 0
        kill -0 "$vm" 2>/dev/null || break
        sleep 0.1
    done
    echo "demo: the guest does not say '$1':" >&2
    tail -n 5 "$work/console" >&2
    exit 1
}

# longest N: its report's longest gaps, in microseconds.
longest() {
    sed -n "s/^jitter: longest n=$1 rank=[1-5] .*ns=\([0-9]*\).*/\1/p" "$work/console" |
        awk '{ printf "%s%.0f", (NR > 1 ? ", " : ""), $1 / 1000 }'
}

printf '\n\033[1m%s\033[0m\n' "What a guest feels that writes 10,000 pages a second."
mkfifo "$work/keys"
exec {keys}<>"$work/keys"
"$minivmm" run --kernel "$MINIVMM_BUILD/payloads/jitter.elf" --memory 512M --name demo-gaps \
    --cmdline "size=256M rate=10000" --store "$work/store" <"$work/keys" >"$work/console" 2>&1 &
vm=$!
await 'jitter: filled'
"$minivmm" snapshot demo-gaps --json >/dev/null
printf c >&"$keys"
await 'jitter: cleared'
# A program is started as often as later: that is felt as well.
for ((end = SECONDS + seconds; SECONDS < end;)); do
    "$minivmm" ps --json >/dev/null
    sleep 0.2
done
printf r >&"$keys"
await 'jitter: end' 1
printf c >&"$keys"
await 'jitter: cleared' 2
taken=0
for ((end = SECONDS + seconds; SECONDS < end; taken++)); do
    "$minivmm" snapshot demo-gaps --json >>"$work/snapshots"
    sleep 0.2
done
printf r >&"$keys"
await 'jitter: end' 2
printf 'longest gaps in %s s without snapshots: %s us\n' "$seconds" "$(longest 1)"
printf 'longest gaps in %s s with %2s snapshots: %s us\n' "$seconds" "$taken" "$(longest 2)"
printf 'pauses of the snapshots: %s us\n' "$(jq '.pause_ns / 1000 | round' "$work/snapshots" | sort -n | paste -sd ' ')"
if [[ -n $emulated ]]; then
    echo "This host has no KVM. One emulated processor did all of it, the guest, the snapshots and the
store: that is what these gaps are. docs/performance.md has those of a host with KVM."
else
    echo "A gap without a snapshot is the host's own doing: other programs, interrupts."
fi
