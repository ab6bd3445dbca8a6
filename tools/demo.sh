#!/usr/bin/env bash
# Shows what minivmm does: boots Debian's cloud kernel, as packaged, with two CPUs, two disks and a
# network, lets the guest show what it sees, and powers off. On a machine whose KVM cannot run Linux
# it does so in an emulated one (slower, the same otherwise).
#
#   tools/demo.sh [--no-install]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
tools/build.sh "$@"

cache=${MINIVMM_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/minivmm}
work=$(mktemp -d /tmp/minivmm-demo-XXXXXX)
trap 'rm -rf "$work"' EXIT
mkdir "$work/www"
echo "a file served by the host" >"$work/www/hello.txt"
cp --sparse=always "$cache/disks/root.img" "$work/root.img"
truncate -s 16M "$work/data.img"
mke2fs -q -t ext4 -L data "$work/data.img"

cat >"$work/script" <<'GUEST'
#!/bin/sh
say() { printf '\n\033[1m%s\033[0m\n' "$*"; }
say "The kernel, unmodified:"
uname -srv
say "Processors and memory:"
grep -E 'model name' /proc/cpuinfo
grep -E 'MemTotal' /proc/meminfo
say "Disks (the first is the root):"
grep -E 'vd[ab]' /proc/partitions
mkdir -p /mnt && mount /dev/vdb /mnt && echo "written by the guest" >/mnt/note && cat /mnt/note
umount /mnt
say "Network (user mode, no privilege on the host):"
udhcpc -i eth0 -n -q >/dev/null 2>&1
ip -4 addr show eth0 | grep inet
wget -qO- http://10.0.2.2:8017/hello.txt
say "Power off."
GUEST
guest-images/add-script.sh "$cache/initramfs/cloud.cpio" "$work/script" "$work/initrd.cpio"

cat >"$work/run" <<HOST
#!/bin/sh
busybox httpd -f -p 127.0.0.1:8017 -h "$work/www" &
server=\$!
"$PWD/build/release/minivmm" run --kernel "$cache/kernels/cloud/vmlinuz" \\
    --initrd "$work/initrd.cpio" --cmdline "quiet root=/dev/vda" --memory 256M --cpus 2 \\
    --disk "$work/root.img" --disk "$work/data.img" --net user --rng </dev/null
status=\$?
kill \$server
echo
echo "minivmm ended with status \$status; what the guest wrote to its second disk:"
debugfs -R "cat /note" "$work/data.img" 2>/dev/null
exit \$status
HOST
chmod +x "$work/run"
echo
echo "minivmm run --kernel vmlinuz --cpus 2 --disk root.img --disk data.img --net user --rng"
tools/with-kvm.sh build/release/minivmm -- "$work/run"
