#!/usr/bin/env bash
# Runs a command on a machine with a real, nested /dev/kvm: QEMU emulates (TCG, no KVM of the
# host) an AMD processor with SVM and nested paging, and Debian's generic kernel brings
# kvm_amd. For tests that boot Linux guests on hosts whose own KVM cannot. No root needed.
#
#   tools/lab.sh [OPTION...] COMMAND [ARGUMENT...]
#
#   --cpus N         processors of the machine (default 2)
#   --memory M       its RAM as QEMU takes it (default 3G)
#   --no-npt         kvm_amd without nested paging (shadow page tables)
#   --env NAME[=V]   hand an environment variable over (repeatable); else only PATH, HOME,
#                    TERM and LANG are
#   --out DIR        DIR of the host, writable in the lab: the way to hand files back
#   --timeout S      end it after S seconds, with exit status 124
#   --prepare        only make what the first use needs
#
# The command sees the host's files read-only and starts in the caller's directory, as root of
# the lab; /tmp shows the host's files and takes writes, /run and /dev/shm are empty; all
# three are forgotten afterwards. stdin is /dev/null, stdout and stderr are live and separate.
# The exit status is the command's; 125 means that the lab itself failed.
# Inside, MINIVMM_LAB=1 is set.
set -euo pipefail
tools=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=guest-images/common.sh
. "$tools/../guest-images/common.sh"

lab_fail() {
    echo "lab: $*" >&2
    exit 125
}

usage() {
    sed -n '2,/^set /s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
}

cpus=2 memory=3G npt=1 out='' timeout_s=0 prepare_only=0
environment=(PATH HOME TERM LANG)
while (($#)); do
    case $1 in
        --cpus | --memory | --env | --out | --timeout)
            (($# >= 2)) || lab_fail "$1 needs a value"
            case $1 in
                --cpus) cpus=$2 ;;
                --memory) memory=$2 ;;
                --env) environment+=("$2") ;;
                --out) out=$2 ;;
                --timeout) timeout_s=$2 ;;
            esac
            shift 2
            ;;
        --no-npt) npt=0 && shift ;;
        --prepare) prepare_only=1 && shift ;;
        --help | -h) usage && exit 0 ;;
        --) shift && break ;;
        -*) lab_fail "unknown option $1 (--help shows them)" ;;
        *) break ;;
    esac
done
((prepare_only || $#)) || lab_fail "no command given (--help shows the usage)"

qemu=${MINIVMM_LAB_QEMU:-qemu-system-x86_64}

# QEMU before 10 corrupts the flags register of nested guests now and then; a lab that fails
# by chance is worse than none.
check_qemu() {
    local version
    version=$("$qemu" --version 2>/dev/null | sed -n '1s/.*version \([0-9]*\).*/\1/p') || true
    [[ -n $version ]] || lab_fail "$qemu is not installed: run tools/setup.sh"
    ((version >= 10)) || lab_fail "$qemu is version $version, which runs nested guests wrongly;" \
        "QEMU 10 or newer is needed: run tools/setup.sh"
}

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
        *) lab_fail "$1: unknown compression (starts with $magic)" ;;
    esac
    # Four bytes of size follow the stream, about which the tools complain.
    "$unpack" -dc < <(tail -c +$((offset + 1)) "$1" | head -c $((length - 4))) >"$2" ||
        lab_fail "$1: cannot unpack its payload with $unpack"
}

prepare() {
    local sum initramfs
    "$tools/../guest-images/kernels.sh" generic || lab_fail "the lab's kernel could not be made"
    sum=$(recipe_sum "${BASH_SOURCE[0]}" "$tools/lab-init.sh" "$cache/kernels/generic.stamp" \
        "$cache/kernels/generic/version")
    up_to_date "$cache/lab" "$sum" && return
    (
        lock_cache
        up_to_date "$cache/lab" "$sum" && exit
        make_work_dir
        initramfs=$work/initramfs
        mkdir -p "$work/lab" "$initramfs"/{bin,proc,sys,dev,host,upper}
        ln -s bin "$initramfs/sbin"
        cp /bin/busybox "$initramfs/bin/busybox" || lab_fail "no /bin/busybox: run tools/setup.sh"
        for name in sh mount umount modprobe ip hostname chroot cp mv ln mkdir sync poweroff; do
            ln -s busybox "$initramfs/bin/$name"
        done
        install -m 755 "$tools/lab-init.sh" "$initramfs/init"
        cp -r "$cache/kernels/generic/lab-modules/lib" "$initramfs/lib"
        (cd "$initramfs" && find . | cpio --quiet -o -H newc -R 0:0) >"$work/lab/initramfs.cpio"
        unpack_kernel "$cache/kernels/generic/vmlinuz" "$work/lab/vmlinux"
        publish "$work/lab" "$cache/lab" "$sum"
    )
}

