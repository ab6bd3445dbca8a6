#!/usr/bin/env bash
# The first part of tools/demo.sh, where Linux guests run. $MINIVMM_BUILD and $MINIVMM_CACHE say
# where the program and the images are.
set -euo pipefail
tools=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
minivmm=$MINIVMM_BUILD/minivmm
work=$(mktemp -d /tmp/minivmm-demo-XXXXXX)
vm='' watcher=''
# shellcheck disable=SC2317 # called by the trap
finish() {
    [[ -z $vm ]] || kill -9 "$vm" 2>/dev/null || true
    [[ -z $watcher ]] || kill "$watcher" 2>/dev/null || true
    wait
    rm -rf "$work"
}
trap finish EXIT

say() { printf '\n\033[1m%s\033[0m\n' "$*"; }
show() { printf '\033[32m$ %s\033[0m\n' "$*"; }

# Counts primes, and writes each second's number to the console and to the disk.
cat >"$work/script" <<'GUEST'
#!/bin/sh
modprobe ext4; mkdir -p /mnt; mount -t ext4 /dev/vda /mnt
uname -srv
echo "$(nproc) CPUs; $(awk '$4 ~ /^vd/ {printf "%s of %d MiB, ", $4, $3 / 1024}' /proc/partitions)read from \
vdb: $(head -n 1 /dev/vdb)"
udhcpc -i eth0 -n -q >/dev/null 2>&1; ip -4 addr show eth0 | grep -o 'inet [0-9.]*'
exec awk 'BEGIN {
  for (n = 2; ; n++) {
    for (d = 2; d * d <= n && n % d; d++);
    if (d * d <= n) continue
    primes++
    if (systime() == second) continue
    second = systime()
    printf "[%s] %d primes up to %d\n", strftime("%H:%M:%S"), primes, n
    print primes >"/mnt/primes"; fflush(); system("sync /mnt/primes")
  }
}'
GUEST
"$tools/../guest-images/add-script.sh" "$MINIVMM_CACHE/initramfs/cloud.cpio" "$work/script" \
    "$work/initrd.cpio"
truncate -s 32M "$work/disk.img"
mke2fs -q -t ext4 "$work/disk.img"
truncate -s 1M "$work/data.img"
echo "a message from the host" | dd of="$work/data.img" conv=notrunc status=none
disks=(--disk "$work/disk.img" --disk "$work/data.img,ro")
store=$work/store

# start ARGUMENT...: a machine in the background; what its console says is shown as it comes.
start() {
    show "minivmm $*"
    : >"$work/console"
    tail -n +1 -f "$work/console" | sed -u 's/^/    guest | /' &
    watcher=$!
    "$minivmm" "$@" </dev/null >"$work/console" 2>&1 &
    vm=$!
}

# primes N: waits until the guest has said so often how far it is.
primes() {
    until (($(grep -c 'primes up to' "$work/console") >= $1)); do
        kill -0 "$vm" 2>/dev/null || { echo "the machine has ended" >&2 && exit 1; }
        sleep 0.1
    done
}

end_watch() {
    sleep 0.2
    kill "$watcher" 2>/dev/null || true
    wait "$watcher" 2>/dev/null || true
    watcher=''
}

crash() {
    show "kill -9 $vm"
    kill -9 "$vm"
    wait "$vm" 2>/dev/null || true
    vm=''
    end_watch
}

[[ -z ${MINIVMM_LAB:-} ]] || echo "This host's KVM cannot run Linux, so an emulated machine with one \
processor does: slower, the pauses too, and the same otherwise."
say "Debian's kernel, unmodified, computes."
start run --kernel "$MINIVMM_CACHE/kernels/cloud/vmlinuz" --initrd "$work/initrd.cpio" \
    --cmdline quiet --memory 128M --cpus 2 "${disks[@]}" --net user --store "$store" --name demo
primes 3

say "One full snapshot and six incremental ones, while it does."
ids=()
line='%-14s %-12s %8s %12s %12s\n'
for number in 0 1 2 3 4 5 6; do
    primes $((4 + number))
    options=()
    ((number)) || options=(--full)
    "$minivmm" snapshot demo "${options[@]}" --json >"$work/snapshot.json"
    jq -r '[.id[:12], .kind, .pages, .bytes, (.pause_ns / 1000 | round | tostring + " us")] | @tsv' \
        "$work/snapshot.json" >>"$work/table"
    ids+=("$(jq -r .id "$work/snapshot.json")")
done
# shellcheck disable=SC2059 # the format is the point
printf "$line" snapshot kind pages bytes pause
while IFS=$'\t' read -r id kind pages bytes pause; do
    # shellcheck disable=SC2059
    printf "$line" "$id" "$kind" "$pages" "$bytes" "$pause"
done <"$work/table"
primes 12

say "The machine dies."
crash

say "It goes on from its last snapshot, in a new process."
start restore "$store" "${disks[@]}" --name demo
primes 3
crash

back=${ids[3]}
say "And from three snapshots earlier: memory, disk and clock of that moment."
start restore "$store@${back:0:12}" "${disks[@]}" --name demo
primes 3
"$minivmm" snapshot demo --json >"$work/snapshot.json"

say "Its power button is pressed, and Debian powers off."
show "minivmm stop demo"
"$minivmm" stop demo
wait "$vm" || { echo "the machine ended with status $?" >&2 && exit 1; }
vm=''
end_watch

say "Every snapshot is still there, the new branch too, and every byte is verified."
show "minivmm list $store"
"$minivmm" list "$store"
show "minivmm verify $store"
"$minivmm" verify "$store"
"$minivmm" export "$store@$(jq -r .id "$work/snapshot.json")" --disk "0=$work/exported.img" \
    --disk-base "0=$work/disk.img" >/dev/null
e2fsck -fy "$work/exported.img" >/dev/null 2>&1 || true
echo "The disk of the branch says: $(debugfs -R 'cat /primes' "$work/exported.img" 2>/dev/null |
    tail -n 1) primes."
