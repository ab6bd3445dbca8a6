#!/usr/bin/env bash
# usage: clones_test.sh MINIVMM PAYLOADS: many machines from one snapshot. Each goes on with the
# snapshot's memory and writes its own; a clone's chain goes on beside the others'; ends are told.
set -uo pipefail
# shellcheck source=tests/tools/check.sh
. "$(dirname "$0")/check.sh"
minivmm=$1 dirty=$2/dirty.elf
[[ -r /dev/kvm && -w /dev/kvm ]] || { echo "skipped: no usable /dev/kvm"; exit 77; }
readonly clones=6

export XDG_RUNTIME_DIR=$scratch/runtime
mkdir "$XDG_RUNTIME_DIR"
cd "$scratch" || exit 1

# until_true COMMAND...: for a minute at most
until_true() {
    local end=$((SECONDS + 60))
    until "$@" >/dev/null 2>&1; do
        if ((SECONDS >= end)); then
            echo "FAIL never true: $*"
            jobs -p | xargs kill -9
            exit 1
        fi
        sleep 0.05
    done
}

# round_of FILE head|tail: the first or the last round that a machine told of
round_of() { sed -n 's/.*round=\([0-9]*\) .*/\1/p' "$1" | "$2" -1; }

# Every page is checked before it is written again: one that is another machine's, or an old one of
# its own, ends the guest with FAIL.
truncate -s 4M disk.img
"$minivmm" run --kernel "$dirty" --cmdline 'size=8M rate=4000 verify=1' --memory 64M \
    --disk disk.img --name origin --store store >origin.txt </dev/null &
origin=$!
until_true grep -q 'round=1 ' origin.txt
begin=$("$minivmm" snapshot origin --json | jq -r .id)
kill -9 "$origin"
wait "$origin" 2>/dev/null
rounds=$(round_of origin.txt tail)

"$minivmm" restore store --clones "$clones" --disk disk.img --name c --json \
    --console-file 'console-%.txt' >set.txt 2>set.err </dev/null &
set_pid=$!
started() { [[ $(jq -r 'select(.state == "started").name' set.txt | wc -l) = "$clones" ]]; }
until_true started
same "machines" "$("$minivmm" ps --json | jq -r '.[].name' | sort | xargs)" \
    "$(seq -f 'c-%.0f' "$clones" | xargs)"
# A machine tells of itself each second, in which it makes two rounds: the snapshot is a second old at
# most when the origin's last line is written, and so is a clone's first.
for i in $(seq "$clones"); do
    later() { (($(round_of "console-$i.txt" tail) > rounds + 4)); }
    until_true later
    first=$(round_of "console-$i.txt" head)
    same "clone $i goes on from round $rounds, not $first" "$((first >= 1 && first <= rounds + 4))" 1
done

# Two of them go on with chains of their own, the rest of the memory being the template's.
for name in c-2 c-5; do
    taken=$("$minivmm" snapshot "$name" --json)
    same "$name: kind" "$(jq -r .kind <<<"$taken")" incremental
done
full=$("$minivmm" snapshot c-5 --full --json)
same "c-5: full" "$(jq -r .kind <<<"$full")" full
same "a full one has the pages of the template too" \
    "$(($(jq -r .pages <<<"$full") >= 2048))" 1

# One is killed: the others do not notice, and it is told.
victim=$("$minivmm" ps --json | jq -r '.[] | select(.name == "c-3").pid')
kill -9 "$victim"
told() { jq -e 'select(.name == "c-3" and .state == "ended" and .status == 137)' set.txt; }
until_true told
for i in 1 2 4 5 6; do "$minivmm" stop "c-$i" --force >/dev/null; done
wait "$set_pid"
same "status of all" "$?" 137
same "ended" "$(jq -r 'select(.state == "ended").name' set.txt | sort | xargs)" \
    "$(seq -f 'c-%.0f' "$clones" | xargs)"
same "failures" "$(grep -l FAIL console-*.txt)" ""
same "store" "$("$minivmm" verify store --json | jq -r .good)" true

# The full one stands alone, and its memory is right: the guest checks all of it.
timeout 60 "$minivmm" restore "store@$(jq -r .id <<<"$full")" --disk disk.img --name again \
    >again.txt 2>&1 </dev/null &
again=$!
goes_on() { [[ $(grep -c 'round=' again.txt) -ge 4 ]]; }
until_true goes_on
"$minivmm" stop again --force >/dev/null
wait "$again"
same "again: failures" "$(grep -c FAIL again.txt)" 0

# Made ahead: none runs before it is asked for, and a request that comes early is kept. The end of the
# requests lets the others go.
mkfifo requests
"$minivmm" restore "store@$begin" --clones 4 --warm --disk disk.img --name w --json \
    --console-file 'warm-%.txt' >warm.txt 2>warm.err <requests &
warm_pid=$!
exec 3>requests
echo >&3
in_state() { [[ $(jq -r "select(.state == \"$1\").name" warm.txt | wc -l) = "$2" ]]; }
until_true in_state ready 4
until_true in_state started 1
first=$(jq -r 'select(.state == "started").name' warm.txt)
same "the others are known" \
    "$("$minivmm" ps --json | jq -r '.[] | .name + " " + .state' | sort | xargs)" \
    "$(for i in 1 2 3 4; do
        [[ w-$i = "$first" ]] && echo "w-$i Running" || echo "w-$i Not started"
    done | sort | xargs)"
