#!/usr/bin/env bash
# What the demo and the tests have in common: installs what is missing, makes the guest images,
# builds into build/release. Says nothing where there is nothing to do.
#
#   tools/build.sh [--no-install]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
tools/setup.sh "$@"
guest-images/build.sh
export CMAKE_CXX_COMPILER_LAUNCHER=ccache CMAKE_C_COMPILER_LAUNCHER=ccache CCACHE_BASEDIR=$PWD
export CCACHE_SLOPPINESS=pch_defines,time_macros
mkdir -p build
cmake --preset release >build/configure.log || { cat build/configure.log && exit 1; }
cmake --build build/release
# Where KVM cannot run Linux the lab is needed: its first use prepares it.
tools/with-kvm.sh build/release/minivmm -- true
