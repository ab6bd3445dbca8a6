#!/usr/bin/env bash
# guest-images/tools/workload finds what it is there to find. Run on this host: memory that
# changes, records and blocks that are lost, a worker that dies or rests.
set -uo pipefail
# shellcheck source=tests/tools/check.sh
. "$(dirname "${BASH_SOURCE[0]}")/check.sh"
program=$scratch/workload
gcc -std=gnu17 -D_GNU_SOURCE -O1 -static -Wall -Wextra -Wshadow -o "$program" \
    "$repository"/guest-images/tools/workload/*.c || exit 1

# work COMMAND...: runs the workload, COMMAND while it does, and leaves what it said in $said.
# Behind COMMAND the workload is asked for a check, and stopped when that is done or has failed.
# The records' file is on a disk: direct I/O is refused by some temporary file systems.
mkdir -p "$repository/build"
disk=$(mktemp -d "$repository/build/workload-test.XXXXXX")
trap 'rm -rf "$scratch" "$disk"' EXIT
work() {
    mkfifo "$scratch/in"
    "$program" "dir=$disk" mem=1M late=3000 <"$scratch/in" >"$scratch/out" 2>&1 &
    pid=$!
    exec 3>"$scratch/in"
    # Both disks' logs have what COMMAND may take away; a slow disk needs more than a few beats.
    until grep -Eq 'disk=[0-9]{2,},[0-9]{2,}' "$scratch/out"; do sleep 0.1; done
    "$@"
    echo check >&3
    until grep -Eq 'verified|FAIL' "$scratch/out"; do sleep 0.1; done
    echo stop >&3
    wait "$pid"
    status=$?
    exec 3>&-
    rm "$scratch/in"
    said=$(<"$scratch/out")
}
# The process of worker N, in the order in which they were started.
worker() { pgrep -P "$pid" | sort -n | sed -n "$1p"; }

work true
matches "undisturbed: all is verified" "$said" 'verified memory0=256 memory1=256 .*disk1='
matches "undisturbed: ends" "$said" 'workload: stopped ok'
same "undisturbed: status" "$status" 0
said=$("$program" verify-log "$disk/log.0")
matches "a good log" "$said" 'log ok records=[1-9]'

damage() { dd if=/dev/zero of="$1" bs=1 seek="$2" count=1 conv=notrunc status=none; }
damage "$disk/log.0" 1100
said=$("$program" verify-log "$disk/log.0")
same "a damaged log: status" "$?" 1
matches "a damaged log" "$said" 'slot 2 has no record|chain breaks at record 2'

lose_record() { dd if=/dev/zero of="$disk/log.1" bs=512 seek=3 count=1 conv=notrunc status=none; }
work lose_record
matches "a lost record" "$said" 'FAIL disk1: record 3'
same "a lost record: status" "$status" 1

lose_block() { # the file has no name; its blocks are reached through the process that has it open
    local file
    file=$(find "/proc/$(worker 8)/fd" -lname '*blocks*' | head -n 1)
    dd if=/dev/zero of="$file" bs=4096 count=256 conv=notrunc status=none
}
work lose_block
matches "lost blocks" "$said" 'FAIL disk0: block [0-9]+ is not'

kill_worker() { kill -9 "$(worker 1)"; }
work kill_worker
matches "a worker that is gone" "$said" 'FAIL memory0 has ended'

rest() {
    local resting
    resting=$(worker 9)
    kill -STOP "$resting"
    until grep -q FAIL "$scratch/out"; do sleep 0.1; done
    kill -CONT "$resting"
}
work rest
matches "a worker that rests" "$said" 'FAIL disk1 makes no progress'
finish
