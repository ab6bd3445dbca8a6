#!/usr/bin/env bash
# Block device: fio in the guest on a raw file, against fio on the same file by the host that
# minivmm runs on, same job, one after the other. Where Linux guests run in the lab both sides run
# there, emulated: the ratio is of interest, the figures are not.
#
#   tools/with-kvm.sh build/release/minivmm -- bench/disk.sh build/release/minivmm [SECONDS]
set -euo pipefail
minivmm=$1 seconds=${2:-10}
cache=${MINIVMM_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/minivmm}
here=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
work=$(mktemp -d /tmp/minivmm-disk-XXXXXX)
trap 'rm -rf "$work"' EXIT
cp --sparse=always "$cache/disks/root-fio.img" "$work/root.img"
truncate -s 256M "$work/data.img"

jobs=("read 128k 8" "write 128k 8" "randread 4k 16" "randwrite 4k 16")
options="--direct=1 --time_based --runtime=$seconds --size=256M --output-format=terse --terse-version=3"
{
    echo '#!/bin/sh'
    for job in "${jobs[@]}"; do
        read -r rw bs depth <<<"$job"
        echo "echo \"fio $rw \$(fio --name=j --filename=/dev/vdb --rw=$rw --bs=$bs" \
            "--iodepth=$depth --ioengine=libaio $options | tail -1)\""
    done
} >"$work/script"
"$here/guest-images/add-script.sh" "$cache/initramfs/cloud.cpio" "$work/script" "$work/initrd.cpio"
"$minivmm" run --kernel "$cache/kernels/cloud/vmlinuz" --initrd "$work/initrd.cpio" \
    --cmdline "quiet root=/dev/vda" --memory 512M --disk "$work/root.img" --disk "$work/data.img" \
    </dev/null >"$work/guest.log"

# The lab's /tmp is memory, which its kernel does not read past the page cache.
host_options=$options
dd if=/dev/zero of="$work/probe" bs=4k count=1 oflag=direct status=none 2>/dev/null ||
    host_options=${options/--direct=1/--direct=0}

# Terse version 3: fields 7 and 8 are read KiB/s and IOPS, 48 and 49 those of writing.
rate() { awk -F';' -v rw="$1" '{print (rw ~ /read/) ? $7 : $48}'; }
printf '%-10s %6s %6s %14s %14s %6s\n' job block depth "guest KiB/s" "host KiB/s" ratio
for job in "${jobs[@]}"; do
    read -r rw bs depth <<<"$job"
    guest=$(sed -n "s/^fio $rw //p" "$work/guest.log" | tr -d '\r' | rate "$rw")
    # shellcheck disable=SC2086  # several options
    host=$(fio --name=j --filename="$work/data.img" --rw="$rw" --bs="$bs" --iodepth="$depth" \
        --ioengine=libaio $host_options | tail -1 | rate "$rw")
    printf '%-10s %6s %6s %14s %14s %6s\n' "$rw" "$bs" "$depth" "$guest" "$host" \
        "$(awk "BEGIN {printf \"%.2f\", $guest / $host}")"
done
