# shellcheck shell=bash
# What the recipes share: where images are kept, and how an image is replaced in one step
# so that an interrupted run leaves the old one or none. Sourced, never run.

# shellcheck disable=SC2034 # for the recipes
recipes=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=${MINIVMM_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/minivmm}
export PATH=$PATH:/usr/sbin:/sbin # depmod and mke2fs, for users without them in PATH

mkdir -p "$cache"

say() { echo "guest-images: $*" >&2; }

fail() {
    say "$*"
    exit 1
}

# One recipe at a time in this cache; a second one waits and then finds the work done.
# Recipes call each other, so the lock is passed on by its being held already.
lock_cache() {
    if [[ -z ${MINIVMM_CACHE_LOCKED:-} ]]; then
        exec {lock_fd}>"$cache/.lock"
        flock "$lock_fd"
        export MINIVMM_CACHE_LOCKED=1
    fi
}

# A directory of our own inside the cache (so that a rename stays in one file system),
# removed however the script ends. Sets $work.
make_work_dir() {
    work=$(mktemp -d "$cache/.work.XXXXXX")
    trap 'rm -rf "$work"' EXIT
    trap 'exit 129' HUP
    trap 'exit 130' INT
    trap 'exit 143' TERM
}

# Prints a checksum over the named files: with it an image knows the recipe it is from.
recipe_sum() { cat -- "$@" | sha256sum | cut -c1-16; }

# up_to_date IMAGE SUM: the stamp beside (file) or inside (directory) IMAGE says SUM.
up_to_date() {
    local stamp=$1.stamp
    [[ -e $1 && -e $stamp && $(<"$stamp") == "$2" ]]
}

# publish NEW IMAGE SUM: puts NEW in the place of IMAGE, stamp last.
publish() {
    local new=$1 image=$2 sum=$3
    mkdir -p "$(dirname "$image")"
    rm -f "$image.stamp"
    if [[ -d $image ]]; then
        mv "$image" "$work/replaced.$RANDOM"
    fi
    mv -T "$new" "$image"
    echo "$sum" >"$image.stamp"
}
