#!/usr/bin/env bash
# In the lab, whose KVM is Debian's and kvm_amd's: the payload tests, which run on the host's own KVM
# besides, where it has one.
#   tests/linux/payload.sh nested PAYLOAD_TESTS    with nested page tables
#   tests/linux/payload.sh shadow PAYLOAD_TESTS    without (--no-npt): those of the engine
set -euo pipefail
pages=$1 tests=$2
parameter=/sys/module/kvm_amd/parameters/npt
declare -A npt=([nested]=Y [shadow]=N)
[[ $(<"$parameter") == "${npt[$pages]}" ]] || {
    echo "payload: $parameter is $(<"$parameter"), not ${npt[$pages]}" >&2
    exit 1
}
suites=() wanted='*'
if [[ $pages == shadow ]]; then
    suites=(DirtyLogTest DiskPairTest HoldTest MachineTest MachineRngTest PlatformStateTest
        ReadsInFlightTest SnapshotPayloadTest StateTest VcpuTest RestorePausedTest)
    wanted=$(printf ':*%s.*' "${suites[@]}")
fi
# Not those that need more memory or a faster processor than the lab's, or are about the host's
# scheduler; and of the stores that are killed again and again one of eight, which takes long here.
left_out='*Above4GiB:*AsFastAsItCan:*WhereTheDiskIsLate:*IsUrgent*:*IsNoHindrance*'
left_out+=$(printf ':*Kill*/%d' {1..7})
out=$(mktemp)
"$tests" --gtest_filter="${wanted#:}:-$left_out" | tee "$out"
# They skip where there is no KVM.
if grep -q '  SKIPPED ' "$out"; then exit 1; fi
# A suite that was renamed is missed.
for suite in "${suites[@]}"; do
    grep -q "       OK .*$suite\." "$out" || {
        echo "payload: no test of $suite was run" >&2
        exit 1
    }
done
