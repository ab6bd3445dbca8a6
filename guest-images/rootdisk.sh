#!/usr/bin/env bash
# Makes ext4 root disks without root, for any of the kernels: the userland, and our init as
# /sbin/init. Attach as a virtio disk and boot with an initramfs of ours and root=/dev/vda.
#
#   guest-images/rootdisk.sh [--fio] [--size SIZE] [--out FILE]
#
# Makes $cache/disks/root.img (64M), or with --fio root-fio.img (256M) with fio and the
# libraries it needs. With --size or --out a disk of one's own is made each time anew
# (default: ./root.img). Images are sparse; give a guest a copy (cp --sparse=always).
set -euo pipefail
# shellcheck source=guest-images/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

fio=0 size='' out=''
while (($#)); do
    case $1 in
        --fio) fio=1 && shift ;;
        --size) size=${2:?--size needs a value} && shift 2 ;;
        --out) out=${2:?--out needs a value} && shift 2 ;;
        *) fail "rootdisk.sh: unknown argument '$1' (--fio, --size SIZE, --out FILE)" ;;
    esac
done
cached=''
if [[ -z $size && -z $out ]]; then
    cached=$cache/disks/root.img
    ((fio == 0)) || cached=$cache/disks/root-fio.img
fi
if [[ -z $size ]]; then
    size=64M
    ((fio == 0)) || size=256M
fi

lock_cache
"$recipes/userland.sh"
inputs=("${BASH_SOURCE[0]}" "$cache/userland.stamp")
if ((fio)); then
    program=$(command -v fio) || fail "no fio: run tools/setup.sh"
    inputs+=("$program")
fi
sum=$(recipe_sum "${inputs[@]}")
if [[ -n $cached ]] && up_to_date "$cached" "$sum"; then
    exit 0
fi
make_work_dir

tree=$work/tree
cp -a "$cache/userland" "$tree"
if ((fio)); then
    cp -L "$program" "$tree/bin/fio"
    # The loader's path has no "=>" in ldd's output, a library's has.
    ldd "$program" | sed -n 's/^\(.*=>\)\{0,1\}[[:space:]]*\(\/[^ ]*\) (0x.*/\2/p' |
        while read -r library; do
            mkdir -p "$tree${library%/*}"
            cp -L "$library" "$tree$library"
        done
fi
truncate -s "$size" "$work/disk"
# Nothing is left for the kernel to initialise in the background: it would disturb what is
# measured or compared.
mke2fs -q -F -t ext4 -L minivmm-root -m 0 -E lazy_itable_init=0,lazy_journal_init=0,nodiscard \
    -d "$tree" "$work/disk" || fail "mke2fs failed for a disk of $size: is that too small?"
if [[ -n $cached ]]; then
    publish "$work/disk" "$cached" "$sum"
    say "disk $(basename "$cached"): $size"
else
    mv "$work/disk" "${out:-root.img}"
fi
