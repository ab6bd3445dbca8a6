#!/usr/bin/env bash
# Runs a command on a machine with a real, nested /dev/kvm: QEMU emulates (TCG, no KVM of the
# host) an AMD processor with SVM and nested paging, and Debian's generic kernel brings
# kvm_amd. For tests that boot Linux guests on hosts whose own KVM cannot. No root needed.
#
#   tools/lab.sh [OPTION...] COMMAND [ARGUMENT...]
#
#   --cpus N         processors of the machine (default 1, see below)
#   --memory M       its RAM as QEMU takes it (default 3G)
#   --no-npt         kvm_amd without nested paging (shadow page tables)
#   --env NAME[=V]   hand an environment variable over (repeatable); else only PATH, HOME,
#                    TERM and LANG are
#   --out DIR        DIR of the host, writable in the lab: the way to hand files back
#   --timeout S      end it after S seconds, with exit status 124
#   --again N        start anew, up to N times, where the machine ended under the command: its
#                    kernel died or the emulation failed. What the command itself did is never
#                    repeated, whatever its status.
#   --prepare        only make what the first use needs
#
# The command sees the host's files read-only and starts in the caller's directory, as root of
# the lab; /tmp shows the host's files and takes writes, /run and /dev/shm are empty; all
# three are forgotten afterwards. stdin is /dev/null, stdout and stderr are live and separate.
# The exit status is the command's; 125 means that the lab itself failed.
# Inside, MINIVMM_LAB=1 is set.
#
# One processor, though guests may have more: with two, what QEMU emulates breaks memory now and
# then while a guest with 4 vCPUs runs. It was seen as a guest that resets (in 2 of 3 chains of
# snapshots, and at boot), and, under QEMU's own guest too, as a panic of the lab's kernel
# ("corrupted stack end"). With one, none of it was seen. Labs run side by side instead.
set -euo pipefail
tools=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

lab_fail() {
    echo "lab: $*" >&2
    exit 125
}

usage() {
    sed -n '2,/^set /s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
}

call=("$@")
cpus=1 memory=3G npt=1 out='' timeout_s=0 again=0 prepare_only=0
environment=(PATH HOME TERM LANG)
while (($#)); do
    case $1 in
        --cpus | --memory | --env | --out | --timeout | --again)
            (($# >= 2)) || lab_fail "$1 needs a value"
            case $1 in
                --cpus) cpus=$2 ;;
                --memory) memory=$2 ;;
                --env) environment+=("$2") ;;
                --out) out=$2 ;;
                --timeout) timeout_s=$2 ;;
                --again) again=$2 ;;
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

check_qemu
machine=$("$tools/lab-prepare.sh") || lab_fail "its kernel and initramfs could not be made"
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

# On a busy host emulated timers come late. The kernel is told what it would conclude wrongly
# from that: the frequency of the TSC (the host's, see tools/lab-tsc.c), that it is reliable,
# and that the timer interrupt works.
append="console=ttyS0 quiet panic=-1 mitigations=off pci=lastbus=0"
append+=" tsc_early_khz=$("$machine/tsc") tsc=reliable no_timer_check nowatchdog"
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
mkfifo "$run"/{stdout,stderr,status}
for stream in stdout stderr status; do
    devices+=(-chardev "file,id=$stream,path=$run/$stream"
        -device "virtserialport,chardev=$stream,name=$stream")
done

# Until QEMU has ended this shell stands for a writer of the pipes: nobody waits in open(2) for a
# QEMU that never comes so far, and when this shell is killed the readers see the end.
exec {hold_stdout}<>"$run/stdout" {hold_stderr}<>"$run/stderr" {hold_status}<>"$run/status"
let_go() { exec {hold_stdout}>&- {hold_stderr}>&- {hold_status}>&-; }
(let_go && exec cat) <"$run/stdout" &
(let_go && exec cat) <"$run/stderr" >&2 &
(let_go && exec cat) <"$run/status" >"$run/exit" &
# A command behind PARENT, its process id, is killed when that ends, or is not started.
# shellcheck disable=SC2016 # for the other shell to expand
tied=(setpriv --pdeathsig KILL bash -c '[[ $PPID == "$0" ]] && exec "$@"')
(
    let_go
    exec "${tied[@]}" $$ timeout -k 10 "$timeout_s" "${tied[@]}" "$BASHPID" \
        "$qemu" -accel tcg,thread=multi -cpu max,+svm,+npt -M q35 -smp "$cpus" -m "$memory" \
        -nodefaults -no-user-config -display none -no-reboot -serial "file:$run/console" \
        -device virtio-rng-pci -d cpu_reset -D "$run/resets" \
        -kernel "$machine/vmlinux" -initrd "$machine/initramfs.cpio" -append "$append" \
        "${devices[@]}"
) </dev/null 2>"$run/qemu" &
qemu_pid=$!
qemu_status=0
# Not to hear bash's word about a job that was killed.
{ wait "$qemu_pid" || qemu_status=$?; } 2>/dev/null
let_go
wait
if [[ -s $run/exit ]]; then
    exit "$(<"$run/exit")"
elif ((qemu_status == 124 || qemu_status == 137 && timeout_s > 0)); then
    echo "lab: ended after ${timeout_s} s (--timeout)" >&2
    exit 124
fi
# A kernel that stops by itself says so on its console. One that cannot any more, for a fault
# inside a fault inside a fault, leaves only the processors' registers.
{
    head -n 20 "$run/qemu"
    tail -n 40 "$run/console"
    sed -n '/^Triple fault/,$p' "$run/resets" | head -n 80
} >&2 2>/dev/null || true
attempt=${MINIVMM_LAB_ATTEMPT:-1}
if ((attempt <= again)); then
    echo "lab: THE MACHINE DIED (QEMU: status $qemu_status), its last lines are above;" \
        "starting anew, $((attempt + 1)) of $((again + 1))" >&2
    finish
    MINIVMM_LAB_ATTEMPT=$((attempt + 1)) exec "${BASH_SOURCE[0]}" "${call[@]}"
fi
lab_fail "the machine ended (QEMU: status $qemu_status) before the command did; its last lines are above"
