#!/usr/bin/env bash
# Makes $cache/userland: the files that the initramfs and the root disk have in common, which
# are busybox with a link for each command, and our own programs (guest-images/tools).
set -euo pipefail
# shellcheck source=guest-images/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

busybox=/bin/busybox
[[ -x $busybox ]] || fail "no $busybox: run tools/setup.sh"
lock_cache
sum=$(recipe_sum "${BASH_SOURCE[0]}" "$recipes"/tools/*.[ch] "$recipes"/tools/workload/*.[ch] \
    "$recipes"/files/* "$busybox")
up_to_date "$cache/userland" "$sum" && exit 0
make_work_dir

tree=$work/userland
mkdir -p "$tree"/{bin,dev,etc/udhcpc,lib/modules,proc,root,run,sys,tmp,usr}
ln -s bin "$tree/sbin"
ln -s ../bin "$tree/usr/bin"
ln -s ../bin "$tree/usr/sbin"
cp "$busybox" "$tree/bin/busybox"
"$busybox" --list | while read -r name; do
    [[ $name == busybox || $name == init ]] || ln -s busybox "$tree/bin/$name"
done
install -m 755 "$recipes/files/udhcpc.script" "$tree/etc/udhcpc/default.script"
echo 'root:x:0:0:root:/root:/bin/sh' >"$tree/etc/passwd"
echo 'root:x:0:' >"$tree/etc/group"

build() { "${CC:-gcc}" -std=gnu17 -D_GNU_SOURCE -Os -s -static -Wall -Wextra -Wshadow "$@"; }
build -o "$tree/bin/init" "$recipes"/tools/{init,modules,supervise}.c
build -o "$tree/bin/vsock" "$recipes/tools/vsock.c"
build -o "$tree/bin/exit-machine" "$recipes/tools/exit-machine.c"
build -o "$tree/bin/workload" "$recipes"/tools/workload/*.c
publish "$tree" "$cache/userland" "$sum"
