#!/usr/bin/env bash
# Cold boot: from exec to the guest's init, minivmm against QEMU's microvm, the same kernel,
# initramfs, command line, memory and CPU count, in turn. Prints one line a run and the ratio of the
# medians. To be run where Linux guests run:
#
#   tools/with-kvm.sh build/release/minivmm -- bench/boot.sh build/release/minivmm [RUNS] [KERNEL]
#
# RUNS: pairs, default 5. KERNEL: cloud (default), generic, backports-cloud.
set -euo pipefail
minivmm=$1 runs=${2:-5} kernel=${3:-cloud}
cache=${MINIVMM_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/minivmm}
image=$cache/kernels/$kernel/vmlinuz initrd=$cache/initramfs/$kernel.cpio
append="console=ttyS0 quiet panic=-1"

# Milliseconds until a command's output says that init is up; the command is ended then.
until_init() {
    local start end
    start=$(date +%s%N)
    coproc vm { exec "$@" 2>&1 </dev/null; }
    # shellcheck disable=SC2154  # set by coproc
    local pid=$vm_PID line
    while IFS= read -r line <&"${vm[0]}"; do
        [[ $line == *"minivmm-init: ready"* ]] && break
        line=
    done
    end=$(date +%s%N)
    kill -9 "$pid" 2>/dev/null || true
    wait "$pid" 2>/dev/null || true
    [ -n "$line" ] || { echo "no guest came up: $*" >&2 && exit 1; }
    echo $(((end - start) / 1000000))
}
median() { printf '%s\n' "$@" | sort -n | sed -n "$((($# + 1) / 2))p"; }

direct=() stub=() theirs=()
for ((i = 1; i <= runs; i++)); do
    direct+=("$(until_init "$minivmm" run --kernel "$image" --initrd "$initrd" --cmdline "$append" \
        --memory 256M --cpus 1)")
    stub+=("$(until_init "$minivmm" run --boot=stub --kernel "$image" --initrd "$initrd" \
        --cmdline "$append" --memory 256M --cpus 1)")
    theirs+=("$(until_init qemu-system-x86_64 -M microvm -accel kvm -cpu host -m 256M -smp 1 \
        -nodefaults -no-user-config -display none -serial stdio -no-reboot \
        -kernel "$image" -initrd "$initrd" -append "$append")")
    echo "run $i: minivmm ${direct[-1]} ms, with the kernel's stub ${stub[-1]} ms," \
        "QEMU microvm ${theirs[-1]} ms"
done
ours=$(median "${direct[@]}") other=$(median "${theirs[@]}") own_stub=$(median "${stub[@]}")
echo "kernel $kernel $(cat "$cache/kernels/$kernel/version"), $runs runs each, medians:"
echo "  minivmm                 $ours ms"
echo "  minivmm --boot=stub     $own_stub ms"
echo "  QEMU $(qemu-system-x86_64 --version | sed -n 's/.*version \([0-9.]*\).*/\1/p') microvm     $other ms"
echo "  ratio                   0.$(printf %02d $((100 * ours / other)))  (target 0.60)"
