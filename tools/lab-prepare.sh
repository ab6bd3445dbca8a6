#!/usr/bin/env bash
# Makes what tools/lab.sh starts: a directory with vmlinux, initramfs.cpio and the program
# tsc, from the generic kernel of guest-images/kernels.sh, tools/lab-init.sh and
# tools/lab-tsc.c. Prints its name, which holds a checksum of the recipe: a checkout with
# another recipe does not replace a machine in use. Nothing to do when it is there.
set -euo pipefail
tools=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=guest-images/common.sh
. "$tools/../guest-images/common.sh"

# unpack_kernel BZIMAGE VMLINUX: takes the compressed ELF file out, so that QEMU starts it by
# PVH; unpacking it with emulated instructions would take longer than the rest of the boot.
# Offsets are those of the Linux boot protocol (setup_sects, payload_offset, payload_length).
unpack_kernel() {
    local sectors offset length magic unpack
    sectors=$(od -An -tu1 -j $((0x1f1)) -N 1 "$1")
    offset=$(od -An -tu4 -j $((0x248)) -N 4 "$1")
    length=$(od -An -tu4 -j $((0x24c)) -N 4 "$1")
    offset=$(((sectors + 1) * 512 + offset))
    magic=$(od -An -tx1 -j "$offset" -N 4 "$1" | tr -d ' ')
    case $magic in
        fd377a58) unpack=xz ;;
        28b52ffd) unpack=zstd ;;
        02214c18) unpack=lz4 ;;
        1f8b*) unpack=gzip ;;
        *) fail "$1: unknown compression (starts with $magic)" ;;
    esac
    # Four bytes of size follow the stream, about which the tools complain.
    "$unpack" -dc < <(tail -c +$((offset + 1)) "$1" | head -c $((length - 4))) >"$2" ||
        fail "$1: cannot unpack its payload with $unpack"
}

lock_cache
"$recipes/kernels.sh" generic
kernel=$cache/kernels/generic
sum=$(recipe_sum "${BASH_SOURCE[0]}" "$tools"/lab-{init.sh,tsc.c} "$kernel.stamp" "$kernel/version")
machine=$cache/lab/$sum
if up_to_date "$machine" "$sum"; then
    touch "$machine" "$machine.stamp"
    echo "$machine"
    exit 0
fi
[[ -x /bin/busybox ]] || fail "no /bin/busybox: run tools/setup.sh"
make_work_dir

initramfs=$work/initramfs
mkdir -p "$work/lab" "$initramfs"/{bin,proc,sys,dev,host,upper}
ln -s bin "$initramfs/sbin"
cp /bin/busybox "$initramfs/bin/busybox"
for name in sh mount umount modprobe ip hostname chroot cp mv ln mkdir sync poweroff; do
    ln -s busybox "$initramfs/bin/$name"
done
install -m 755 "$tools/lab-init.sh" "$initramfs/init"
cp -r "$kernel/lab-modules/lib" "$initramfs/lib"
(cd "$initramfs" && find . | cpio --quiet -o -H newc -R 0:0) >"$work/lab/initramfs.cpio"
unpack_kernel "$kernel/vmlinuz" "$work/lab/vmlinux"
"${CC:-gcc}" -std=gnu17 -O2 -Wall -Wextra -o "$work/lab/tsc" "$tools/lab-tsc.c" ||
    fail "no C compiler: run tools/setup.sh"
publish "$work/lab" "$machine" "$sum"
# Machines of older recipes, when nobody has used them for a week.
find "$cache/lab" -mindepth 1 -maxdepth 1 -mtime +7 -exec rm -rf {} +
echo "$machine"
