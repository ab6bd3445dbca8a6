#!/usr/bin/env bash
# Gives an initramfs a script to run: OUT is BASE with a second archive behind it.
#
#   guest-images/add-script.sh BASE.cpio SCRIPT OUT [FILE...]
#
# The guest's init runs SCRIPT as /script (any executable, "#!/bin/sh" usually); FILEs appear
# under / by their names.
set -euo pipefail
(($# >= 3)) || {
    echo "usage: add-script.sh BASE.cpio SCRIPT OUT [FILE...]" >&2
    exit 2
}
base=$1 script=$2 out=$3
shift 3
tree=$(mktemp -d)
trap 'rm -rf "$tree"' EXIT
(($# == 0)) || cp -L -- "$@" "$tree/"
install -m 755 "$script" "$tree/script"
# cpio pads an archive to 512 bytes; the kernel wants the next one to start at 4.
cat "$base" <(cd "$tree" && find . ! -name . | cpio --quiet -o -H newc -R 0:0) >"$out"
