"""The table that bench/run.sh prints and writes as JSON: a row for each thing measured, with its target
and what was measured beside it."""
import os
import platform


def percentile(values, part):
    ordered = sorted(values)
    return ordered[int(part * (len(ordered) - 1))]


def spread(values, scale=1.0):
    return f"{min(values) * scale:.4g} to {max(values) * scale:.4g}, n={len(values)}"


class Table:
    def __init__(self):
        self.rows = []

    def add(self, name, value, unit, target=None, peer=None, peer_value=None, spread=None,
            why=None):
        """`target`: ("<=" or ">=", number), or none. `why`: what was measured that explains a miss."""
        met = None
        if target and value is not None:
            met = value <= target[1] if target[0] == "<=" else value >= target[1]
        row = {"name": name, "value": value, "unit": unit,
               "target": f"{target[0]} {target[1]:g}" if target else None, "met": met,
               "peer": peer, "peer_value": peer_value, "spread": spread,
               "why": why if met is False else None}
        self.rows.append(row)
        print(self.text(row), flush=True)

    def missing(self, name, why):
        self.add(name, None, why)

    def missed(self):
        """What is said of the targets that were missed, a line each."""
        return [f"{row['name'].strip()}: {row['why'] or 'nothing that was measured explains it'}"
                for row in self.rows if row["met"] is False]

    @staticmethod
    def text(row):
        if row["value"] is None:
            return f"{row['name']:<46} not measured: {row['unit']}"
        verdict = {True: "met", False: "MISSED", None: ""}[row["met"]]
        line = f"{row['name']:<46} {row['value']:>10.4g} {row['unit']:<6}"
        line += f" {row['target'] or '':>8} {verdict:<6}"
        if row["peer"]:
            line += f"  {row['peer']}: {row['peer_value']:.4g}"
        if row["spread"]:
            line += f"  ({row['spread']})"
        return line


def host():
    info = open("/proc/cpuinfo").read()

    def field(name):
        line = next((line for line in info.splitlines() if line.startswith(name)), ":?")
        return line.split(":", 1)[1].strip()

    backend = [name for name in ("kvm_pvm", "kvm_amd", "kvm_intel")
               if os.path.isdir(f"/sys/module/{name}")]
    virtual = [flag for flag in ("svm", "vmx") if flag in field("flags").split()]
    return (f"{field('model name')}, {os.cpu_count()} CPUs, Linux {platform.release()}, KVM backend "
            f"{'/'.join(backend) or 'built in'} ({'/'.join(virtual) or 'neither svm nor vmx'}), "
            f"load {os.getloadavg()[0]:.1f}")
