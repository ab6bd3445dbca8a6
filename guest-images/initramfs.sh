#!/usr/bin/env bash
# Makes $cache/initramfs/KERNEL.cpio for each named kernel (default: all): the userland and
# the kernel's modules, not compressed, since unpacking costs a cold boot more than reading.
set -euo pipefail
# shellcheck source=guest-images/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

(($#)) || set -- cloud generic backports-cloud
lock_cache
"$recipes/kernels.sh" "$@"
"$recipes/userland.sh"
for kernel in "$@"; do
    image=$cache/initramfs/$kernel.cpio
    sum=$(recipe_sum "${BASH_SOURCE[0]}" "$cache/userland.stamp" \
        "$cache/kernels/$kernel.stamp" "$cache/kernels/$kernel/version")
    if up_to_date "$image" "$sum"; then
        continue
    fi
    [[ -n ${work:-} ]] || make_work_dir
    tree=$work/$kernel
    cp -a "$cache/userland" "$tree"
    mv "$tree/bin/init" "$tree/init"
    cp -r "$cache/kernels/$kernel/modules/lib/modules" "$tree/lib/"
    rm "$tree"/lib/modules/*/modules.*.bin
    (cd "$tree" && find . | LC_ALL=C sort | cpio --quiet -o -H newc -R 0:0) >"$work/$kernel.cpio"
    publish "$work/$kernel.cpio" "$image" "$sum"
    say "initramfs $kernel: $(($(stat -c %s "$image") / 1024)) KiB"
done
