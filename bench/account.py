#!/usr/bin/env python3
"""Where the processor time of starting a restored machine goes, by what the kernel and the program
were doing when `perf` looked (5,000 times a second): for the targets that docs/performance.md says
are missed. Until the guest runs: machines are paused, and what brings memory in is not counted.
Medians of several runs: on a machine that is shared, time that others take is in it.

    bench/account.py [--clones] [--count N] [--runs N] [--build DIR]

Needs perf (Debian: linux-perf) and permission to use it (root, or kernel.perf_event_paranoid=-1).
"""
import argparse
import collections
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time

HZ = 5_000
OURS = ("minivmm", "vcpu")  # threads by name; the pager's begin when the guest runs
THREADS = ("clone3", "set_robust_list", "rseq", "mprotect", "prctl")
FILES = ("openat", "openat2", "open", "close", "newfstatat", "fstat", "mkdirat", "unlinkat", "fcntl",
         "pread64", "pwrite64", "read", "write", "ftruncate", "fallocate", "flock", "statx",
         "getdents64", "renameat2", "linkat", "fsync", "fdatasync", "socket", "bind", "listen",
         "connect", "fchmod", "memfd_create", "lseek")


def kind_of(frames):
    """Of one sample: frames are (symbol, object), the innermost first."""
    symbols = [symbol for symbol, _ in frames]
    calls = [s.split("sys_", 1)[1] for s in symbols
             if s.startswith(("__x64_sys_", "__do_sys_", "__se_sys_"))]
    call = calls[0] if calls else None
    if any(s in ("do_exit", "do_group_exit") for s in symbols):
        return None
    if call == "ioctl" and any("kvm" in s for s in symbols):
        return "KVM's calls"
    if call in ("execve", "clone", "vfork") or "ret_from_fork_asm" in symbols:
        return "exec and fork, by the kernel"
    if any("page_fault" in s for s in symbols):
        return "page faults: memory and program text touched first"
    if call in THREADS:
        return "threads"
    if call in FILES:
        return "files, locks, sockets"
    if call:
        return "other system calls"
    leaf = frames[0][1]
    if "ld-linux" in leaf:
        return "the dynamic linker (half of it CPUID)"
    if "kernel" in leaf:
        return "the kernel, between user and kernel mode"
    return "the C library" if "libc" in leaf else "the program itself"


def samples(text):
    """(thread's name, frames) of each sample of `perf script -F comm,ip,sym,dso`."""
    name, frames = None, []
    for line in text.splitlines():
        if not line.strip():
            if name is not None and frames:
                yield name, frames
            name, frames = None, []
        elif not line[0].isspace():
            name = line.strip()
        elif name is None:
            name = line.strip()
        else:
            _, _, rest = line.strip().partition(" ")
            symbol, _, where = rest.rpartition(" (")
            frames.append((symbol.strip(), where.rstrip(")")))
    if name is not None and frames:
        yield name, frames


def answers(socket_path):
    """Does the machine say how it is?"""
    with socket.socket(socket.AF_UNIX) as client:
        try:
            client.connect(socket_path)
            client.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            return client.recv(1) != b""
        except OSError:
            return False


def start(command, wait_for, count):
    """Runs it until so many machines have said that they are started, and kills them."""
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                               stderr=subprocess.DEVNULL)
    pids = set()
    if wait_for is None:
        socket_path = f"{os.environ['XDG_RUNTIME_DIR']}/minivmm/{command[-2]}.sock"
        while process.poll() is None and not answers(socket_path):
            time.sleep(0.002)
        if process.poll() is not None:
            sys.exit("account.py: minivmm restore ended")
        pids.add(process.pid)
    while wait_for and len(pids) < count:
        line = json.loads(process.stdout.readline())
        if line["state"] == wait_for:
            pids.add(line["pid"])
    for pid in pids:
        os.kill(pid, 9)
    process.kill()
    process.wait()


def work(arguments, directory):
    minivmm, store = f"{arguments.build}/minivmm", f"{directory}/store"
    restore = [minivmm, "restore", store, "--paused", "--name"]
    if arguments.clones:
        start(restore + ["clone", "--clones", str(arguments.count), "--json", "--console-file",
                         "/dev/null"], "started", arguments.count)
    else:
        for number in range(arguments.count):
            start(restore + [f"restored-{number}", "--lazy"], None, 1)


def measure(directory, count):
    """Microseconds by kind, of each restore."""
    data = f"{directory}/perf"
    subprocess.run(["perf", "record", "-q", "-e", "cpu-clock", "-F", str(HZ), "-g", "-o", data,
                    sys.executable, __file__, "--inside", directory, *sys.argv[1:]],
                   check=True, stdout=subprocess.DEVNULL)
    text = subprocess.run(["perf", "script", "-i", data, "-F", "comm,ip,sym,dso"], check=True,
                          capture_output=True, text=True).stdout
    found = collections.Counter()
    for name, frames in samples(text):
        if name.startswith(OURS) and (kind := kind_of(frames)):
            found[kind] += 1e6 / HZ / count
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clones", action="store_true", help="of clones; else of lazy restores")
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--build", default="build/release")
    parser.add_argument("--inside", help=argparse.SUPPRESS)  # what perf runs
    arguments = parser.parse_args()
    if arguments.inside:
        return work(arguments, arguments.inside)
    if not shutil.which("perf"):
        sys.exit("account.py: perf is missing: apt-get install linux-perf")

    temporary = lambda parent: tempfile.TemporaryDirectory(dir=parent, prefix="minivmm-account-")
    # Names and sockets of machines are in memory, as /run usually is.
    with temporary("/var/tmp") as directory, temporary("/dev/shm") as names:
        os.environ["XDG_RUNTIME_DIR"] = names
        with open(f"{directory}/out", "wb") as out:
            machine = subprocess.Popen(
                [f"{arguments.build}/minivmm", "run", "--kernel",
                 f"{arguments.build}/payloads/jitter.elf", "--cmdline", "size=1M rate=1000",
                 "--memory", "2G", "--name", "origin", "--store", f"{directory}/store"],
                stdin=subprocess.DEVNULL, stdout=out)
        while b"filled" not in open(f"{directory}/out", "rb").read():
            time.sleep(0.05)
            if machine.poll() is not None:
                sys.exit("account.py: minivmm run ended")
        subprocess.run([f"{arguments.build}/minivmm", "snapshot", "origin", "--stop"], check=True,
                       stdout=subprocess.DEVNULL)
        machine.wait()
        runs = [measure(directory, arguments.count) for _ in range(arguments.runs)]

    middle = lambda values: statistics.median(values)
    kinds = {kind: middle(run[kind] for run in runs) for run in runs for kind in run}
    for kind, us in sorted(kinds.items(), key=lambda item: -item[1]):
        print(f"{us:6.0f} us  {kind}")
    totals = sorted(sum(run.values()) for run in runs)
    print(f"{middle(totals):6.0f} us  in all, of each {'clone' if arguments.clones else 'restore'}"
          f" ({totals[0]:.0f} to {totals[-1]:.0f})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