check_qemu
prepare
((prepare_only)) && exit 0

# Encodes, for printf %b, what the kernel's command line or the init would take apart.
encode() {
    local LC_ALL=C text=$1 i c
    for ((i = 0; i < ${#text}; i++)); do
        c=${text:i:1}
        case $c in
            [A-Za-z0-9/._-]) printf '%s' "$c" ;;
            *) printf '\\0%03o' "'$c" ;;
        esac
    done
}

# A directory whose lab was killed outright is cleared away by the next one.
scratch=${TMPDIR:-/tmp}
for stale in "$scratch"/minivmm-lab.*; do
    pid=${stale##*/minivmm-lab.}
    if [[ -O $stale && ! -e /proc/${pid%%.*} ]]; then
        rm -rf "$stale"
    fi
done
run=$(mktemp -d "$scratch/minivmm-lab.$$.XXXXXX")
# shellcheck disable=SC2317 # called by the trap
finish() {
    local children
    children=$(jobs -p)
    # shellcheck disable=SC2086 # a list of process ids
    [[ -z $children ]] || kill $children 2>/dev/null || true
    wait
    rm -rf "$run"
}
trap finish EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

{
    for entry in "${environment[@]}"; do
        if [[ $entry == *=* ]]; then
            printf 'export %q\n' "$entry"
        elif [[ -v $entry ]]; then
            printf 'export %s=%q\n' "$entry" "${!entry}"
        fi
    done
    echo 'export MINIVMM_LAB=1'
    printf 'cd %q || exit 125\n' "$PWD"
    printf 'exec'
    printf ' %q' "$@"
    echo
} >"$run/command"

append="console=ttyS0 quiet panic=-1 mitigations=off pci=lastbus=0"
append+=" cryptomgr.notests lsm= audit=0 lab.npt=$npt lab.run=$(encode "$run")"
devices=(
    -virtfs "local,path=/,mount_tag=host,security_model=none,readonly=on,multidevs=remap"
)
if [[ -n $out ]]; then
    out=$(cd "$out" 2>/dev/null && pwd -P) || lab_fail "--out: no such directory"
    devices+=(-virtfs "local,path=${out//,/,,},mount_tag=out,security_model=none")
    append+=" lab.out=$(encode "$out")"
fi
devices+=(-device virtio-serial)
for stream in stdout stderr status; do
    mkfifo "$run/$stream"
    devices+=(-chardev "file,id=$stream,path=$run/$stream"
        -device "virtserialport,chardev=$stream,name=$stream")
done

cat "$run/stdout" &
cat "$run/stderr" >&2 &
cat "$run/status" >"$run/exit" &
setpriv --pdeathsig KILL timeout -k 2 "$timeout_s" setpriv --pdeathsig KILL \
    "$qemu" -accel tcg,thread=multi -cpu max,+svm,+npt -M q35 -smp "$cpus" -m "$memory" \
    -nodefaults -no-user-config -display none -no-reboot -serial "file:$run/console" \
    -device virtio-rng-pci \
    -kernel "$cache/lab/vmlinux" -initrd "$cache/lab/initramfs.cpio" -append "$append" \
    "${devices[@]}" </dev/null 2>"$run/qemu" &
qemu_pid=$!
qemu_status=0
wait "$qemu_pid" || qemu_status=$?
# A QEMU that did not come as far as opening them would leave the readers waiting.
for stream in stdout stderr status; do
    : <>"$run/$stream"
done
wait
if [[ -s $run/exit ]]; then
    exit "$(<"$run/exit")"
elif ((qemu_status == 124 || qemu_status == 137 && timeout_s > 0)); then
    echo "lab: ended after ${timeout_s} s (--timeout)" >&2
    exit 124
fi
{ head -n 20 "$run/qemu" && tail -n 40 "$run/console"; } >&2 2>/dev/null || true
lab_fail "the machine ended (QEMU: status $qemu_status) before the command did; its last lines are above"
