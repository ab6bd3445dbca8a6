#!/usr/bin/env python3
"""Reads a snapshot out of a store, from snapshot/FORMAT.md alone: the program's own reader has
nothing to do with it. Everything it reads is checked.

  read_store.py STORE SNAPSHOT memory OUT            flat, at guest-physical addresses; sparse
  read_store.py STORE SNAPSHOT disk N BASE OUT       raw, over the image BASE
  read_store.py STORE BRANCH head N BASE OUT         the disk as a killed machine left it
"""

import bisect
import ctypes
import ctypes.util
import os
import struct
import sys

PAGE = 4096
ZERO, BASE = 0xFFFFFF, 0xFFFFFE
KINDS = {1: "delta", 2: "flat"}

xxhash = ctypes.CDLL(ctypes.util.find_library("xxhash") or "libxxhash.so.0")
xxhash.XXH3_64bits_withSeed.restype = ctypes.c_uint64
xxhash.XXH3_64bits_withSeed.argtypes = [ctypes.c_char_p, ctypes.c_size_t, ctypes.c_uint64]


def xxh3(data, seed):
    return xxhash.XXH3_64bits_withSeed(data, len(data), seed)


def check(condition, what):
    if not condition:
        sys.exit(f"read_store: {what}")


class Fields:
    """Values one after the other."""

    def __init__(self, data, what):
        self.data, self.at, self.what = data, 0, what

    def bytes(self, count):
        check(self.at + count <= len(self.data), f"{self.what} is too short")
        self.at += count
        return self.data[self.at - count : self.at]

    def u8(self):
        return self.bytes(1)[0]

    def bool(self):
        value = self.u8()
        check(value in (0, 1), f"{self.what}: a bool is {value}")
        return value

    def u32(self):
        return struct.unpack("<I", self.bytes(4))[0]

    def u64(self):
        return struct.unpack("<Q", self.bytes(8))[0]

    def id(self):
        high, low = struct.unpack("<QQ", self.bytes(16))
        return f"{high:016x}{low:016x}"

    def string(self, bound):
        length = self.u32()
        check(length <= bound, f"{self.what}: a string of {length} bytes")
        return self.bytes(length)

    def list(self, bound, one):
        count = self.u32()
        check(count <= bound, f"{self.what}: a list of {count}")
        return [one() for _ in range(count)]

    def expect(self, value, found, name):
        check(value == found, f"{self.what}: {name} is {found}, not {value}")


def id_bytes(text):
    return struct.pack("<QQ", int(text[:16], 16), int(text[16:], 16))


class Store:
    def __init__(self, path):
        self.path = path
        data = self.read_file("FORMAT")
        fields = Fields(data, "FORMAT")
        fields.expect(64, len(data), "size")
        fields.expect(b"MVMSTORE", fields.bytes(8), "magic")
        fields.expect(2, fields.u32(), "version")
        fields.expect(1, fields.u32(), "hash algorithm")
        fields.expect(0, fields.u64(), "incompatible features")
        fields.u64()
        self.id = fields.id()
        self.seed = fields.u64()
        fields.expect(xxh3(data[:56], 0), fields.u64(), "hash")

    def read_file(self, name):
        with open(os.path.join(self.path, name), "rb") as file:
            return file.read()

    def hash(self, data):
        return xxh3(data, self.seed)

    def head(self, branch):
        data = self.read_file(f"heads/{branch}")
        fields = Fields(data, "HEAD")
        fields.expect(b"MVMHEAD1", fields.bytes(8), "magic")
        fields.expect(self.id, fields.id(), "store")
        fields.expect(branch, fields.id(), "branch")
        parent = fields.id()
        fields.string(255)
        layers = fields.list(4096, lambda: (fields.u32(), fields.id()))
        fields.expect(self.hash(data[: fields.at]), fields.u64(), "hash")
        fields.expect(len(data), fields.at, "size")
        return parent, layers


