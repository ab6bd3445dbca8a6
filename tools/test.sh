#!/usr/bin/env bash
# All tests: installs what is missing, builds, prepares the guest images, runs. A second run has
# nothing to prepare.
#
#   tools/test.sh [--no-install] [CTEST OPTION...]     e.g. tools/test.sh -L unit
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
setup_options=()
if [ "${1:-}" = --no-install ]; then
    setup_options=(--no-install)
    shift
fi
tools/setup.sh "${setup_options[@]}"
guest-images/build.sh
tools/lab.sh --prepare
export CMAKE_CXX_COMPILER_LAUNCHER=ccache CMAKE_C_COMPILER_LAUNCHER=ccache CCACHE_BASEDIR=$PWD
cmake --preset release >build.log 2>&1 || { cat build.log && exit 1; }
rm -f build.log
cmake --build build/release
exec ctest --test-dir build/release --output-on-failure --no-label-summary -j "$(nproc)" "$@"
