"""What bench/run.sh measures of machines that were restored: how they get their working set back, and
what many clones of one take."""
import json
import os
import statistics
import subprocess
import time

from qemu import now_ns, wait_for
from table import spread

MIB = 1 << 20


class Restored:
    """Part of Bench (measure.py), which has what is used here."""

    # --- the working set ---

    def touch(self, store, snapshot, how, stay_s=0):
        """Milliseconds, by the guest's clock, in which it reads its working set once."""
        self.names += 1
        process = subprocess.Popen(
            [self.minivmm, "restore", f"{store}@{snapshot}", how, "--name",
             f"bench{os.getpid()}-{self.names}"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        try:
            process.stdin.write(b"t")
            process.stdin.flush()
            while line := process.stdout.readline():
                if b"touched" in line:
                    time.sleep(stay_s)
                    return int(line.split(b"ns=")[1].split()[0]) / 1e6
            raise RuntimeError("minivmm restore ended")
        finally:
            process.kill()
            process.wait()

    def working_set(self):
        store, size = f"{self.work}/touched", 256
        self.chain(store, 1, size, rate=1)
        snapshot = self.ids(store)[-1]
        known = f"{store}/ws/{snapshot}"
        runs = 3 if self.quick else 9
        times = {key: [] for key in ("there", "plain warm", "known warm", "plain cold", "known cold")}
        self.touch(store, snapshot, "--lazy", stay_s=1)  # which records it
        if not os.path.exists(known):
            raise RuntimeError("no working set was recorded")
        for _ in range(runs):
            times["there"].append(self.touch(store, snapshot, "--eager"))
            for cache in ("warm", "cold"):
                for kind in ("plain", "known"):
                    if kind == "plain" and os.path.exists(known):
                        os.rename(known, f"{self.work}/known")
                    if kind == "known" and os.path.exists(f"{self.work}/known"):
                        os.rename(f"{self.work}/known", known)
                    if cache == "cold":
                        self.forget(store)
                    times[f"{kind} {cache}"].append(self.touch(store, snapshot, "--lazy"))
        middle = {key: statistics.median(values) for key, values in times.items()}
        self.table.add("256 MiB touched after lazy restore, warm", middle["known warm"] /
                       middle["there"], "", ("<=", 1.15), "memory there already, ms",
                       middle["there"], spread(times["known warm"]) + " ms")
        self.table.add("  where no working set is known, warm", middle["plain warm"] /
                       middle["there"], "", spread=spread(times["plain warm"]) + " ms")
        self.table.add("256 MiB touched after lazy restore, cold", middle["known cold"] /
                       middle["plain cold"], "", ("<=", 0.3), "no working set known, ms",
                       middle["plain cold"], spread(times["known cold"]) + " ms",
                       f"the disk itself takes {self.fio_ms(size):.0f} ms for {size} MiB (fio)")

    # --- clones ---

    @staticmethod
    def available():
        for line in open("/proc/meminfo"):
            if line.startswith("MemAvailable"):
                return int(line.split()[1]) * 1024

    @staticmethod
    def pss(pid):
        for line in open(f"/proc/{pid}/smaps_rollup"):
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024

    def clone_set(self, store, snapshot, count):
        """Seconds until so many clones are restored, host memory they take, their share of it by
        smaps. Paused: a payload guest is never idle."""
        self.names += 1
        before, start, pids = self.available(), now_ns(), []
        process = subprocess.Popen(
            [self.minivmm, "restore", f"{store}@{snapshot}", "--clones", str(count), "--paused",
             "--json", "--name", f"bench{os.getpid()}-{self.names}", "--console-file", "/dev/null"],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        try:
            while len(pids) < count:
                line = json.loads(process.stdout.readline())
                if line["state"] != "started":
                    raise RuntimeError(f"a clone {line['state']}")
                pids.append(line["pid"])
            took = (now_ns() - start) / 1e9
            time.sleep(1)
            return took, before - self.available(), sum(self.pss(pid) for pid in pids)
        finally:
            for pid in pids:
                os.kill(pid, 9)
            process.kill()
            process.wait()

    def clone_starts(self, store, snapshot, count):
        """Of so many clones: milliseconds of CPU time that each took besides KVM's calls until its
        guest ran, the guests of those before it running (which never pause), and with each ended as
        soon as it had started; and of so many made ahead, from the request until the guest ran."""
        path, env = self.times_env()
        lines = lambda: open(path).read().splitlines() if os.path.exists(path) else []
        entered = lambda pid: any(line.split()[-1:] == [str(pid)] for line in lines())
        command = [self.timed[0], "restore", f"{store}@{snapshot}", "--clones", str(count), "--json",
                   "--name"]
        own, alone, ahead = [], [], []
        for kind in (own, alone, ahead):
            warm = kind is ahead
            self.names += 1
            process = subprocess.Popen(
                command + [f"bench{os.getpid()}-{self.names}"] + ["--warm"] * warm,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={**os.environ, **env})
            pids = set()

            def until(state):
                line = json.loads(process.stdout.readline())
                while line["state"] != state:
                    line = json.loads(process.stdout.readline())
                pids.add(line["pid"])
                return line["pid"]

            try:
                if not warm:
                    for _ in range(count):
                        pid = until("started")
                        if kind is alone:
                            wait_for(lambda: entered(pid), "a clone")
                            os.kill(pid, 9)
                            pids.discard(pid)
                    wait_for(lambda: len(lines()) >= count, "the clones")
                    kind += [(int(cpu) - int(kvm)) / 1e6
                             for _, _, cpu, kvm, *_ in (line.split() for line in lines())]
                    continue
                for _ in range(count):
                    until("ready")
                for number in range(count):
                    time.sleep(0.02)
                    start = now_ns()
                    process.stdin.write(b"\n")
                    process.stdin.flush()
                    pid = until("started")
                    line = wait_for(lambda: len(lines()) > number and lines()[number], "a clone")
                    ahead.append((int(line.split()[0]) - start) / 1e6)
                    os.kill(pid, 9)
                    until("ended")
                    pids.discard(pid)
            finally:
                for pid in pids:
                    os.kill(pid, 9)
                process.kill()
                process.wait()
                os.unlink(path)
        return own, alone, ahead

    def bare(self, count):
        """Host memory of so many machines that KVM has and nobody else."""
        before = self.available()
        process = subprocess.Popen([f"{self.build}/bench/bare_vms", str(count), str(self.memory)],
                                   stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        if process.stdout.readline() != b"ready\n":
            raise RuntimeError("bare_vms ended")
        time.sleep(1)
        used = before - self.available()
        process.stdin.close()
        process.wait()
        return used

    def clones(self):
        store = f"{self.work}/clones"
        self.chain(store, 1, 64)
        snapshot = self.ids(store)[-1]
        few, many = (10, 40) if self.quick else (20, 100)
        each, used, pss, bare = [], [], [], []
        for _ in range(5 if self.quick else 9):
            bare.append((self.bare(many) - self.bare(few)) / (many - few) / MIB)
            a, b = (self.clone_set(store, snapshot, count) for count in (few, many))
            # The difference: without the template, which is read once.
            each.append((b[0] - a[0]) / (many - few) * 1e3)
            used.append((b[1] - a[1]) / (many - few) / MIB)
            pss.append(b[2] / many / MIB)
        self.table.add(f"clones, {many}, restored and paused: each", statistics.median(each), "ms",
                       spread=spread(each))
        made = self.file_us()
        own, alone, ahead = self.clone_starts(store, snapshot, few if self.quick else many)
        self.table.add("  of one, CPU time besides KVM's calls", statistics.median(own), "ms",
                       ("<=", 0.5), spread=spread(own),
                       why=f"{many} guests that never pause share {os.cpu_count()} processors with "
                       f"it; where each was ended at its start: {statistics.median(alone):.2g} ms, "
                       f"and the one file that it makes takes the file system {made:.0f} us")
        self.table.add("  the same where each guest is ended at its start",
                       statistics.median(alone), "ms", spread=spread(alone))
        self.table.add("clone made ahead, from the request until it runs",
                       statistics.median(ahead), "ms", ("<=", 0.5), spread=spread(ahead),
                       why=f"three threads that sleep are woken one by the other, "
                       f"{self.floor['wake_us']:.0f} us each on this host")
        kvm = statistics.median(bare)
        self.table.add("  host memory of each besides KVM's own", statistics.median(used) - kvm,
                       "MiB", ("<=", 2), "KVM's own, bare machines", kvm,
                       f"{spread(used)} in all; {statistics.median(pss):.3g} in the process (Pss); "
                       f"KVM's {spread(bare)}")
