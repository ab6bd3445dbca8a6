"""What the host itself takes, measured in the same run: the floors that explain a missed target, or do
not."""
import json
import os
import statistics
import subprocess

import kept
from qemu import now_ns
from table import percentile


class Floors:
    """Part of Bench (measure.py), which has what is used here."""

    def measure_floors(self):
        out = subprocess.run([f"{self.build}/bench/host_floors"], stdout=subprocess.PIPE, check=True)
        self.floor = json.loads(out.stdout)
        self.floor["disk_us"] = self.disk_us()
        for name, unit, what in (("page_fault_us", "us", "a page touched first"),
                                 ("cpuid_us", "us", "CPUID"),
                                 ("thread_us", "us", "a thread, made and heard of"),
                                 ("wake_us", "us", "a thread woken"),
                                 ("memory_mb_s", "MB/s", "memory"),
                                 ("gap_p99_us", "us", "gaps of loops that read the clock, p99"),
                                 ("disk_us", "us", "a read of 4 KiB from the disk")):
            self.table.add(f"host: {what}", self.floor[name], unit)

    def bare_restore(self, program):
        """Milliseconds of the least that a restore can be (bare_restore.cc), and those of them that
        are not KVM's calls."""
        total, kvm, _, _ = self.entered(program, [str(self.memory), program])
        return total / 1e6, (total - kvm) / 1e6

    def disk_us(self):
        """Microseconds of a read of 4 KiB past the page cache, one at a time."""
        out = subprocess.run(
            ["fio", "--name=j", f"--filename={self.work}/fio", "--rw=randread", "--bs=4k",
             "--iodepth=1", "--ioengine=psync", "--direct=1", "--size=256M", "--runtime=2",
             "--time_based", "--output-format=json"], stdout=subprocess.PIPE, check=True).stdout
        os.unlink(f"{self.work}/fio")
        return json.loads(out)["jobs"][0]["read"]["clat_ns"]["percentile"]["50.000000"] / 1e3

    def file_us(self):
        """Microseconds in which the file system makes a file, the median of a hundred. They stay: ext4
        passes over each inode that was deleted in the last minute."""
        directory = f"{self.work}/files/{now_ns()}"
        os.makedirs(directory)
        times = []
        for number in range(100):
            start = now_ns()
            os.close(os.open(f"{directory}/{number}", os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
            times.append((now_ns() - start) / 1e3)
        return statistics.median(times)

    def fio_ms(self, size_mib):
        """Milliseconds in which the disk reads so much, one after the other; the median of three."""
        speed = statistics.median(self.fio("read", size_mib) for _ in range(3))
        os.unlink(f"{self.work}/fio")
        return size_mib * 1.048576 / speed * 1e3

    def why_stall(self, run, part, target_us):
        """Gaps that have nothing to do with a snapshot, where they are as long as the target."""
        instead = {"spins": percentile(run["busy_ns"], part) / 1e3,
                   "writes as much to the disk": percentile(run["written_ns"], part) / 1e3}
        loops = self.floor["gap_p99_us"]
        gaps = kept.undisturbed(run)
        others = bool(gaps) and percentile(gaps, part) / 1e3 < target_us
        if not others and max(*instead.values(), loops if part > 0.9 else 0) < target_us:
            return None
        whose = ("the host takes processors away"
                 if others or max(instead.values()) >= target_us else
                 "not shown to be the host's, though plain loops have such gaps as well")
        windows = ", ".join(f"{what} {gap:.0f} us" for what, gap in instead.items())
        return (f"{whose}: in windows in which a thread, instead of the snapshot, {windows}; p99 of "
                f"loops that only read the clock {loops:.0f} us; the longest pause "
                f"{max(run['pause_ns']) / 1e3:.0f} us" +
                (f"; the vCPU was {kept.in_windows(run)}" if "kept" in run else "") +
                (f"; {percentile(gaps, part) / 1e3:.0f} us in the {len(gaps)} windows in which it was not"
                 if gaps else ""))

    def why_restore(self, own_ms, bare_ms, cache):
        why = (f"{bare_ms:.2f} of the {own_ms:.2f} ms are those of a program that makes KVM's calls, "
               f"serves one page and does nothing else (CPUID {self.floor['cpuid_us']:.1f} us, a page "
               f"touched first {self.floor['page_fault_us']:.1f} us, a thread "
               f"{self.floor['thread_us']:.0f} us)")
        if cache == "warm":
            return why
        return why + f"; each read of the disk takes {self.floor['disk_us']:.0f} us"
