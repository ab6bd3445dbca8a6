"""Plots of a run of bench/run.sh as SVG, by nothing but the standard library."""

import math
import os
from xml.sax.saxutils import escape

WIDTH, HEIGHT = 640, 360
LEFT, RIGHT, TOP, BOTTOM = 70, 20, 40, 50
COLOURS = ("#0b6e99", "#c0392b", "#7f8c8d", "#d68910")


class Axis:
    def __init__(self, values, log, first, last):
        low, high = min(values), max(values)
        self.log, self.first, self.last = log, first, last
        if log:
            self.low, self.high = math.floor(math.log10(max(low, 1e-3))), math.ceil(math.log10(high))
            if self.low == self.high:
                self.high += 1
        else:
            self.low, self.high = 0, high * 1.1 or 1

    def at(self, value):
        value = math.log10(max(value, 1e-3)) if self.log else value
        part = (value - self.low) / (self.high - self.low)
        return self.first + part * (self.last - self.first)

    def ticks(self):
        if self.log:
            return [10.0 ** n for n in range(self.low, self.high + 1)]
        step = 10 ** math.floor(math.log10(self.high / 2))
        while self.high / step > 8:
            step *= 2
        return [step * n for n in range(int(self.high / step) + 1)]


def write(path, title, x_label, y_label, series, log_x=False, log_y=False):
    """`series`: (name, [(x, y), …]) each; drawn as lines."""
    points = [point for _, values in series for point in values]
    x = Axis([point[0] for point in points], log_x, LEFT, WIDTH - RIGHT)
    y = Axis([point[1] for point in points], log_y, HEIGHT - BOTTOM, TOP)
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
           'font-family="sans-serif" font-size="12">',
           f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>']

    def text(at_x, at_y, words, anchor="middle", more=""):
        out.append(f'<text x="{at_x:.1f}" y="{at_y:.1f}" text-anchor="{anchor}"{more}>'
                   f'{escape(words)}</text>')

    text(WIDTH / 2, 18, title, more=' font-size="14"')
    text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 12, x_label)
    text(16, HEIGHT / 2, y_label, more=f' transform="rotate(-90 16 {HEIGHT / 2})"')
    for tick in x.ticks():
        out.append(f'<path d="M{x.at(tick):.1f} {TOP}V{HEIGHT - BOTTOM}" stroke="#eee"/>')
        text(x.at(tick), HEIGHT - BOTTOM + 16, f"{tick:g}")
    for tick in y.ticks():
        out.append(f'<path d="M{LEFT} {y.at(tick):.1f}H{WIDTH - RIGHT}" stroke="#eee"/>')
        text(LEFT - 6, y.at(tick) + 4, f"{tick:g}", "end")
    for i, (name, values) in enumerate(series):
        colour = COLOURS[i % len(COLOURS)]
        line = " ".join(f"{x.at(a):.1f},{y.at(b):.1f}" for a, b in values)
        out.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
        out.append(f'<rect x="{LEFT + 10}" y="{TOP + 8 + 16 * i}" width="10" height="3" '
                   f'fill="{colour}"/>')
        text(LEFT + 26, TOP + 14 + 16 * i, name, "start")
    out.append("</svg>")
    with open(path, "w") as file:
        file.write("\n".join(out) + "\n")


def distribution(values_ns):
    """(microseconds, percent of the windows whose longest gap was at most that)"""
    ordered = sorted(values_ns)
    return [(value / 1e3, 100 * (i + 1) / len(ordered)) for i, value in enumerate(ordered)]


def write_all(data, directory):
    """What of the plots there is data for."""
    os.makedirs(directory, exist_ok=True)
    series = []
    for key, name in (("paced", "10,000 pages/s"), ("hot", "full speed")):
        if key in data:
            series += [(f"{name}, with a snapshot", distribution(data[key]["with_ns"])),
                       (f"{name}, without", distribution(data[key]["without_ns"]))]
    if series:
        write(f"{directory}/gaps.svg", "Longest gap the guest sees in a window",
              "microseconds", "percent of windows", series, log_x=True)
    if "paced" in data:
        sizes = [(i + 1, size / (1 << 20)) for i, size in enumerate(data["paced"]["bytes"])]
        write(f"{directory}/bytes.svg", "Committed bytes over a chain, 10,000 pages/s",
              "snapshot", "MiB", [("incremental", sizes)])
    if "restore" in data:
        write(f"{directory}/restore.svg", "Lazy restore until the guest runs",
              "snapshots in the chain", "ms",
              list(data["restore"].items()),
              log_x=True)
