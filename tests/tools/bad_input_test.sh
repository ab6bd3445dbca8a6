#!/usr/bin/env bash
# usage: bad_input_test.sh MINIVMM PAYLOADS: what `minivmm run` cannot use is refused in one line,
# with status 2, and leaves nothing behind.
set -uo pipefail
# shellcheck source=tests/tools/check.sh
. "$(dirname "$0")/check.sh"
minivmm=$1 payload=$2/hello.elf dirty=$2/dirty.elf
[[ -r /dev/kvm && -w /dev/kvm ]] || { echo "skipped: no usable /dev/kvm"; exit 77; }

export XDG_RUNTIME_DIR=$scratch/runtime TMPDIR=$scratch/tmp
mkdir "$XDG_RUNTIME_DIR" "$TMPDIR" "$scratch/files"
cd "$scratch/files" || exit 1

# refused NAME REGULAR-EXPRESSION OPTION...
refused() {
    local name=$1 expected=$2 output status
    shift 2
    output=$(timeout 60 "$minivmm" run "$@" 2>&1 </dev/null)
    status=$?
    same "$name: status" "$status" 2
    matches "$name: message" "$output" "^minivmm: [^"$'\n'"]*(${expected})[^"$'\n'"]*$"
    same "$name: left behind" "$(find "$XDG_RUNTIME_DIR" "$TMPDIR" ! -type d ! -name 'holder.*')" ""
}

# Kernels.
printf 'not a kernel, only some text\n' >text
: >empty
head -c 100 "$payload" >truncated.elf
head -c 3000 "$payload" >cut.elf
# e_machine (offset 18) of an ELF for aarch64
{ head -c 18 "$payload"; printf '\xb7\x00'; tail -c +21 "$payload"; } >arm.elf
refused "kernel missing" "nowhere" --kernel nowhere
refused "kernel is text" "text" --kernel text
refused "kernel is empty" "empty" --kernel empty
refused "kernel is a directory" "files" --kernel "$PWD"
refused "kernel ends in its header" "truncated.elf" --kernel truncated.elf
refused "kernel ends in a segment" "cut.elf" --kernel cut.elf
refused "kernel for another architecture" "arm.elf" --kernel arm.elf

# Other files.
truncate -s 32M large
refused "initrd missing" "nowhere" --kernel "$payload" --initrd nowhere
refused "initrd does not fit" "large" --kernel "$payload" --initrd large --memory 16M
refused "disk missing" "nowhere" --kernel "$payload" --disk nowhere
refused "disk is a directory" "files" --kernel "$payload" --disk "$PWD"
refused "tap missing" "nosuchtap0" --kernel "$payload" --net tap=nosuchtap0

# A running machine holds its disk and its name.
truncate -s 1M held.img
"$minivmm" run --kernel "$dirty" --cmdline 'size=1M rate=1' --disk held.img --name holder \
    --console none </dev/null &
holder=$!
until "$minivmm" ps --json | grep -q '"Running"'; do sleep 0.05; done
refused "disk of another machine" "held.img" --kernel "$payload" --disk held.img
refused "disk of another machine, read-only" "held.img" --kernel "$payload" --disk held.img,ro
refused "name of another machine" "holder runs already" --kernel "$payload" --name holder
"$minivmm" stop holder --force
wait "$holder"
same "stopped: status" $? 195
# Standard descriptors that are closed become nothing else: no message is written to a disk.
"$minivmm" run --kernel "$dirty" --cmdline 'size=1M rate=1' --disk held.img --name closed \
    --console none <&- >&- 2>&- &
holder=$!
until "$minivmm" ps --json | grep -q '"Running"'; do sleep 0.05; done
same "closed descriptors" "$(readlink /proc/$holder/fd/{0,1,2} | uniq)" /dev/null
"$minivmm" stop closed --force
wait "$holder"
same "closed descriptors: status" $? 195
# The process of its network does not outlive a machine that is killed.
"$minivmm" run --kernel "$dirty" --cmdline 'size=1M rate=1' --net user --name killed \
    --console none </dev/null &
holder=$!
until "$minivmm" ps --json | grep -q '"Running"'; do sleep 0.05; done
read -r stack </proc/$holder/task/$holder/children
same "network's process" "$(<"/proc/$stack/comm")" minivmm-slirp
kill -KILL "$holder"
wait "$holder" 2>/dev/null || true
for ((i = 0; i < 200; ++i)); do
    # Gone, or waited for by nobody.
    [[ $(sed 's/.*) \(.\).*/\1/' "/proc/$stack/stat" 2>/dev/null) == [RSD] ]] || break
    sleep 0.05
done
same "network's process after its machine" $((i < 200)) 1
"$minivmm" ps >/dev/null # removes what the machine left
same "closed output" "$("$minivmm" --version 2>&1 >&-)" "minivmm: standard output: Bad file descriptor"
same "stopped: left behind" "$(find "$XDG_RUNTIME_DIR" "$TMPDIR" ! -type d)" ""

# Sockets.
refused "vsock path in no directory" "nowhere" --kernel "$payload" --vsock cid=3,path=nowhere/s
: >file.sock
refused "api socket is a file" "file.sock" --kernel "$payload" --api-socket file.sock
refused "api socket in no directory" "nowhere" --kernel "$payload" --api-socket nowhere/s

# Memory.
refused "more memory than the host has" "--memory" --kernel "$payload" --memory 1T
refused "memory too small" "--memory" --kernel "$payload" --memory 1M

# Nobody may open /dev/kvm where it belongs to root alone.
if ((EUID == 0)) && command -v setpriv >/dev/null &&
    ! setpriv --reuid=65534 --clear-groups test -r /dev/kvm; then
    chmod 755 "$scratch"
    mkdir "$scratch/nobody" && chown 65534 "$scratch/nobody"
    output=$(XDG_RUNTIME_DIR=$scratch/nobody setpriv --reuid=65534 --clear-groups \
        "$minivmm" run --kernel "$payload" 2>&1 </dev/null)
    same "no permission: status" $? 2
    matches "no permission: message" "$output" "^minivmm: /dev/kvm: permission denied.*group kvm"
else
    echo "skipped: no user here who may not open /dev/kvm"
fi

finish
