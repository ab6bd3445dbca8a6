#!/usr/bin/env bash
# Installs what building, testing and the demo need, by apt, on Debian 12 or newer; through
# sudo when not root. A second run finds nothing missing and is over at once.
#
#   tools/setup.sh [--no-install] [--ci]
#
#   --no-install  only say what is missing; exit status 1 if anything is
#   --ci          clang and its tools as well (sanitizers, fuzzers, lint, formatting)
set -euo pipefail
tools=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=tools/apt-common.sh
. "$tools/apt-common.sh"

packages=(
    g++ cmake ninja-build pkg-config ccache
    liburing-dev libxxhash-dev liblz4-dev libzstd-dev zlib1g-dev liblzma-dev libbz2-dev
    liblzo2-dev nlohmann-json3-dev libfmt-dev libboost-dev
    libslirp-dev libgtest-dev libgmock-dev libbenchmark-dev
    acpica-tools busybox-static cpio crash curl e2fsprogs fio gdb jq kmod lz4 python3 shellcheck socat xz-utils
    zstd
)
install=1
for argument in "$@"; do
    case $argument in
        --no-install) install=0 ;;
        --ci)
            packages+=(clang-19 clang-tidy-19 clang-format-19 libclang-rt-19-dev llvm-19)
            ;;
        *)
            echo "setup: unknown argument '$argument' (--no-install, --ci)" >&2
            exit 2
            ;;
    esac
done

# What of the named packages is not installed, one a line.
missing_of() {
    comm -23 <(printf '%s\n' "$@" | sort) \
        <(dpkg-query -W -f='${db:Status-Status} ${Package}\n' "$@" 2>/dev/null |
            sed -n 's/^installed //p' | sort)
}

# The lab needs QEMU 10 (tools/lab.sh says why); one that is in PATH by other ways will do.
qemu_is_new() {
    local version
    version=$(qemu-system-x86_64 --version 2>/dev/null |
        sed -n '1s/.*version \([0-9]*\).*/\1/p') || true
    ((${version:-0} >= 10))
}

mapfile -t missing < <(missing_of "${packages[@]}")
need_qemu=0
qemu_is_new || need_qemu=1
if ((${#missing[@]} == 0 && need_qemu == 0)); then
    echo "setup: everything needed is installed"
    exit 0
fi

wanted="${missing[*]}"
((need_qemu == 0)) || wanted+="${wanted:+ }qemu-system-x86 (version 10 or newer)"
if ((install == 0)); then
    echo "setup: missing: $wanted"
    exit 1
fi

codename=$(debian_codename) || {
    echo "setup: install by hand: $wanted" >&2
    exit 1
}
as_root=()
if ((EUID != 0)); then
    command -v sudo >/dev/null || {
        echo "setup: not root and no sudo; as root, run: $0 $*" >&2
        exit 1
    }
    as_root=(sudo)
fi
apt_get() {
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300 "$@"
}

echo "setup: installing: $wanted"
apt_get update
# Version that apt would take now; Debian 12 has a QEMU that is too old, its backports a new one.
qemu_release=()
if ((need_qemu)); then
    candidate=$(apt-cache policy qemu-system-x86 | sed -n 's/^ *Candidate: //p')
    if [[ $candidate == "(none)" || -z $candidate ]] ||
        dpkg --compare-versions "$candidate" lt 1:10; then
        source=$(backports_source "$codename")
        if [[ -n $source ]]; then
            echo "setup: adding $codename-backports to apt's sources (for QEMU 10)"
            "${as_root[@]}" tee "/etc/apt/sources.list.d/minivmm-backports.sources" \
                <<<"$source" >/dev/null
            apt_get update
        fi
        qemu_release=(-t "$codename-backports")
    fi
fi
if ((${#missing[@]})); then
    apt_get install -y --no-install-recommends "${missing[@]}" >/dev/null
fi
if ((need_qemu)); then
    apt_get install -y --no-install-recommends "${qemu_release[@]}" qemu-system-x86 >/dev/null
    qemu_is_new || {
        echo "setup: no QEMU 10 or newer in Debian $codename and its backports" >&2
        exit 1
    }
fi
mapfile -t missing < <(missing_of "${packages[@]}")
((${#missing[@]} == 0)) || {
    echo "setup: still missing: ${missing[*]}" >&2
    exit 1
}
echo "setup: done"
