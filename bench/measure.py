"""bench/run.sh: what it measures, row by row. Figures of a run belong together; the machine they
were measured on is printed with them."""

import argparse
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

import plot
from floors import Floors
from qemu import Qemu, now_ns, qemu_command, wait_for
from restored import Restored
from stalls import Stalls
from table import Table, host, spread

MIB = 1 << 20


class Bench(Floors, Stalls, Restored):
    def __init__(self, options, work):
        self.quick, self.work = options.quick, work
        self.build = os.path.abspath(options.build)
        self.built = f"{self.build}/minivmm"
        self.minivmm = self.installed(self.built)
        self.timed = self.copies(f"{self.build}/bench/minivmm_timed")
        self.launch = self.installed(f"{self.build}/bench/launch")
        self.payload = f"{self.build}/payloads/jitter.elf"
        self.table, self.data = Table(), {}
        self.memory = options.memory or (512 if self.quick else 2048)
        self.names = 0
        self.failed = False

    def installed(self, program, number=0):
        """A copy, as an installation makes one: what a linker writes is in the page cache in small
        pieces, and is mapped in small pieces."""
        copy = f"{self.work}/bin/{number}/{os.path.basename(program)}"
        if not os.path.exists(copy):
            os.makedirs(os.path.dirname(copy), exist_ok=True)
            subprocess.run(["install", program, copy], check=True)
        return copy

    def copies(self, program):
        """Some of them, to be run in turn: where the pages of one lie is worth 0.1 ms of a start.
        As many as do not divide the number of rows, so that each row has all of them."""
        return [self.installed(program, number) for number in range(5)]

    def chain(self, store, snapshots, size_mib, rate=10000, memory=None):
        """A store that `minivmm restore` takes."""
        self.names += 1
        name = f"bench{os.getpid()}-{self.names}"
        guest = subprocess.Popen(
            [self.minivmm, "run", "--kernel", self.payload, "--memory", f"{memory or self.memory}M",
             "--cmdline", f"size={size_mib}M rate={rate} poll=2", "--name", name,
             "--store", store], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        try:
            while b"jitter: filled" not in guest.stdout.readline():
                if guest.poll() is not None:
                    raise RuntimeError("minivmm run ended")
            for _ in range(snapshots):
                subprocess.run([self.minivmm, "snapshot", name], check=True,
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        finally:
            guest.kill()
            guest.wait()

    def fio(self, direction, size_mib, path=None):
        """MB/s of 1 MiB requests past the page cache; writes are durable at the end. A file that
        is given is read, and never written."""
        name = path or f"{self.work}/fio"
        command = ["fio", "--name=j", f"--filename={name}", f"--rw={direction}", "--bs=1M",
                   "--iodepth=16", "--ioengine=io_uring", "--direct=1", f"--size={size_mib}M",
                   "--end_fsync=1", "--output-format=json", "--readonly" if path else "--overwrite=0"]
        out = subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout
        job = json.loads(out)["jobs"][0][direction]
        return job["io_bytes"] / (job["runtime"] * 1e-3) / 1e6

    # --- the disk ---

    def full_snapshots(self):
        size = self.memory // 2
        runs = 3 if self.quick else 7
        ours, theirs = [], []
        for _ in range(runs):
            run = self.stall(f"{self.work}/full", memory=self.memory, size=size, rate=1, count=0,
                             fulls=1)
            ours.append(run["full_bytes"][0] / run["full_total_ns"][0] * 1e3)
            theirs.append(self.fio("write", size))
            os.unlink(f"{self.work}/fio")
        shutil.rmtree(f"{self.work}/full")
        self.table.add("full snapshot, bytes per second, to fio",
                       statistics.median(a / b for a, b in zip(ours, theirs)), "", (">=", 0.9),
                       "fio write, MB/s", statistics.median(theirs),
                       spread(ours) + " MB/s")

    def verify_and_eager(self):
        store = f"{self.work}/read"
        self.chain(store, 1, self.memory // 2)
        snapshot = self.ids(store)[-1]
        packs = [f"{store}/packs/{name}" for name in os.listdir(f"{store}/packs")]
        size = sum(os.stat(path).st_size for path in packs)
        pack = max(packs, key=os.path.getsize)
        verify, eager, theirs = [], [], []
        for _ in range(3 if self.quick else 7):
            self.forget(store)
            theirs.append(self.fio("read", os.path.getsize(pack) // MIB, pack))
            start = now_ns()
            subprocess.run([self.minivmm, "verify", store], check=True, stdout=subprocess.DEVNULL,
                           stderr=subprocess.DEVNULL)
            verify.append(size / (now_ns() - start) * 1e3)
            self.forget(store)
            total = self.restore(store, snapshot, "--eager")[0]
            eager.append(size / total * 1e3)
        for name, ours in (("verify", verify), ("restore, eager, until the guest runs", eager)):
            self.table.add(f"{name}, bytes per second, to fio",
                           statistics.median(a / b for a, b in zip(ours, theirs)), "",
                           (">=", 0.9), "fio read, MB/s", statistics.median(theirs),
                           spread(ours) + " MB/s")

    def largest_run(self, store, what):
        """Of the store's index: what one merge wrote at most."""
        runs = [os.path.getsize(f"{store}/runs/{name}") for name in os.listdir(f"{store}/runs")]
        self.table.add(f"largest index run to RAM, {what}", max(runs) / (self.memory * MIB), "",
                       ("<=", 0.004), spread=f"{len(runs)} runs, {sum(runs)} bytes")

    # --- restore ---

    def ids(self, store):
        out = subprocess.run([self.minivmm, "list", store, "--json"], stdout=subprocess.PIPE,
                             check=True).stdout
        listed = json.loads(out)
        return [entry["id"] for entry in (listed if isinstance(listed, list)
                                          else listed["snapshots"])]

    @staticmethod
    def forget(store):
        """Nothing of the store stays in the page cache."""
        for directory, _, names in os.walk(store):
            for name in names:
                fd = os.open(f"{directory}/{name}", os.O_RDONLY)
                os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
                os.close(fd)

    def times_env(self):
        path = f"{self.work}/times"
        if os.path.exists(path):
            os.unlink(path)
        return path, {"KVM_TIMES": path}

    @staticmethod
    def told(path):
        """What kvm_times.cc tells, when it does."""
        time.sleep(0.02)  # who looks takes processor time of what he looks for
        line = wait_for(lambda: os.path.exists(path) and open(path).read().endswith("\n") and
                        open(path).read(), "the first KVM_RUN", every_s=0.01)
        return [int(word) for word in line.split()]

    def entered(self, program, arguments, more_env=None):
        """Runs a program with kvm_times.cc in it until its guest runs: nanoseconds from exec until
        then, those in KVM's calls, the process's CPU time by then, and that in KVM's calls."""
        path, env = self.times_env()
        quiet = [(os.POSIX_SPAWN_OPEN, fd, "/dev/null", os.O_RDWR, 0) for fd in (0, 1)]
        launch = os.posix_spawn(self.launch, [self.launch, program, *arguments],
                                {**os.environ, **env, **(more_env or {})}, file_actions=quiet)
        try:
            at, in_kvm, cpu, cpu_in_kvm, exec_at, pid = self.told(path)
            os.kill(pid, 9)
            return at - exec_at, in_kvm, cpu, cpu_in_kvm
        except BaseException:
            os.kill(launch, 9)
            raise
        finally:
            os.waitpid(launch, 0)

    def restore(self, store, snapshot, how):
        self.names += 1
        program = self.timed[self.names % len(self.timed)]
        return self.entered(program, ["restore", f"{store}@{snapshot}", how, "--name",
                                      f"bench{os.getpid()}-{self.names}"])

    def record(self, store, snapshot):
        """Lets a restored guest run until its working set is recorded."""
        self.names += 1
        process = subprocess.Popen(
            [self.minivmm, "restore", f"{store}@{snapshot}", "--lazy", "--name",
             f"bench{os.getpid()}-{self.names}"], stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL)
        try:
            wait_for(lambda: os.path.exists(f"{store}/ws/{snapshot}"), "a working set",
                     every_s=0.1)
        finally:
            process.kill()
            process.wait()

    def restores(self):
        lengths = (1, 100) if self.quick else (1, 10, 100, 1000)
        sizes = {self.memory: lengths, 4 * self.memory: (lengths[0], lengths[-1])}
        runs = 5 if self.quick else 31
        chains = [(memory, length) for memory in sizes for length in sizes[memory]]
        stores = {chain: f"{self.work}/chain{chain[0]}-{chain[1]}" for chain in chains}
        for memory, length in chains:
            self.chain(stores[memory, length], length, 64, memory=memory)
        known = (self.memory, "1, working set known")
        stores[known] = f"{self.work}/with-known-set"
        shutil.copytree(stores[self.memory, 1], stores[known])
        self.record(stores[known], self.ids(stores[known])[-1])
        chains.append(known)
        times = {(chain, cache): [] for chain in chains for cache in ("warm", "cold")}
        newest = {chain: self.ids(stores[chain])[-1] for chain in chains}
        bare, programs = [], self.copies(f"{self.build}/bench/bare_restore")
        for _ in range(runs):
            for chain, cache in times:
                if cache == "cold":
                    self.forget(stores[chain])
                times[chain, cache].append(self.restore(stores[chain], newest[chain], "--lazy"))
            bare.append(self.bare_restore(programs[len(bare) % len(programs)]))
        theirs = self.qemu_restores(runs)
        bare_total, bare_own = (statistics.median(values) for values in zip(*bare))
        for ((memory, length), cache), measured in times.items():
            own = [(total - kvm) / 1e6 for total, kvm, _, _ in measured]
            cpu = [(cpu - kvm) / 1e6 for _, _, cpu, kvm in measured]
            total = [total / 1e6 for total, *_ in measured]
            kvm = statistics.median(kvm for _, kvm, _, _ in measured) / 1e6
            name = f"restore, lazy, {memory >> 10 or 0.5:g} GiB, chain of {length}, {cache}"
            self.table.add(f"{name}: own part", statistics.median(own), "ms", ("<=", 1),
                           "of a program that makes KVM's calls only", bare_own,
                           spread(own),
                           self.why_restore(statistics.median(own), bare_own, cache))
            self.table.add("  CPU time besides KVM's calls", statistics.median(cpu), "ms",
                           spread=spread(cpu))
            self.table.add("  until the guest runs", statistics.median(total), "ms", None,
                           "QEMU -incoming", statistics.median(theirs),
                           f"in KVM {kvm:.4g} ms; " + spread(total))
            if memory == self.memory:
                self.table.add("  the same, to a program that makes KVM's calls only",
                               statistics.median(total) / bare_total, "", None,
                               "which takes, in ms", bare_total)

        def median(memory, length, cache):
            return statistics.median(total for total, *_ in times[(memory, length), cache]) / 1e6

        for memory in sizes:
            for cache in ("warm", "cold"):
                long, short = median(memory, lengths[-1], cache), median(memory, 1, cache)
                self.table.add(
                    f"restore, {memory >> 10 or 0.5:g} GiB, chain of {lengths[-1]} to 1, {cache}",
                    long / short, "", ("<=", 1.2),
                    why=f"{long - short:.2g} ms more; a read of the disk takes "
                    f"{self.floor['disk_us']:.0f} us")
        self.data["restore"] = {
            f"{memory >> 10 or 0.5:g} GiB, page cache {cache}":
                [[length, median(memory, length, cache)] for length in sizes[memory]]
            for memory in sizes for cache in ("warm", "cold")}

    def qemu_restores(self, runs):
        """Milliseconds from exec until the guest runs, its file in the page cache."""
        append, save = "size=64M rate=10000 poll=2", f"{self.work}/qemu.save"
        with Qemu(self.work, self.payload, append, self.memory) as guest:
            guest.wait_output("jitter: filled")
            guest.save(save, True)  # of a running guest: one that was stopped stays so
        preload = {"LD_PRELOAD": f"{self.build}/bench/libkvm_times.so"}
        times = []
        for _ in range(runs):
            program, *arguments = qemu_command(self.work, self.payload, append, self.memory, save)
            times.append(self.entered(program, arguments, preload)[0] / 1e6)
        return times

    # --- dirty tracking ---

    def dirty_tracking(self):
        runs = "3" if self.quick else "9"
        lines = subprocess.run(
            [f"{self.build}/bench/first_write", f"{self.build}/payloads", "--json", "--runs", runs],
            stdout=subprocess.PIPE, check=True).stdout.splitlines()
        ours, bare, *ring = (json.loads(line) for line in lines)
        self.table.add("dirty tracking, first write after a clear, to bare KVM's",
                       ours["first_write_ns"] / bare["first_write_ns"], "", ("<=", 1.1),
                       "bare KVM, ns", bare["first_write_ns"],
                       f"{ours['least']:.0f} to {ours['most']:.0f} ns, n={runs}")
        self.table.add("work of a guest that writes 10,000 pages/s, to untracked", ours["work"], "",
                       (">=", 0.95), "bare KVM", bare["work"])
        for figures in ring:
            self.table.add("dirty ring (bare KVM), first write after a clear, to its bitmap's",
                           figures["first_write_ns"] / bare["first_write_ns"], "",
                           spread=f"{figures['least']:.0f} to {figures['most']:.0f} ns")
            self.table.add("  work at 10,000 pages/s, to untracked", figures["work"], "")
            self.table.add("  clear of 1,000 pages", figures["clear_us"], "us", None,
                           "bitmap of 0.3 GiB, us", bare["clear_us"])

    # --- cold boot ---

    def boot(self):
        tools = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "tools")
        out = subprocess.run(
            [f"{tools}/with-kvm.sh", self.built, "--", f"{tools}/../bench/boot.sh", self.built,
             "3" if self.quick else "5"], stdout=subprocess.PIPE, check=True, text=True).stdout
        times = {"minivmm": [], "QEMU microvm": []}
        for line in out.splitlines():
            for name, values in times.items():
                values += [int(found) for found in re.findall(rf"{name} (\d+) ms", line)
                           if line.startswith("run ")]
        ours, theirs = (statistics.median(values) for values in times.values())
        self.table.add("cold boot to init, to QEMU microvm", ours / theirs, "", ("<=", 0.6),
                       "QEMU microvm, ms", theirs, spread(times["minivmm"]) + " ms")

    # --- the program ---

    def program(self):
        times = []
        for _ in range(51):
            start = now_ns()
            subprocess.run([self.minivmm, "--version"], stdout=subprocess.DEVNULL, check=True)
            times.append((now_ns() - start) / 1e6)
        self.table.add("minivmm --version, fork and exec included", statistics.median(times), "ms",
                       ("<=", 2), spread=spread(times))
        process = subprocess.Popen(
            [self.minivmm, "run", "--kernel", f"{self.build}/payloads/dirty.elf", "--memory", "128M",
             "--cmdline", "size=32M rate=10000", "--console", "none",
             "--name", f"bench{os.getpid()}"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        time.sleep(3)
        size = resident = 0
        for line in open(f"/proc/{process.pid}/smaps"):
            key, _, value = line.partition(":")
            if key == "Size":
                size = int(value.split()[0])
            elif key == "Rss" and size != 128 * 1024:  # that one is guest RAM
                resident += int(value.split()[0])
        process.kill()
        process.wait()
        self.table.add("memory besides guest RAM, 1 vCPU, 128 MiB", resident / 1024, "MiB",
                       ("<=", 5))

    PARTS = ("program", "stalls", "sizes", "full_snapshots", "verify_and_eager", "restores",
             "working_set", "clones", "dirty_tracking", "boot")

    def run(self, parts):
        self.measure_floors()
        for part in parts:
            try:
                getattr(self, part)()
            except (subprocess.CalledProcessError, RuntimeError, OSError) as error:
                self.table.missing(part, str(error))
                self.failed = True


def main():
    parser = argparse.ArgumentParser(prog="bench/run.sh")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json")
    parser.add_argument("--svg")
    parser.add_argument("--memory", type=int)
    parser.add_argument("--only", nargs="+", choices=Bench.PARTS, default=Bench.PARTS)
    parser.add_argument("--build", default="build/release")
    parser.add_argument("--work", default="/var/tmp")
    options = parser.parse_args()
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        sys.exit("run.sh: /dev/kvm cannot be used: minivmm doctor says more")
    work = tempfile.mkdtemp(prefix="minivmm-bench-", dir=options.work)
    # Names and sockets of machines are in memory, as /run is where systemd mounts it.
    names = tempfile.mkdtemp(prefix="minivmm-bench-", dir="/dev/shm")
    os.environ["XDG_RUNTIME_DIR"] = names
    try:
        print(f"before: {host()}", flush=True)
        bench = Bench(options, work)
        bench.run(options.only)
        print(f"after: {host()}")
        missed = bench.table.missed()
        print(f"{len(missed)} targets missed" + "".join(f"\n  {line}" for line in missed))
        if options.json:
            with open(options.json, "w") as file:
                json.dump(bench.table.rows, file, indent=1)
        if options.svg:
            plot.write_all(bench.data, options.svg)
        return 1 if bench.failed else 0
    finally:
        shutil.rmtree(work)
        shutil.rmtree(names)


if __name__ == "__main__":
    sys.exit(main())
