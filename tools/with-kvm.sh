#!/usr/bin/env bash
# Runs a command that boots Linux guests: directly where this host's KVM runs them at hardware
# speed, in the lab (tools/lab.sh) where it does not.
#
#   tools/with-kvm.sh MINIVMM [LAB OPTION...] -- COMMAND [ARGUMENT...]
#
# MINIVMM is the built program; its `doctor` measures what KVM can do.
set -euo pipefail
tools=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
minivmm=$1
shift
lab_options=()
while [ "$1" != -- ]; do
    lab_options+=("$1")
    shift
done
shift
if "$minivmm" doctor --json | grep -q '"ring0": *"hardware"'; then
    exec "$@"
fi
# Seen once: the processor that QEMU emulates reset itself, without a word of the kernel, while a guest
# with 16 vCPUs booted in it. lab.sh says so when it happens, with the registers.
exec "$tools/lab.sh" --again 1 "${lab_options[@]}" -- "$@"
