#!/bin/busybox sh
# First process of the lab's machine (see tools/lab.sh). The root file system is the lab's
# initramfs; the host's comes in read-only over 9p at /host and the command runs in a chroot
# of it. Kernel command line: lab.run=DIRECTORY (on the host: the file "command"),
# lab.out=DIRECTORY (optional, writable), lab.npt=0|1.
# Ports: stdout, stderr and status under /dev/virtio-ports; anything unexpected goes to the
# serial console, which lab.sh shows when no status came back.
/bin/busybox --install -s /bin
export PATH=/bin

value() { tr ' ' '\n' </proc/cmdline | sed -n "s/^$1=//p"; }

stop() {
    [ $# = 0 ] || echo "lab: $*"
    poweroff -f
}

mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
modprobe -a virtio_pci virtio_console 9pnet_virtio 9p overlay tun virtio-rng ||
    stop "a module is missing"
modprobe kvm-amd npt="$(value lab.npt)" || stop "kvm-amd does not load: no SVM in this QEMU?"

# Options hold no spaces: lab.sh writes directories percent-encoded.
decode() { printf '%b' "$(echo "$1" | sed 's/%/\\x/g')"; }
run=$(decode "$(value lab.run)")
out=$(decode "$(value lab.out)")

host=/host
mount -t 9p -o ro,trans=virtio,version=9p2000.L,msize=1048576,cache=loose host $host ||
    stop "the host's file system cannot be mounted"
cp "$host$run/command" /command || stop "no command in $run"
mount -t proc proc $host/proc
mount -t sysfs sysfs $host/sys
mount --move /dev $host/dev
mkdir -p $host/dev/pts $host/dev/shm
mount -t devpts -o ptmxmode=666 devpts $host/dev/pts
mount -t tmpfs tmpfs $host/dev/shm
mount -t tmpfs tmpfs $host/run
ln -s /proc/self/fd $host/dev/fd
ln -s /proc/self/fd/0 $host/dev/stdin
ln -s /proc/self/fd/1 $host/dev/stdout
ln -s /proc/self/fd/2 $host/dev/stderr

# What lies in the host's /tmp stays visible (a build may be there), writes stay in the lab.
mount -t tmpfs tmpfs /upper
mkdir /upper/data /upper/work
chmod 1777 /upper/data
mount -t overlay -o "lowerdir=$host/tmp,upperdir=/upper/data,workdir=/upper/work" overlay $host/tmp ||
    stop "/tmp cannot be made writable"
if [ -n "$out" ]; then
    mount -t 9p -o trans=virtio,version=9p2000.L,msize=1048576,cache=mmap out "$host$out" ||
        stop "the directory for results, $out, cannot be mounted"
fi

ip link set lo up
hostname lab
cp /command $host/run/lab-command

# Ports are named by udev elsewhere; here by hand.
for port in /sys/class/virtio-ports/*; do
    case $(cat "$port/name") in
        stdout) stdout=$host/dev/${port##*/} ;;
        stderr) stderr=$host/dev/${port##*/} ;;
        status) status=$host/dev/${port##*/} ;;
    esac
done
chroot $host /bin/bash /run/lab-command <$host/dev/null >"$stdout" 2>"$stderr"
echo $? >"$status"
[ -z "$out" ] || umount "$host$out" || echo "lab: files are still open in $out"
stop
