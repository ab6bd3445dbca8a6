#!/usr/bin/env bash
# usage: core_test.sh MINIVMM: `crash` opens the core of a Linux guest, as exported and nothing else,
# and finds in it what the guest had said of itself. `ps` and `bt` of Debian 12's crash (8.0.2) fail with
# Debian 12's present kernel, of a core by QEMU's dump-guest-memory as well: tasks are walked here.
set -uo pipefail
# shellcheck source=tests/tools/check.sh
. "$(dirname "$0")/check.sh"
minivmm=$1
cache=${MINIVMM_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/minivmm}
symbols=$cache/kernels/cloud-symbols/vmlinux
[[ -e $symbols ]] || { echo "skipped: no $symbols: run guest-images/kernels.sh cloud-symbols"; exit 77; }

cat >"$scratch/script" <<'GUEST'
#!/bin/sh
hostname core-guest
sleep 77777 &
echo "pid=$!"
echo "core-test: $(cat /proc/sys/kernel/random/boot_id)" >/dev/kmsg
echo "boot=$(cat /proc/sys/kernel/random/boot_id)"
echo waiting
sleep 100000
GUEST
"$repository/guest-images/add-script.sh" "$cache/initramfs/cloud.cpio" "$scratch/script" \
    "$scratch/initrd.cpio" || exit 1

# Where Linux guests run: makes $1/core of one that waits, and $1/said, what it had said.
cat >"$scratch/take" <<'TAKE'
out=$1 minivmm=$2 kernel=$3 initrd=$4
work=$(mktemp -d) && cd "$work" || exit 1
trap 'jobs -p | xargs -r kill -9; rm -rf "$work"' EXIT
mkfifo input
exec 3<>input
"$minivmm" run --kernel "$kernel" --initrd "$initrd" --cmdline "console=ttyS0 quiet" --cpus 2 \
    --memory 256M --store store --name core-test <input >said 2>&1 &
for _ in $(seq 200); do
    grep -q '^waiting' said && break
    sleep 1
done
"$minivmm" snapshot core-test --stop && "$minivmm" export store --core core && cp said core "$out"
TAKE
mkdir "$scratch/out"
"$repository/tools/with-kvm.sh" "$minivmm" --timeout 400 --out "$scratch/out" -- \
    bash "$scratch/take" "$scratch/out" "$minivmm" "$cache/kernels/cloud/vmlinuz" \
    "$scratch/initrd.cpio" || { cat "$scratch/out/said"; exit 1; }
said() { sed -n "s/^$1=\\([^\\r]*\\)\\r*$/\\1/p" "$scratch/out/said"; }

cat >"$scratch/commands" <<'CRASH'
sys
log
list task_struct.tasks -s task_struct.pid,comm -h init_task
kmem -i
quit
CRASH
text=$(timeout 200 crash -s -i "$scratch/commands" "$symbols" "$scratch/out/core" 2>&1 </dev/null)
same "status" "$?" 0
field() { sed -n "s/^ *$1: //p" <<<"$text" | head -1; }
same "release" "$(field RELEASE)" "$(<"$cache/kernels/cloud/version")"
same "node" "$(field NODENAME)" core-guest
same "processors" "$(field CPUS)" 2
matches "memory" "$(field MEMORY)" '^25[56]'
matches "log" "$text" "core-test: $(said boot)"
matches "the guest's own words" "$(said boot)" '^[0-9a-f-]{36}$'
task=$(grep -A1 "pid = $(said pid)," <<<"$text")
matches "a process" "$task" 'comm = "sleep\\000'
matches "process 1" "$text" $'pid = 1,\n  comm = "(minivmm-)?init\\\\000'
matches "free pages" "$text" 'FREE +[1-9][0-9]+ +[0-9.]+ MB'
((failures == 0)) || echo "$text"
finish
