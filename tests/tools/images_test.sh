#!/usr/bin/env bash
# guest-images/: what the recipes made is what a guest needs, and making it again is nothing.
# shellcheck disable=SC2001
set -uo pipefail
# shellcheck source=tests/tools/check.sh
. "$(dirname "${BASH_SOURCE[0]}")/check.sh"
images=$repository/guest-images
cache=${MINIVMM_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/minivmm}
PATH=$PATH:/usr/sbin:/sbin
"$images/build.sh" || exit 1
same "a second run says nothing" "$("$images/build.sh" 2>&1)" ""

for kernel in cloud generic backports-cloud; do
    directory=$cache/kernels/$kernel
    version=$(<"$directory/version")
    same "$kernel: boot protocol magic" "$(dd if="$directory/vmlinuz" bs=1 skip=514 count=4 2>/dev/null)" HdrS
    matches "$kernel: version" "$version" '^[0-9]+\.[0-9]+\..*-amd64$'
    # Boot protocol: kernel_version is an offset, less 0x200, to a string.
    offset=$(od -An -tu2 -j $((0x20e)) -N 2 "$directory/vmlinuz")
    same "$kernel: the image says the same" "$(tail -c +$((offset + 0x200 + 1)) "$directory/vmlinuz" |
        head -c ${#version})" "$version"

    listing=$(cpio -it --quiet <"$cache/initramfs/$kernel.cpio")
    for file in init bin/busybox bin/sh bin/vsock "lib/modules/$version/modules.dep"; do
        same "$kernel: initramfs has $file" "$(grep -Fx "$file" <<<"$listing")" "$file"
    done
    for module in virtio_pci virtio_blk virtio_net virtio-rng virtio_console virtio_balloon \
        vmw_vsock_virtio_transport ext4 button evdev; do
        matches "$kernel: $module is there" \
            "$listing $(tr '\n' ' ' <"$directory/modules/lib/modules/$version/modules.builtin")" \
            "/${module//[-_]/[-_]}\\.ko"
    done
    # Each dependency that modules.dep names is there, not compressed.
    modules=$(cd "$directory/modules/lib/modules/$version" && tr -d ':' <modules.dep | tr ' ' '\n' | sort -u)
    same "$kernel: dependencies" "$(comm -23 <(sed "s,^,lib/modules/$version/," <<<"$modules" |
        sort) <(sort <<<"$listing"))" ""
    same "$kernel: no compressed module" "$(grep -E '\.ko\.' <<<"$listing")" ""
done

# A script is appended as an archive of its own.
printf '#!/bin/sh\necho hello\n' >"$scratch/a script"
echo data >"$scratch/extra"
"$images/add-script.sh" "$cache/initramfs/cloud.cpio" "$scratch/a script" "$scratch/out.cpio" "$scratch/extra"
base_size=$(stat -c %s "$cache/initramfs/cloud.cpio")
same "the base is unchanged" "$(head -c "$base_size" "$scratch/out.cpio" | cmp - "$cache/initramfs/cloud.cpio" && echo same)" same
same "the second archive starts at a multiple of 4" "$((base_size % 4))" 0
mkdir "$scratch/unpacked"
(cd "$scratch/unpacked" && tail -c +$((base_size + 1)) "$scratch/out.cpio" | cpio -id --quiet)
same "the script's content" "$("$scratch/unpacked/script")" hello
same "the extra file" "$(cat "$scratch/unpacked/extra")" data

for disk in root root-fio; do
    image=$cache/disks/$disk.img
    e2fsck -fn "$image" >"$scratch/e2fsck" 2>&1
    same "$disk: e2fsck" "$?" 0
    for file in /sbin/init /bin/busybox /bin/vsock; do
        matches "$disk: $file" "$(debugfs -R "stat $file" "$image" 2>/dev/null)" "Type: regular"
    done
done
debugfs -R "dump /bin/fio $scratch/fio" "$cache/disks/root-fio.img" 2>/dev/null
same "root-fio: fio is the host's" "$(cmp "$scratch/fio" "$(command -v fio)" && echo same)" same
"$images/rootdisk.sh" --size 32M --out "$scratch/own.img"
same "a disk of a given size" "$(stat -c %s "$scratch/own.img")" $((32 * 1024 * 1024))
same "a disk too small is an error" "$("$images/rootdisk.sh" --size 1M --out "$scratch/small.img" \
    >/dev/null 2>&1 && echo made; ls "$scratch/small.img" 2>/dev/null)" ""
finish
