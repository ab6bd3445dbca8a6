#!/bin/busybox sh
# shellcheck shell=dash
# First process of the lab's machine (see tools/lab.sh). The root file system is the lab's
# initramfs; the host's comes in read-only over 9p at /host and the command runs in a chroot
# of it. Kernel command line: lab.run=DIRECTORY (on the host: holds the file "command"),
# lab.out=DIRECTORY (optional, writable), lab.npt=0|1; bytes of names as printf's \0ooo.
# Results go to the virtio ports stdout, stderr and status; anything unexpected goes to the
# serial console, which lab.sh shows when no status came back. Few forks: they are slow here.
export PATH=/bin
host=/host out='' run='' npt=1

stop() {
    [ $# = 0 ] || echo "lab: $*"
    poweroff -f
}

/bin/busybox mount -t proc proc /proc
read -r line </proc/cmdline
for word in $line; do
    case $word in
        lab.run=*) run=$(printf '%b' "${word#*=}") ;;
        lab.out=*) out=$(printf '%b' "${word#*=}") ;;
        lab.npt=*) npt=${word#*=} ;;
    esac
done
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
modprobe kvm-amd npt="$npt" &
kvm=$!
modprobe -a virtio_pci virtio_console 9pnet_virtio 9p overlay tun virtio-rng ||
    stop "a module is missing"

mount -t 9p -o ro,trans=virtio,version=9p2000.L,msize=512000,cache=loose host $host ||
    stop "the host's file system cannot be mounted"
cp "$host$run/command" /command || stop "no command in $run"
mount -t proc proc $host/proc
mount -t sysfs sysfs $host/sys
mount --move /dev $host/dev
cd $host/dev || stop "no /dev"
mkdir pts shm
ln -s /proc/self/fd fd
ln -s /proc/self/fd/0 stdin
ln -s /proc/self/fd/1 stdout
ln -s /proc/self/fd/2 stderr
mount -t devpts -o ptmxmode=666 devpts pts
mount -t tmpfs tmpfs shm
mount -t tmpfs tmpfs $host/run
mv /command $host/run/lab-command

# What lies in the host's /tmp stays visible (a build may be there), writes stay in the lab.
mount -t tmpfs tmpfs /upper
mkdir -m 1777 /upper/data /upper/work
mount -t overlay -o "lowerdir=$host/tmp,upperdir=/upper/data,workdir=/upper/work" overlay $host/tmp ||
    stop "/tmp cannot be made writable"
if [ -n "$out" ]; then
    mount -t 9p -o trans=virtio,version=9p2000.L,msize=512000,cache=mmap out "$host$out" ||
        stop "the directory for results, $out, cannot be mounted"
fi

ip link set lo up
hostname lab
stdout='' stderr='' status=''
for port in /sys/class/virtio-ports/*; do
    read -r name <"$port/name"
    case $name in
        stdout) stdout=$host/dev/${port##*/} ;;
        stderr) stderr=$host/dev/${port##*/} ;;
        status) status=$host/dev/${port##*/} ;;
    esac
done
wait $kvm || stop "kvm-amd does not load: no SVM in this QEMU?"
chroot $host /bin/bash /run/lab-command <$host/dev/null >"$stdout" 2>"$stderr"
code=$?
cd /
if [ -n "$out" ] && ! umount "$host$out"; then
    sync
fi
echo $code >"$status"
stop