class Run:
    def __init__(self, store, space, pages, fields):
        self.store, self.space = store, space
        self.id = fields.id()
        self.kind = KINDS[fields.u32()]
        self.slot_count = fields.u32()
        self.head_blocks = fields.u32()
        self.entries = fields.u64()
        self.size = fields.u64()
        self.head_hash = fields.u64()
        self.root = fields.u64()
        self.name = f"runs/{self.id}"
        self.per_leaf = {"delta": 204, "flat": 256}[self.kind]
        self.levels = [-(-self.entries // self.per_leaf)]
        while self.levels[-1] > 1:
            self.levels.append(-(-self.levels[-1] // 341))
        self.starts = [self.head_blocks + sum(self.levels[:i]) for i in range(len(self.levels))]
        check(self.size == PAGE * (self.head_blocks + sum(self.levels)), f"{self.name}: its size")
        check(self.kind == "delta" or self.entries == pages, f"{self.name}: entries")
        self.blocks = {}
        self.data = None

    def open(self):
        if self.data is None:
            self.data = self.store.read_file(self.name)
            check(len(self.data) == self.size, f"{self.name} has another size")
            self.read_head()

    def read_head(self):
        head = self.data[: self.head_blocks * PAGE]
        check(self.store.hash(head) == self.head_hash, f"{self.name}: hash of its head")
        fields = Fields(head, self.name)
        fields.expect(b"MVMINDX1", fields.bytes(8), "magic")
        fields.expect(self.store.id, fields.id(), "store")
        fields.expect(self.id, fields.id(), "id")
        fields.expect(self.space, fields.u32(), "space")
        fields.expect(self.kind, KINDS[fields.u32()], "kind")
        fields.expect(self.entries, fields.u64(), "entries")
        fields.expect(self.slot_count, fields.u32(), "slots")
        fields.expect(self.head_blocks, fields.u32(), "head_blocks")
        self.slots = []
        for _ in range(self.slot_count):
            kind, disk, name, size = fields.u32(), fields.u32(), fields.id(), fields.u64()
            check(kind in (1, 2), f"{self.name}: kind of slot")
            path = f"packs/{name}" if kind == 1 else f"layers/{disk}-{name}"
            self.slots.append((path, size))

    def records(self, level, index, expected):
        """Of a block: tuples, in order."""
        if (level, index) not in self.blocks:
            at = (self.starts[level] + index) * PAGE
            data = self.data[at : at + PAGE]
            check(self.store.hash(data) == expected, f"{self.name}: hash of the block at {at}")
            if level > 0:
                full, all, form = 341, self.levels[level - 1], struct.Struct("<IQ")
            else:
                form = struct.Struct("<IQQ" if self.kind == "delta" else "<QQ")
                full, all = self.per_leaf, self.entries
            size = form.size * min(full, all - index * full)
            self.blocks[level, index] = list(form.iter_unpack(data[:size]))
        return self.blocks[level, index]

    def find(self, page):
        """(hash, location), or None where the run does not have the page."""
        self.open()
        index, expected = 0, self.root
        for level in range(len(self.levels) - 1, 0, -1):
            records = self.records(level, index, expected)
            if self.kind == "flat":
                child = page // 256 // 341 ** (level - 1) - index * 341
            else:
                child = bisect.bisect(records, page, key=lambda record: record[0]) - 1
                if child < 0:
                    return None
            index, expected = index * 341 + child, records[child][1]
        records = self.records(0, index, expected)
        if self.kind == "flat":
            return records[page % 256]
        at = bisect.bisect(records, page, key=lambda record: record[0]) - 1
        return records[at][1:] if at >= 0 and records[at][0] == page else None


class Snapshot:
    def __init__(self, store, name):
        self.store, self.name = store, name
        what = f"snap/{name}"
        data = store.read_file(what)
        fields = Fields(data, what)
        fields.expect(b"MVMSNAP1", fields.bytes(8), "magic")
        fields.expect(2, fields.u32(), "version")
        size = fields.u32()
        check(24 <= size <= min(len(data), 4 << 20), f"{what}: size of its body")
        fields.expect(store.hash(data[: size - 8]), struct.unpack_from("<Q", data, size - 8)[0], "hash")
        fields.expect(store.id, fields.id(), "store")
        fields.expect(name, fields.id(), "id")
        self.parent, self.branch = fields.id(), fields.id()
        check(fields.u32() in (1, 2), f"{what}: kind")
        for _ in range(6):
            fields.u64()
        fields.string(255)
        self.memory = fields.list(64, lambda: (fields.u64(), fields.u64()))
        self.disks = fields.list(
            64, lambda: (fields.string(255), fields.u64(), fields.bool(), fields.string(4096)))
        self.config = fields.string(1 << 20)
        self.spaces = {}
        fields.list(65, lambda: self.read_space(fields))
        sections = fields.list(
            4096, lambda: (fields.string(63), fields.u32(), fields.u32(), fields.u64()))
        fields.u64()
        fields.expect(size, fields.at, "size of the body")
        self.sections = {}
        for tag, version, length, content in sections:
            section = fields.bytes(length)
            fields.expect(content, store.hash(section), f"hash of section {tag}")
            self.sections[tag] = version, section
        fields.expect(len(data), fields.at, "size")
        self.files = {}

    def layer_names(self):
        names = set()
        for _, runs in self.spaces.values():
            for run in runs:
                run.open()
                names.update(name for name, _ in run.slots)
        return names

    def read_space(self, fields):
        number, pages = fields.u32(), fields.u64()
        runs = fields.list(12, lambda: Run(self.store, number, pages, fields))
        self.spaces[number] = pages, runs

    def file(self, name, size):
        if name not in self.files:
            file = open(os.path.join(self.store.path, name), "rb")
            check(os.fstat(file.fileno()).st_size >= size, f"{name} is too short")
            self.files[name] = file
        return self.files[name]

    def page(self, space, page):
        """The content, or None for zero, or BASE."""
        for run in self.spaces[space][1]:
            found = run.find(page)
            if found is None:
                continue
            content, location = found
            slot, offset = location >> 40, location & (1 << 40) - 1
            if slot == ZERO:
                return None
            if slot == BASE:
                return BASE
            check(slot < len(run.slots), f"{run.name}: slot {slot}")
            file = self.file(*run.slots[slot])
            data = os.pread(file.fileno(), PAGE, offset * PAGE)
            check(self.store.hash(data) == content, f"{file.name} at {offset * PAGE}: hash")
            return data
        return BASE if space > 0 and self.disks[space - 1][3] else None


def write_memory(snapshot, out):
    pages = 0
    for gpa, size in snapshot.memory:
        for i in range(size // PAGE):
            data = snapshot.page(0, pages + i)
            if data is not None:
                os.pwrite(out.fileno(), data, gpa + i * PAGE)
        pages += size // PAGE
        out.truncate(gpa + size)
    check(pages == snapshot.spaces[0][0], "regions of memory and its pages differ")


def write_disk(snapshot, number, base, out):
    size = snapshot.disks[number][1]
    for page in range(-(-size // PAGE)):
        data = snapshot.page(number + 1, page)
        if data is BASE:
            data = os.pread(base.fileno(), PAGE, page * PAGE)
        if data is not None:
            os.pwrite(out.fileno(), data[: size - page * PAGE], page * PAGE)
    out.truncate(size)


def latest(store, branch):
    """What HEAD means: it may be behind the snapshots of its branch."""
    name, listed = store.head(branch)
    snapshot, layers = Snapshot(store, name), listed
    for other in os.listdir(os.path.join(store.path, "snap")):
        candidate = Snapshot(store, other)
        if candidate.branch != branch:
            continue
        named = candidate.layer_names()
        last = {}  # by disk: the place of the last layer it names
        for i, (disk, layer) in enumerate(listed):
            if f"layers/{disk}-{layer}" in named:
                last[disk] = i
        left = [one for i, one in enumerate(listed) if i > last.get(one[0], -1)]
        if len(left) < len(layers):
            snapshot, layers = candidate, left
    return snapshot, layers


def log_records(store, name, layer, blocks):
    log = store.read_file(f"{name}.log")
    if len(log) < 48:
        return
    header = Fields(log[:48], f"{name}.log")
    magic, found = header.bytes(8), header.id()
    found_blocks, _, content = header.u64(), header.u64(), header.u64()
    if magic != b"MVMDLOG1" or content != store.hash(id_bytes(found) + log[:40]):
        return
    header.expect(layer, found, "layer")
    header.expect(blocks, found_blocks, "blocks")
    for i in range((len(log) - 48) // 40):
        record = log[48 + 40 * i :][:40]
        number, first, count, state, content = struct.unpack("<5Q", record)
        if number != i + 1 or content != store.hash(id_bytes(layer) + record[:32]):
            return
        check(0 < count <= blocks - first and state in (1, 2), f"{name}.log: record {i}")
        yield first, count, state


def write_layers(store, layers, number, size, out):
    for disk, layer in layers:
        if disk != number:
            continue
        name, state_of = f"layers/{disk}-{layer}", {}
        for first, count, state in log_records(store, name, layer, -(-size // PAGE)):
            state_of.update((block, state) for block in range(first, first + count))
        with open(os.path.join(store.path, name), "rb") as data:
            for block, state in state_of.items():
                content = os.pread(data.fileno(), PAGE, block * PAGE) if state == 1 else bytes(PAGE)
                os.pwrite(out.fileno(), content[: size - block * PAGE], block * PAGE)


def main(arguments):
    if len(arguments) < 4:
        sys.exit(__doc__)
    path, name, what = arguments[:3]
    store = Store(path)
    layers = []
    if what == "head":
        snapshot, layers = latest(store, name)
    else:
        snapshot = Snapshot(store, name)
    with open(arguments[-1], "wb") as out:
        if what == "memory":
            write_memory(snapshot, out)
        else:
            number = int(arguments[3])
            with open(arguments[4], "rb") as base:
                write_disk(snapshot, number, base, out)
            write_layers(store, layers, number, snapshot.disks[number][1], out)


main(sys.argv[1:])