runs() { (($(round_of "warm-${1#w-}.txt" tail) > rounds + 4)); }
until_true runs "$first"
for i in 1 2 3 4; do
    [[ w-$i = "$first" ]] || same "w-$i: output before its start" "$(cat "warm-$i.txt")" ""
done
echo >&3
until_true in_state started 2
second=$(jq -r 'select(.state == "started").name' warm.txt | tail -1)
until_true runs "$second"
# It waited while the first one ran, and goes on where the snapshot is nevertheless.
began=$(round_of "warm-${second#w-}.txt" head)
same "$second goes on from round $rounds, not $began" "$((began >= 1 && began <= rounds + 4))" 1
same "its chain goes on" "$("$minivmm" snapshot "$second" --json | jq -r .kind)" incremental
# One that is killed while it waits costs no request.
victim=$(jq -r 'select(.state == "ready").name' warm.txt | grep -vx -e "$first" -e "$second" | head -1)
kill -TERM "$("$minivmm" ps --json | jq -r ".[] | select(.name == \"$victim\").pid")"
until_true in_state ended 1
layers() { find store/layers store/heads -type f | wc -l; }
before=$(layers)
exec 3>&-
until_true in_state ended 2
same "let go: status" "$(jq -r 'select(.state == "ended").status' warm.txt | xargs)" "0 0"
# HEAD and lock, the layer and its log.
same "let go: nothing of it stays in the store" "$(layers)" $((before - 4))
for name in "$first" "$second"; do "$minivmm" stop "$name" --force >/dev/null; done
wait "$warm_pid"
same "failures of those made ahead" "$(grep -l FAIL warm-*.txt)" ""

# More requests than clones; a signal to all lets those go that wait.
"$minivmm" restore "store@$begin" --clones 1 --warm --disk disk.img --name m --json \
    >warm.txt 2>warm.err < <(printf '\n\n\n') &
more_pid=$!
until_true grep -q "no clone is left" warm.err
until_true in_state started 1
"$minivmm" stop m-1 --force >/dev/null
wait "$more_pid"
same "more than there are: status" "$?" 195
same "more than there are" "$(jq -r .state warm.txt | xargs)" "ready started ended"
"$minivmm" restore store --clones 2 --warm --disk disk.img --name s --json >warm.txt <requests &
warm_pid=$!
exec 3>requests
until_true in_state ready 2
kill -TERM "$warm_pid"
wait "$warm_pid"
same "a signal: status" "$?" 0
same "a signal" "$(jq -r .state warm.txt | sort | uniq -c | xargs)" "2 ended 2 ready"
exec 3>&-

# Whoever waits ends with the process that would start it.
"$minivmm" restore store --clones 2 --warm --disk disk.img --name k --json >warm.txt <requests &
warm_pid=$!
exec 3>requests
until_true in_state ready 2
kill -9 "$warm_pid"
wait "$warm_pid" 2>/dev/null
gone() { [[ $("$minivmm" ps --json) = "[]" ]]; }
until_true gone
exec 3>&-

# Nobody can ask a machine for anything before it is made: what it acknowledges, it does.
python3 -c 'import fcntl, time
lock = open("store/LOCK", "r+")
fcntl.lockf(lock, fcntl.LOCK_EX)
print("held", flush=True)
time.sleep(60)' >held.txt &
holder=$!
until_true grep -q held held.txt
"$minivmm" restore store --disk disk.img --name early --api-socket "$scratch/early" \
    >/dev/null </dev/null &
early=$!
until_true test -S early
same "not made yet" "$("$minivmm" ps --json | jq -r '.[].state')" "Not started"
matches "not made yet: pause" "$("$minivmm" pause early 2>&1)" "has not started yet.*refused"
kill "$holder"
wait "$holder" 2>/dev/null
until_true "$minivmm" pause early
same "paused" "$("$minivmm" ps --json | jq -r '.[].state')" "Paused"
matches "paused: its power button" "$("$minivmm" stop early 2>&1)" "minivmm resume early"
"$minivmm" stop early --force >/dev/null
wait "$early"

# Where not all can be made, nothing stays of those that were made ahead.
before=$(layers)
matches "not all" "$(ulimit -n 60
    "$minivmm" restore store --clones 60 --warm --disk disk.img --name l 2>&1 </dev/null)" \
    "Too many open files"
same "not all: nothing of them stays in the store" "$(layers)" "$before"

# A control socket that cannot be is met before anything is made.
before=$(layers)
matches "an impossible socket" "$("$minivmm" restore store --disk disk.img --name i \
    --api-socket "$scratch/no/such/s" 2>&1)" "no/such/s"
same "an impossible socket: nothing of it stays in the store" "$(layers)" "$before"

# What cannot be shared is refused.
matches "a socket for all" "$("$minivmm" restore store --clones 2 --disk disk.img \
    --api-socket "$scratch/s" 2>&1)" "--api-socket"
same "left behind" "$(find "$XDG_RUNTIME_DIR" ! -type d ! -name 'c-3.*' ! -name 'origin.*')" ""
finish
