"""QEMU with a payload guest, as the peer of a measurement: started, asked over QMP, ended."""

import json
import os
import shutil
import socket
import subprocess
import time


def now_ns():
    return time.clock_gettime_ns(time.CLOCK_MONOTONIC)


def wait_for(condition, what, limit_s=120, every_s=0.001):
    end = time.monotonic() + limit_s
    while time.monotonic() < end:
        value = condition()
        if value:
            return value
        time.sleep(every_s)
    raise RuntimeError(f"{what}: nothing after {limit_s} s")


def connect(path):
    client = socket.socket(socket.AF_UNIX)

    def attempt():
        try:
            client.connect(path)
            return True
        except OSError:
            return False

    wait_for(attempt, path)
    return client


def qemu_command(work, payload, append, memory_mib, incoming=None):
    """`incoming`: a file that the machine is restored from instead of being booted."""
    for path in (f"{work}/serial", f"{work}/qmp"):
        if os.path.exists(path):
            os.unlink(path)
    command = [shutil.which("qemu-system-x86_64"), "-accel", "kvm", "-cpu", "qemu64,-cx16,-svm",
               "-M", "microvm", "-bios", "qboot.rom", "-m", f"{memory_mib}M",
               "-kernel", payload, "-append", append, "-display", "none",
               "-nodefaults", "-no-user-config", "-no-reboot",
               "-serial", f"unix:{work}/serial,server=on,wait=off",
               "-qmp", f"unix:{work}/qmp,server=on,wait=off"]
    return command + (["-incoming", f"file:{incoming}"] if incoming else [])


class Qemu:
    """One process."""

    def __init__(self, work, payload, append, memory_mib):
        self.process = subprocess.Popen(qemu_command(work, payload, append, memory_mib),
                                        stdin=subprocess.DEVNULL)
        self.serial = connect(f"{work}/serial")
        self.text = ""
        qmp = connect(f"{work}/qmp")
        self.qmp = qmp.makefile("rw")
        self.qmp.readline()
        self.ask("qmp_capabilities")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()

    def ask(self, command, **arguments):
        self.qmp.write(json.dumps({"execute": command, "arguments": arguments}) + "\n")
        self.qmp.flush()
        while True:
            answer = json.loads(self.qmp.readline())
            if "error" in answer:
                raise RuntimeError(f"QEMU: {command}: {answer['error']['desc']}")
            if "return" in answer:
                return answer["return"]

    def wait_output(self, text, limit_s=120):
        """What the guest printed until a line with `text` was complete."""
        self.serial.settimeout(limit_s)
        while True:
            at = self.text.find(text)
            end = self.text.find("\n", at)
            if at >= 0 and end >= 0:
                before, self.text = self.text[:end], self.text[end + 1:]
                return before
            received = self.serial.recv(65536)
            if not received:
                raise RuntimeError("QEMU ended")
            self.text += received.decode(errors="replace")

    def type(self, text):
        self.serial.sendall(text.encode())

    def clear(self):
        self.type("c")
        self.wait_output("jitter: cleared")

    def longest_gap_ns(self):
        """Since clear()."""
        self.type("r")
        report = self.wait_output("jitter: end")
        longest = next(line for line in report.splitlines() if "rank=1 " in line)
        return int(longest.split(" ns=")[1].split()[0])

    def save(self, path, background):
        """Saves the machine's memory and state to a file; returns nanoseconds. The guest runs
        again afterwards. `background`: it runs on meanwhile, all RAM write-protected."""
        self.ask("migrate-set-capabilities",
                 capabilities=[{"capability": "background-snapshot", "state": background}])
        self.ask("migrate-set-parameters", **{"max-bandwidth": 1 << 40})
        start = now_ns()
        if not background:
            self.ask("stop")
        self.ask("migrate", uri=f"file:{path}")

        def ended():
            status = self.ask("query-migrate")
            if status.get("status") == "failed":
                raise RuntimeError(f"QEMU: migrate: {status.get('error-desc', 'failed')}")
            return status.get("status") == "completed"

        wait_for(ended, "QEMU's migration to a file", 300)
        took = now_ns() - start
        if not background:
            self.ask("cont")
        return took
