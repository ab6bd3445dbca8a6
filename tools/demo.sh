#!/usr/bin/env bash
# Shows what minivmm does, in two parts.
#
# 1. Debian's cloud kernel, as packaged, computes; snapshots are taken while it does, disk included;
#    the machine is killed; it goes on from the last snapshot, and then from one three earlier.
#    Where this host's KVM cannot run Linux it is done in an emulated machine (slower, the same
#    otherwise).
# 2. The longest gaps that a guest itself saw while it worked, without snapshots and with: at full
#    speed on this host's own KVM. Where it has none, in an emulated machine, and then they say how
#    slow that is.
#
#   tools/demo.sh [--no-install]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
tools/build.sh "$@"

MINIVMM_CACHE=${MINIVMM_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/minivmm}
MINIVMM_BUILD=$PWD/build/release
export MINIVMM_CACHE MINIVMM_BUILD

environment=(--env MINIVMM_CACHE --env MINIVMM_BUILD)
tools/with-kvm.sh build/release/minivmm "${environment[@]}" -- tools/demo/linux.sh
tools/with-kvm.sh --payload build/release/minivmm "${environment[@]}" -- tools/demo/gaps.sh
