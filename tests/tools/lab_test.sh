#!/usr/bin/env bash
# tools/lab.sh: what the command sees inside, what comes back, and that nothing stays.
# shellcheck disable=SC2016,SC1003 # what looks like quoting mistakes is there to find them
set -uo pipefail
export TMPDIR=/tmp # where the lab takes writes
# shellcheck source=tests/tools/check.sh
. "$(dirname "${BASH_SOURCE[0]}")/check.sh"
lab=$repository/tools/lab.sh
"$lab" --prepare || exit 1

# One start for all that can be seen inside. Directory, arguments and scratch have names that
# quoting mistakes would break.
mkdir -p "$scratch/work dir/with 'quotes' and %, \$" "$scratch/tmp dir"
cd "$scratch/work dir/with 'quotes' and %, \$" || exit 1
echo "from the host" >here
cat >inside.sh <<'INSIDE'
echo "directory=$PWD"
echo "file=$(cat here)"
printf 'argument=%s\n' "$@"
echo "lab=$MINIVMM_LAB home=$HOME given=$GIVEN taken=$TAKEN leaked=${LEAKED:-}"
echo "root=$( (touch /minivmm-lab-test) 2>&1 | grep -o 'Read-only file system')"
echo "cwd=$( (touch elsewhere) 2>&1)"
echo "tmp=$(echo written >/tmp/written && cat /tmp/written)"
echo "shm=$(echo shared >/dev/shm/x && cat /dev/shm/x)"
echo "processors=$(nproc)"
echo "stdin=$(cat | wc -c)"
echo "loopback=$(cat /sys/class/net/lo/operstate)"
echo "npt=$(cat /sys/module/kvm_amd/parameters/npt) tun=$(ls -l /dev/net/tun | cut -c1)"
echo "kvm=$(echo quit | qemu-system-x86_64 -accel kvm -machine none -nodefaults -display none \
    -monitor stdio >/dev/null && echo usable)"
echo "result" >"$OUT/result"
echo "to stderr" >&2
exit 7
INSIDE
mkdir "$scratch/out"
LEAKED=yes TAKEN='a b' OUT=$scratch/out TMPDIR="$scratch/tmp dir" "$lab" --cpus 2 --memory 1G \
    --env 'GIVEN=x "y" $z' --env TAKEN --env OUT --out "$scratch/out" \
    bash inside.sh 'two words' "it's" '"$HOME" \\' '' >"$scratch/stdout" 2>"$scratch/stderr"
same "exit status 7" "$?" 7
output=$(<"$scratch/stdout")
line() { sed -n "s/^$1=//p" <<<"$output"; }
same "directory" "$(line directory)" "$PWD"
same "host's file" "$(line file)" "from the host"
same "arguments" "$(line argument)" "$(printf '%s\n' 'two words' "it's" '"$HOME" \\' '')"
same "environment" "$(line lab)" "1 home=$HOME given=x \"y\" \$z taken=a b leaked="
same "the host is read-only" "$(line root)" "Read-only file system"
same "a directory under /tmp takes writes" "$(line cwd)" ""
same "and they stay inside" "$(ls)" $'here\ninside.sh'
same "/tmp" "$(line tmp)" "written"
same "/dev/shm" "$(line shm)" "shared"
same "stdin is empty" "$(line stdin)" "0"
same "processors" "$(line processors)" "2"
same "loopback is up" "$(line loopback)" "unknown"
same "nested paging and tun" "$(line npt)" "Y tun=c"
same "/dev/kvm" "$(line kvm)" "usable"
same "stderr apart" "$(<"$scratch/stderr")" "to stderr"
same "result handed back" "$(cat "$scratch/out/result")" "result"
same "nothing left" "$(ls -A "$scratch/tmp dir")" ""

output=$("$lab" --no-npt sh -c 'cat /sys/module/kvm_amd/parameters/npt; seq 20000 | tail -n 1')
same "exit status 0" "$?" 0
same "without nested paging" "$output" $'N\n20000'

