#!/usr/bin/env bash
# In the lab, with --no-npt: the engine's payload tests under shadow page tables.
#   tests/linux/shadow_pages.sh PAYLOAD_TESTS
set -euo pipefail
parameter=/sys/module/kvm_amd/parameters/npt
[[ $(<"$parameter") == N ]] || {
    echo "shadow_pages: $parameter is $(<"$parameter"), not N: KVM uses nested paging" >&2
    exit 1
}
# Not those that need more memory or a faster processor than the lab's, or are about the host's
# scheduler.
wanted='DirtyLog*:DiskPair*:Hold*:Machine*:*MachineRng*:PlatformState*:ReadsInFlight*'
wanted+=':SnapshotPayloadTest.*:StateTest.*:VcpuTest.*:*RestorePaused*'
left_out='*Above4GiB:*AsFastAsItCan:*WhereTheDiskIsLate:*IsUrgent*:*IsNoHindrance*'
out=$(mktemp)
"$1" --gtest_filter="$wanted:-$left_out" | tee "$out"
# They skip where there is no KVM.
if grep -q '  SKIPPED ' "$out"; then exit 1; fi
# A suite that was renamed is missed.
for suite in DirtyLogTest DiskPairTest HoldTest MachineTest PlatformStateTest ReadsInFlightTest \
    SnapshotPayloadTest StateTest VcpuTest RestorePausedTest; do
    grep -q "       OK .*$suite" "$out" || {
        echo "shadow_pages: no test of $suite was run" >&2
        exit 1
    }
done
