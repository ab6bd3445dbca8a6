"""What keeps a thread from its processor, by the kernel's own events (tracefs, needs root).

  python3 bench/kept.py THREAD COMMAND [ARGUMENT...]    e.g. vcpu0 build/release/bench/stall …

Two things are told apart. Another thread ran where this one could have: the events say which. Or this
one was on its processor and nothing happened there, not even the timer's tick when it was due: the
processor itself did not run, because the host of this virtual machine had given it to somebody else
(a kernel that keeps interrupts off for as long would look the same)."""
import collections
import contextlib
import os
import re
import subprocess
import sys

TRACING = "/sys/kernel/tracing"
EVENTS = ("sched/sched_switch", "irq_vectors/local_timer_entry")
LEAST_MS = 0.5  # shorter ones are not told
HOST = "the host"
LINE = re.compile(r"\[(\d+)\]\s+\S+\s+(\d+\.\d+): (\w+): (.*)")
LOST = re.compile(r"entries-in-buffer/entries-written: (\d+)/(\d+)")
SWITCH = re.compile(r"prev_comm=(.*) prev_pid=\d+ prev_prio=\S+ prev_state=(\S+) ==> "
                    r"next_comm=(.*) next_pid=")


@contextlib.contextmanager
def traced(lines):
    """Adds to `lines` what the kernel says meanwhile; nothing where it may not be asked, or said more
    than it could keep."""
    instance = f"{TRACING}/instances/minivmm-{os.getpid()}"
    try:
        os.mkdir(instance)
    except OSError:
        yield
        return

    def put(name, value):
        with open(f"{instance}/{name}", "w", encoding="ascii") as file:
            file.write(value)
    try:
        put("trace_clock", "mono")
        put("buffer_size_kb", "65536")
        for event in EVENTS:
            put(f"events/{event}/enable", "1")
        yield
        put("tracing_on", "0")
        with open(f"{instance}/trace", encoding="utf-8", errors="replace") as file:
            lines.extend(file)
        written = next((LOST.search(line) for line in lines if LOST.search(line)), None)
        if written is None or written[1] != written[2]:
            lines.clear()
    finally:
        os.rmdir(instance)


def names_of(pid):
    """Of the threads that a process has just now."""
    names = set()
    with contextlib.suppress(OSError):  # it may end meanwhile
        for thread in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{thread}/comm", encoding="utf-8") as file:
                names.add(file.read().strip())
    return names


def parse(lines):
    """Of each CPU (time in ms, thread that it left or None for a tick, state, thread that it took)."""
    events = collections.defaultdict(list)
    for line in lines:
        found = LINE.search(line)
        if not found:
            continue
        cpu, time, kind, rest = found.groups()
        if kind == "local_timer_entry":
            events[cpu].append((float(time) * 1e3, None, None, None))
        elif switch := SWITCH.match(rest):
            events[cpu].append((float(time) * 1e3, *switch.groups()))
    return events


def by_the_host(thread, events):
    """(when, by how much) each tick was late that came while the thread was on its processor, in ms."""
    ticks = sorted(at for of_cpu in events.values() for at, left, _, _ in of_cpu if left is None)
    steps = sorted(b - a for a, b in zip(ticks, ticks[2:]) if b - a > 0.9)
    if not steps:
        return []
    # HZ is 100, 250, 300 or 1000: a tick follows the one before by its period more often than not.
    period = min((10, 4, 10 / 3, 1), key=lambda step: abs(step - steps[len(steps) // 2]))
    # They come at the same time on all processors, soonest where nothing is in their way.
    phases = sorted(at % period for at in ticks)
    phase = phases[len(phases) // 20]
    late = []
    for of_cpu in events.values():
        current, before = None, None
        for at, left, _, taken in of_cpu:
            if left is not None:
                current = taken
            elif current == thread and before is not None:
                # Not the one that has just come.
                after = before + period / 10
                due = after + (phase - after) % period
                late.append((due, at - due))
            before = at
    return late


def by_others(thread, events):
    """(when, for how long, who) others had the thread's processor while it was ready, in ms."""
    every = sorted((at, cpu, left, state, taken) for cpu, of_cpu in events.items()
                   for at, left, state, taken in of_cpu if left is not None)
    kept, since, where, had, last = [], None, None, {}, None
    for at, cpu, left, state, taken in every:
        if since is not None and cpu == where:
            had[last[0]] = had.get(last[0], 0) + at - last[1]
        if left == thread and state.startswith("R"):
            since, where, had = at, cpu, {}
        if taken == thread and since is not None:
            kept.append((since, at - since, max(had, key=had.get, default=thread)))
            since = None
        if since is not None and cpu == where:
            last = (taken, at)
    return kept


def kept_from(thread, lines):
    """(when, for how long, by whom) it was kept for long, in ms of the monotonic clock."""
    events = parse(lines)
    every = [(at, late, HOST) for at, late in by_the_host(thread, events)]
    return [kept for kept in every + by_others(thread, events) if kept[1] >= LEAST_MS]


def undisturbed(run):
    """Of a run of bench/stall (stalls.py): the gaps of the windows in which nobody kept the vCPU from
    its processor; of none where that is not known."""
    return [gap for gap, others in zip(run["with_ns"], run.get("kept", ())) if not others]


def in_windows(run):
    """Of the same: who kept it, in all of its windows, in words."""
    return sentence([of for others in run["kept"] for of in others])


def sentence(kept):
    if not kept:
        return f"kept from its processor for {LEAST_MS} ms and more by nobody"
    by = collections.defaultdict(list)
    for _, took, who in kept:
        by[who].append(took)
    return f"kept from its processor for {LEAST_MS} ms and more " + ", ".join(
        f"by {who} {len(took)} times ({max(took):.1f} ms at most)"
        for who, took in sorted(by.items(), key=lambda of: -len(of[1])))


def main():
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    lines = []
    with traced(lines):
        status = subprocess.run(sys.argv[2:], check=False).returncode
    if not lines:
        sys.exit(f"{TRACING} cannot be used: mount it, as root. Or more happened than it keeps: a "
                 "shorter command")
    print(f"{sys.argv[1]}: {sentence(kept_from(sys.argv[1], lines))}")
    sys.exit(status)


if __name__ == "__main__":
    main()