"$lab" no-such-command 2>"$scratch/stderr"
same "command not found" "$?" 127
matches "and says so" "$(<"$scratch/stderr")" "no-such-command: not found|no-such-command: command not found"

"$lab" --timeout 1 sleep 1000 2>"$scratch/stderr"
same "timeout" "$?" 124
same "timeout is explained" "$(<"$scratch/stderr")" "lab: ended after 1 s (--timeout)"

# A QEMU that ends at once, and one that is too old.
printf '#!/bin/sh\n[ "$1" = --version ] && echo "QEMU emulator version $V" || echo broken >&2\n' \
    >"$scratch/qemu"
chmod +x "$scratch/qemu"
V=11.0.0 MINIVMM_LAB_QEMU=$scratch/qemu "$lab" true 2>"$scratch/stderr"
same "QEMU does not start" "$?" 125
matches "its message is shown" "$(<"$scratch/stderr")" "broken"
V=7.2.0 MINIVMM_LAB_QEMU=$scratch/qemu "$lab" true 2>"$scratch/stderr"
same "QEMU too old" "$?" 125
matches "and says which is needed" "$(<"$scratch/stderr")" "version 7.*QEMU 10 or newer is needed"

# A machine that dies under the command: started anew only where that was asked for.
cat >"$scratch/dies-once" <<'INSIDE'
[ -e "$OUT/died" ] && exit 3
: >"$OUT/died" && sync
echo b >/proc/sysrq-trigger
sleep 1000
INSIDE
export OUT=$scratch/out
"$lab" --env OUT --out "$OUT" --again 1 bash "$scratch/dies-once" 2>"$scratch/stderr"
same "the second machine's status" "$?" 3
matches "the first one's death is not hidden" "$(<"$scratch/stderr")" "THE MACHINE DIED .*starting anew, 2 of 2"
rm "$OUT/died"
"$lab" --env OUT --out "$OUT" bash "$scratch/dies-once" 2>"$scratch/stderr"
same "a machine that dies" "$?" 125

# However lab.sh ends, QEMU ends. Its arguments name the scratch directory.
machine_in() { grep -la "path=$1[/]status" /proc/[0-9]*/cmdline 2>/dev/null; }
for signal in INT TERM KILL; do
    mkdir "$scratch/$signal"
    # A shell's background jobs ignore SIGINT; env restores it.
    TMPDIR=$scratch/$signal env --default-signal=INT "$lab" sleep 1000 &
    pid=$!
    until [[ -n $(machine_in "$scratch/$signal/minivmm-lab.*") ]]; do sleep 0.1; done
    kill -s "$signal" "$pid"
    wait "$pid" 2>/dev/null
    same "status after SIG$signal" "$?" "$((128 + $(kill -l "$signal")))"
    for ((i = 0; i < 100; i++)); do
        [[ -n $(machine_in "$scratch/$signal/minivmm-lab.*") ]] || break
        sleep 0.1
    done
    same "no QEMU after SIG$signal" "$(machine_in "$scratch/$signal/minivmm-lab.*")" ""
    if [[ $signal != KILL ]]; then
        same "no files after SIG$signal" "$(ls -A "$scratch/$signal")" ""
    fi
done
# Killed before QEMU opened anything: who reads the lab's output is not left waiting.
printf '#!/bin/sh\n[ "$1" = --version ] && echo "QEMU emulator version 11.0.0" || exec sleep 1000\n' \
    >"$scratch/qemu"
mkfifo "$scratch/output"
TMPDIR=$scratch/KILL MINIVMM_LAB_QEMU=$scratch/qemu "$lab" true >"$scratch/output" 2>&1 &
pid=$!
exec {output_fd}<"$scratch/output"
until [[ -n $(machine_in "$scratch/KILL/minivmm-lab.*") ]]; do sleep 0.1; done
kill -KILL "$pid"
wait "$pid" 2>/dev/null
timeout 60 cat <&"$output_fd" >"$scratch/stdout"
same "its output ends" "$?" 0
TMPDIR=$scratch/KILL "$lab" true
same "files after SIGKILL are cleared by the next" "$(ls -A "$scratch/KILL")" ""
finish
