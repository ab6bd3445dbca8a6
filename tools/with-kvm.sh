#!/usr/bin/env bash
# Runs a command that boots Linux guests: directly where this host's KVM runs them at hardware
# speed, in the lab (tools/lab.sh) where it does not.
#
#   tools/with-kvm.sh [--payload] MINIVMM [LAB OPTION...] -- COMMAND [ARGUMENT...]
#
# --payload: its guests are payloads (guest-images/payloads), which any KVM runs.
# MINIVMM is the built program; its `doctor` measures what KVM can do.
set -euo pipefail
tools=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
enough=hardware
if [ "$1" = --payload ]; then
    enough='hardware|emulated'
    shift
fi
minivmm=$1
shift
lab_options=()
while [ "$1" != -- ]; do
    lab_options+=("$1")
    shift
done
shift
# Its status says whether anything at all is missing, which may be something else.
ring0=$("$minivmm" doctor --json | jq -r .ring0) || true
if [[ $ring0 =~ ^($enough)$ ]]; then
    exec "$@"
fi
# Seen once: the processor that QEMU emulates reset itself, without a word of the kernel, while a guest
# with 16 vCPUs booted in it. lab.sh says so when it happens, with the registers.
exec "$tools/lab.sh" --again 1 "${lab_options[@]}" -- "$@"
