#!/usr/bin/env bash
# All tests: installs what is missing, builds, prepares the guest images, runs. A second run has
# nothing to prepare.
#
#   tools/test.sh [--no-install] [CTEST OPTION...]     e.g. tools/test.sh -L unit
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
build_options=()
if [ "${1:-}" = --no-install ]; then
    build_options=(--no-install)
    shift
fi
tools/build.sh "${build_options[@]}"
# Without them one test skips, and says so.
guest-images/kernels.sh cloud-symbols || true
exec ctest --test-dir build/release --output-on-failure --no-label-summary -j "$(nproc)" "$@"
