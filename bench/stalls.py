"""What bench/run.sh measures of the guest that is snapshotted: how long it stands still, and what
a snapshot writes."""
import json
import os
import select
import shutil
import statistics
import subprocess

import kept
from qemu import Qemu
from table import percentile, spread

PAGE = 4096
TICK_NS = 4e6  # what begins in a window may show only at the next tick


class Stalls:
    """Part of Bench (measure.py), which has what is used here."""

    def stall(self, store, **numbers):
        shutil.rmtree(store, ignore_errors=True)
        command = [f"{self.build}/bench/stall", f"{self.build}/payloads", store, "--json"]
        for key, value in numbers.items():
            command += [f"--{key.replace('_', '-')}", str(value)]
        events, threads = [], set()
        with kept.traced(events), subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            while select.select([process.stdout], [], [], 5)[0] == []:
                threads |= kept.names_of(process.pid)
            run = json.loads(process.stdout.read())
        others = [of for of in kept.kept_from("vcpu0", events) if of[2] not in threads]
        # By whom the vCPU was kept from its processor in each window with a snapshot, where that is known.
        if events:
            run["kept"] = [[of for of in others if began <= of[0] * 1e6 <= began + took + TICK_NS]
                           for began, took in zip(run["began_ns"], run["total_ns"])]
        return run

    def rows_of_kept(self, name, run):
        """The windows in which somebody kept the vCPU from its processor, and the gaps of the others."""
        if "kept" not in run:
            self.table.missing(f"  who keeps the vCPU from its processor, {name}",
                               f"{kept.TRACING} has not been mounted, or lost something")
            return
        self.table.add(f"  windows in which the vCPU is kept from its processor, {name}",
                       sum(map(bool, run["kept"])), "",
                       spread=f"of {len(run['kept'])}; {kept.in_windows(run)}")
        if gaps := kept.undisturbed(run):
            self.table.add(f"  in the others, {name}, p99", percentile(gaps, 0.99) / 1e3, "us",
                           spread=spread(gaps, 1e-3))

    def stalls(self):
        store = f"{self.work}/stall"
        paced = self.stall(store, memory=self.memory, size=self.memory // 2, rate=10000,
                           count=60 if self.quick else 1000)
        hot = self.stall(store, memory=self.memory, size=self.memory // 2, rate=0,
                         count=8 if self.quick else 50)
        self.largest_run(store, f"changes all over {self.memory // 2} MiB")
        shutil.rmtree(store, ignore_errors=True)
        self.data["paced"], self.data["hot"] = paced, hot
        peers = self.qemu_gaps()
        for name, run in (("10,000 pages/s", paced), ("full speed", hot)):
            for part, target in ((0.5, 200), (0.99, 300)):
                label = f"stall, {name}, p{part * 100:.0f}"
                self.table.add(label, percentile(run["with_ns"], part) / 1e3, "us", ("<=", target),
                               "windows in which a thread spins instead",
                               percentile(run["busy_ns"], part) / 1e3,
                               spread(run["with_ns"], 1e-3) + ", without a snapshot "
                               f"{percentile(run['without_ns'], part) / 1e3:.4g}, in windows in "
                               "which a thread writes as much "
                               f"{percentile(run['written_ns'], part) / 1e3:.4g}",
                               self.why_stall(run, part, target))
            self.table.add(f"  pause by the host's clock, {name}, p50",
                           percentile(run["pause_ns"], 0.5) / 1e3, "us",
                           spread=spread(run["pause_ns"], 1e-3))
            for step, values in run["steps_ns"].items():
                self.table.add(f"    {step}", percentile(values, 0.5) / 1e3, "us",
                               spread=spread(values, 1e-3))
            self.table.add(f"  longest round outside of it, {name}, p50",
                           percentile(run["clear_ns"], 0.5) / 1e3, "us",
                           spread=spread(run["clear_ns"], 1e-3))
            self.table.add(f"  pages written again in a snapshot, {name}",
                           run["rewritten"] / len(run["bytes"]), "pages",
                           spread=f"of {run['pages'] / len(run['bytes']):.0f} changed ones")
            self.rows_of_kept(name, run)
            if run is hot:
                self.slow_down_of(name, run)
        ours = percentile(paced["with_ns"], 0.5) / 1e3
        for kind in ("background-snapshot", "stop and save"):
            gaps, took = peers[kind]
            self.table.add(f"stall, 10,000 pages/s, to QEMU {kind}",
                           ours / statistics.median(gaps), "",
                           peer=f"QEMU {kind}, gap in us", peer_value=statistics.median(gaps),
                           spread=f"QEMU's {spread(gaps)} us")
            self.table.add(f"incremental snapshot, durable, to QEMU {kind}, not durable",
                           percentile(paced["total_ns"], 0.5) / 1e6 / statistics.median(took), "",
                           peer=f"QEMU {kind}, ms", peer_value=statistics.median(took),
                           spread=spread(paced["total_ns"], 1e-6) + " ms")
        changed = paced["pages"] * PAGE / len(paced["bytes"])
        fixed = 64 * 1024 + 16 * 1024 * 1
        self.table.add("bytes of an incremental, less 80 KiB, to changed",
                       (statistics.mean(paced["bytes"]) - fixed) / changed, "", ("<=", 1.02),
                       spread=spread(paced["bytes"]) + " bytes; "
                       f"{paced['rewritten'] / len(paced['bytes']):.0f} pages written again")

    def qemu_gaps(self):
        """Longest gap of the guest (us) and duration (ms) of each way to save it."""
        result = {"background-snapshot": ([], []), "stop and save": ([], [])}
        append = f"size={self.memory // 2}M rate=10000 poll=2"
        with Qemu(self.work, self.payload, append, self.memory) as guest:
            guest.wait_output("jitter: filled")
            for kind, (gaps, took) in result.items():
                for _ in range(2 if self.quick else 5):
                    guest.clear()
                    took.append(guest.save(f"{self.work}/qemu.save",
                                           kind == "background-snapshot") / 1e6)
                    gaps.append(guest.longest_gap_ns() / 1e3)
        self.data["qemu_gaps"] = {kind: gaps for kind, (gaps, _) in result.items()}
        return result

    def sizes(self):
        """The same guest with more or less memory around its working set, with more vCPUs, on a host
        that is busy, throttled and stopped where it writes too fast."""
        store = f"{self.work}/sizes"
        paced = {"size": 256, "rate": 10000, "count": 20 if self.quick else 100}
        runs = {gib: self.stall(store, memory=int(gib * 1024), **paced)
                for gib in ((0.5, 2) if self.quick else (0.5, 2, 8, 16, 64))}
        for gib, run in runs.items():
            self.row_of(f"stall, 10,000 pages/s over 256 MiB of {gib:g} GiB", run)
        gaps = [percentile(run["with_ns"], 0.5) for gib, run in runs.items() if gib <= 16]
        self.table.add("  longest to shortest of them up to 16 GiB, p50", max(gaps) / min(gaps), "",
                       ("<=", 1.5))
        for cpus in (2, 4):
            self.row_of(f"stall, 10,000 pages/s, {cpus} vCPUs",
                        self.stall(store, memory=self.memory, cpus=cpus, **paced))
        hogs = [subprocess.Popen(["sh", "-c", "while :; do :; done"])
                for _ in range(os.cpu_count())]
        try:
            self.row_of("stall, 10,000 pages/s, each CPU of the host busy",
                        self.stall(store, memory=self.memory, **paced))
        finally:
            for hog in hogs:
                hog.kill()
                hog.wait()
        hot = {"memory": self.memory, "size": self.memory // 2, "rate": 0,
               "count": 4 if self.quick else 12}
        # A pool that the guest fills sooner than the disk empties it: rounds do not converge.
        throttled = self.stall(store, staging=8, **hot)
        self.row_of("stall, full speed, pool of 8 MiB", throttled)
        self.slow_down_of("pool of 8 MiB", throttled)
        self.row_of("stall, full speed, guest stopped for all of it",
                    self.stall(store, stop=1, **hot))
        shutil.rmtree(store, ignore_errors=True)

    def slow_down_of(self, name, run):
        self.table.add(f"  guest held to let the rounds converge, {name}",
                       run["held_ns"] / len(run["bytes"]) / 1e6, "ms",
                       spread=f"in {run['slices'] / len(run['bytes']):.0f} slices; a snapshot takes "
                       f"{percentile(run['total_ns'], 0.5) / 1e6:.0f} ms")
        self.table.add(f"  guest's writes, {name}, to those without",
                       run["writes_per_s"] / max(1, run["quiet_writes_per_s"]), "")

    def row_of(self, name, run):
        self.table.add(name + ", p50", percentile(run["with_ns"], 0.5) / 1e3, "us", None,
                       "windows in which a thread spins instead",
                       percentile(run["busy_ns"], 0.5) / 1e3,
                       spread(run["with_ns"], 1e-3) + ", without a snapshot "
                       f"{percentile(run['without_ns'], 0.5) / 1e3:.4g}; p99 "
                       f"{percentile(run['with_ns'], 0.99) / 1e3:.4g}; reading the log "
                       f"{percentile(run['steps_ns']['log'], 0.5) / 1e3:.4g}")
