#!/usr/bin/env bash
# Unpacks Debian's kernels from their packages. Nothing is installed and no root is needed:
# apt works on a private copy of its lists, so that the versions are the current ones.
#
#   guest-images/kernels.sh [--update] [NAME...]
#
#   cloud            linux-image-cloud-amd64 of this Debian release
#   generic          linux-image-amd64 of this release; the lab's own kernel as well
#   backports-cloud  linux-image-cloud-amd64 of its backports
#   cloud-symbols    the debug information of `cloud`, for crash (0.6 GB; made only when named)
#
# Makes $cache/kernels/NAME/{vmlinuz,version,config,modules/lib/modules/VERSION/...}, or
# $cache/kernels/cloud-symbols/vmlinux; of the modules only those named below and what they depend on, not compressed. The generic kernel
# has lab-modules/ of the same form besides. --update looks for newer versions; without it
# what was unpacked once is kept.
set -euo pipefail
# shellcheck source=guest-images/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
# shellcheck source=tools/apt-common.sh
. "$recipes/../tools/apt-common.sh"

# For guests: transports, devices, power button, file system.
guest_modules=(virtio_pci virtio_mmio virtio_blk virtio_net virtio_console virtio_balloon
    virtio-rng vmw_vsock_virtio_transport vsock_loopback pvpanic-pci pvpanic-mmio button evdev
    ext4 crc32c_generic crc32c_intel af_packet loop)
# For the machine of tools/lab.sh.
lab_modules=(virtio_pci virtio_console virtio-rng 9p 9pnet_virtio overlay kvm-amd kvm-intel tun)

update=0
names=()
for argument in "$@"; do
    case $argument in
        --update) update=1 ;;
        cloud | generic | backports-cloud | cloud-symbols) names+=("$argument") ;;
        *)
            fail "kernels.sh: unknown argument '$argument'" \
                "(--update, cloud, generic, backports-cloud, cloud-symbols)"
            ;;
    esac
done
((${#names[@]})) || names=(cloud generic backports-cloud)

sum=$(recipe_sum "${BASH_SOURCE[0]}")

# Gives apt a configuration with its own lists and the backports suite; sets $backports.
private_apt() {
    local codename source
    codename=$(debian_codename) || fail "no Debian kernels without Debian's apt"
    backports=$codename-backports
    mkdir -p "$cache/apt/lists/partial" "$cache/apt/archives/partial" "$work/sources"
    source=$(backports_source "$codename")
    cp /etc/apt/sources.list.d/*.{list,sources} "$work/sources/" 2>/dev/null || true
    [[ -z $source ]] || echo "$source" >"$work/sources/minivmm-backports.sources"
    cat >"$work/apt.conf" <<CONF
Dir::State::Lists "$cache/apt/lists";
Dir::Cache "$cache/apt";
Dir::Etc::SourceParts "$work/sources";
APT::Sandbox::User "$(id -un)";
Acquire::Languages "none";
Acquire::Retries "3";
CONF
    export APT_CONFIG=$work/apt.conf
    say "reading the package lists"
    apt-get update -qq || fail "apt-get update failed: is the Debian mirror reachable?"
}

# unpack_package PACKAGE RELEASE DIRECTORY: the package that the metapackage PACKAGE stands for.
unpack_package() {
    local real
    real=$(apt-cache show --no-all-versions -o "APT::Default-Release=$2" "$1" |
        sed -n 's/^Depends:.*\(linux-image-[^ ,]*\).*/\1/p' | head -n 1)
    [[ -n $real ]] || fail "package $1 names no kernel (release ${2:-default})"
    say "fetching $real"
    mkdir "$3.deb"
    (cd "$3.deb" && apt-get download -qq "$real") || fail "cannot download $real"
    dpkg -x "$3.deb"/*.deb "$3"
    rm -r "$3.deb"
}

# keep_modules TREE DESTINATION VERSION MODULE...: copies the modules with their dependencies.
keep_modules() {
    local tree=$1 root=$2 version=$3 to=$2/lib/modules/$3 module pattern files file
    shift 3
    mkdir -p "$to"
    cp "$tree/lib/modules/$version"/modules.{builtin,builtin.modinfo,order} "$to/"
    for module in "$@"; do
        pattern="/${module//[-_]/[-_]}\\.ko"
        files=$(grep -E "^[^:]*$pattern(\\.xz|\\.zst)?:" "$tree/lib/modules/$version/modules.dep" |
            tr -d ':') || true
        if [[ -z $files ]] && ! grep -qE "$pattern\$" "$to/modules.builtin"; then
            fail "kernel $version has no module $module, neither built in nor loadable"
        fi
        for file in $files; do
            mkdir -p "$to/${file%/*}"
            cp -n "$tree/lib/modules/$version/$file" "$to/$file"
        done
    done
    find "$to" -name '*.ko.xz' -exec xz -d {} +
    find "$to" -name '*.ko.zst' -exec zstd -q -d --rm {} +
    depmod -b "$root" "$version"
}

# make_kernel NAME
make_kernel() {
    local name=$1 package=linux-image-cloud-amd64 release=''
    case $name in
        generic) package=linux-image-amd64 ;;
        backports-cloud) release=$backports ;;
    esac
    local tree=$work/$name.tree new=$work/$name version
    unpack_package "$package" "$release" "$tree"
    version=$(basename "$tree"/boot/vmlinuz-*)
    version=${version#vmlinuz-}
    mkdir "$new"
    # Newer packages ship usr/lib/modules only.
    [[ -d $tree/lib/modules ]] || ln -s usr/lib "$tree/lib"
    depmod -b "$tree" "$version"
    cp "$tree/boot/vmlinuz-$version" "$new/vmlinuz"
    cp "$tree/boot/config-$version" "$new/config"
    echo "$version" >"$new/version"
    keep_modules "$tree" "$new/modules" "$version" "${guest_modules[@]}"
    if [[ $name == generic ]]; then
        keep_modules "$tree" "$new/lab-modules" "$version" "${lab_modules[@]}"
    fi
    rm -rf "$tree"
    publish "$new" "$cache/kernels/$name" "$sum"
    say "kernel $name: $version"
}

# make_symbols: of the kernel that is there, whatever version is current.
make_symbols() {
    local version package new=$work/cloud-symbols
    [[ -e $cache/kernels/cloud/version ]] || make_kernel cloud
    version=$(<"$cache/kernels/cloud/version")
    package=linux-image-$version-dbg
    say "fetching $package"
    mkdir "$new" "$new.deb"
    (cd "$new.deb" && apt-get download -qq "$package") ||
        fail "cannot download $package (for a newer kernel: kernels.sh --update cloud)"
    dpkg-deb --fsys-tarfile "$new.deb"/*.deb |
        tar -xO "./usr/lib/debug/boot/vmlinux-$version" >"$new/vmlinux"
    rm -r "$new.deb"
    publish "$new" "$cache/kernels/cloud-symbols" "$(sum_of cloud-symbols)"
    say "symbols of kernel cloud: $version"
}

# sum_of NAME: what its stamp says when it is up to date.
sum_of() {
    if [[ $1 == cloud-symbols ]]; then
        echo "$sum $(cat "$cache/kernels/cloud/version" 2>/dev/null)"
    else
        echo "$sum"
    fi
}

# Symbols last: they are of the kernel that is there by then.
mapfile -t names < <(
    printf '%s\n' "${names[@]}" | grep -vx cloud-symbols || true
    printf '%s\n' "${names[@]}" | grep -x cloud-symbols || true
)
wanted=()
lock_cache
for name in "${names[@]}"; do
    if ((update)) || ! up_to_date "$cache/kernels/$name" "$(sum_of "$name")"; then
        wanted+=("$name")
    fi
done
((${#wanted[@]})) || exit 0
make_work_dir
private_apt
for name in "${wanted[@]}"; do
    if [[ $name == cloud-symbols ]]; then make_symbols; else make_kernel "$name"; fi
done
