"""What a disk may hold after a power cut: a record of file calls (see trace.c), turned into operations, and every state
that a file system that honours fsync may leave at a point in it.

A sync of a file makes the bytes durable that were written before the sync began. What is not durable may be there or not: of a
file's unsynced writes none, the first k, half of the next one more, or a new length without the bytes (zeros; where bytes
were before, they stay). For names, modes and owners there are four models of a file system (MODELS):
- journal: they change in one order for all, as ext4 and XFS have it: what is not durable survives as far as some point and
  not beyond, and a sync of anything makes all of them durable that were before it. No zeros.
- strict: only a sync of a directory makes the names durable that were made, moved and removed in it (fsync(2) says so); of the others
  any subset survives, whatever their order was. A rename is one operation, durable with a sync of either directory: the
  old name or the new one, never both or none. A new directory has its name by a sync of itself, too.
- twonames: the same, but a rename of a file is a new name and then the removal of the old one: after a cut there may be
  both. Never none: where the removal is durable the new name is.
- posix: they are two operations that know nothing of each other, and a new directory has its name only by a sync of the
  one above.
"""
import hashlib
import itertools
import os
import stat

O_CREAT, O_TRUNC = 0o100, 0o1000
MODELS = ("strict", "journal", "twonames", "posix")
# Calls that say the same with other arguments.
SAME = {"open": "openat", "rename": "renameat", "renameat2": "renameat", "link": "linkat", "unlink": "unlinkat", "rmdir": "unlinkat",
        "mkdir": "mkdirat", "writev": "write", "truncate": "ftruncate", "chmod": "fchmod", "fchmodat": "fchmod",
        "chown": "fchmod", "fchown": "fchmod", "fchownat": "fchmod", "fdatasync": "fsync"}


class Op:
    """One change: of a file's bytes (ino, offset, data), of its mode and owner, or of names [(dir, name, ino or 0)]."""

    __slots__ = ("kind", "ino", "offset", "data", "names", "dirs", "owner", "durable", "at", "first")

    def __init__(self, kind, at, ino=0, offset=0, data=b"", names=(), owner=None, first=None):
        self.kind, self.at, self.ino, self.offset, self.data = kind, at, ino, offset, data
        self.names, self.owner = names, owner
        self.dirs = {n[0] for n in names}
        self.durable = None  # the event after which it is
        self.first = first  # what must have happened if this has


class Tree(dict):
    """{path: bytes, or None for a directory}; of each path its (mode, user, group), and which paths are one file."""

    def __init__(self):
        super().__init__()
        self.owner, self.ino = {}, {}


def snapshot(roots):
    """What is below the roots now: {path: (inode, (mode, user, group), bytes or None)}, the upper ones first."""
    out = {}
    for root in roots:
        for top, dirs, files in os.walk(root):
            for name in sorted(dirs) + sorted(files):
                path = f"{top}/{name}"
                st = os.lstat(path)
                data = None
                if stat.S_ISREG(st.st_mode):
                    with open(path, "rb") as f:
                        data = f.read()
                elif not stat.S_ISDIR(st.st_mode):
                    continue  # a socket or a pipe: each start makes them
                out[path] = (st.st_ino, (st.st_mode & 0o7777, st.st_uid, st.st_gid), data)
    return out


class Record:
    """The operations below the roots (absolute paths), and events in their order."""

    def __init__(self, path, roots, dirs=(), drop=None, posix=False, model="strict", before=None, places=None):
        """drop: syncs of these are left out: a part of a path that ends with "$". dirs: directories below the roots that were there before, the upper ones first; or before: a snapshot. places: {path
        as a process sees it: path here}."""
        self.roots, self.drop, self.places = roots, drop, places or {}
        self.model = "posix" if posix else model
        self.ops, self.events = [], []  # events: (line, time, text) that may be crash points
        self.tree = {}  # path of a directory -> its number
        self.entries = {}  # (dir, name) -> number
        self.kernel = {}  # the kernel's inode -> number
        self.size, self.kind, self.owner = {}, {}, {}
        self.next = 1
        self.started = {}  # (process, inode) -> how many operations there were
        for root in roots:
            self.tree[root] = self.new("dir")
        for d in dirs:
            self.had(d, 0, None, None)
        for p, (inode, owner, data) in (before or {}).items():
            self.had(p, inode, owner, data)
        with open(path, errors="surrogateescape") as f:
            for line in f:
                self.take(line.rstrip("\n").split("\t"))

    def had(self, path, inode, owner, data):
        n = self.new("dir" if data is None else "file", owner)
        self.entries[self.place(path)] = n
        self.add(-1, "name", names=((*self.place(path), n),))
        if data is None:
            self.tree[path] = n
        else:
            self.kernel[inode] = n
            self.size[n] = len(data)
            self.add(-1, "data", ino=n, data=data)
        for op in self.ops[-2:]:
            op.durable = -1

    def new(self, kind, owner=None):
        n, self.next = self.next, self.next + 1
        self.kind[n], self.size[n], self.owner[n] = kind, 0, owner
        return n

    def place(self, path):
        """(number of the directory, name), or None when it is not ours."""
        directory, _, name = path.rpartition("/")
        if path in self.roots:
            return None
        number = self.tree.get(directory)
        return (number, name) if number else None

    def below(self, path):
        return any(path == r or path.startswith(r + "/") for r in self.roots)

    def here(self, path):
        path = os.path.normpath(path) if path[:1] == "/" else path
        for there, here in self.places.items():
            if path == there or path.startswith(there + "/"):
                return here + path[len(there):]
        return path

    def add(self, at, kind, **more):
        self.ops.append(Op(kind, at, **more))

    def take(self, f):
        number, when, pid, role, phase, call, result, inode, path, other, data, owner = f
        at = len(self.events)
        if phase == "say":
            self.events.append((at, float(when), f"{role} says", bytes.fromhex(data)))
            return
        path, other = self.here(path), self.here(other)
        if call == "syncfs" and phase == "exit":
            for op in self.ops[:self.started.get((pid, inode), 0)]:
                op.durable = at if op.durable is None else op.durable
        if not self.below(path) and not self.below(other):
            if call == "syncfs":
                self.started[(pid, inode)] = len(self.ops)
            return
        if phase == "enter":
            self.started[(pid, inode)] = len(self.ops)
            return
        owner = (int(owner.split()[0], 8), *map(int, owner.split()[1:])) if owner else None
        if self.apply(at, SAME.get(call, call), int(inode), path, other, bytes.fromhex(data), pid, owner):
            self.events.append((at, float(when), f"{role} {call} {path.rpartition('/')[0].rpartition('/')[2]}", b""))

    def apply(self, at, call, inode, path, other, data, pid, owner):
        """Whether it is a moment of interest."""
        place = self.place(path)
        if call == "openat" and place:
            if place not in self.entries:
                self.entries[place] = self.kernel[inode] = self.new("file", owner)
                self.add(at, "name", names=((*place, self.entries[place]),))
            elif int(other) & O_TRUNC and self.size[self.entries[place]]:
                self.cut(at, self.entries[place], 0)
        elif call == "mkdirat" and place:
            n = self.entries[place] = self.tree[path] = self.new("dir", owner)
            self.kernel[inode] = n
            self.add(at, "name", names=((*place, n),))
        elif call in ("write", "pwrite64") and inode in self.kernel:
            n, offset = self.kernel[inode], int(other)
            self.size[n] = max(self.size[n], offset + len(data))
            self.add(at, "data", ino=n, offset=offset, data=data)
        elif call == "ftruncate" and inode in self.kernel:
            self.cut(at, self.kernel[inode], int(other))
        elif call == "renameat":
            self.rename(at, path, other)
        elif call == "linkat" and self.place(other):
            n = self.entries.get(place) or self.kernel.get(inode)  # by its name, or by a descriptor
            if n:
                self.entries[self.place(other)] = n
                self.add(at, "name", names=((*self.place(other), n),))
        elif call == "unlinkat" and place in self.entries:
            self.entries.pop(place)
            self.tree.pop(path, None)
            self.add(at, "name", names=((*place, 0),))
        elif call == "fchmod" and owner:
            n = self.kernel.get(inode) or self.tree.get(path)
            if n and self.owner[n]:
                self.add(at, "owner", ino=n, owner=owner)
        elif call == "fsync":
            self.sync(at, path, inode, self.started.get((pid, str(inode)), 0))
        else:
            return call in ("write", "pwrite64", "utimensat")
        return True

    def cut(self, at, n, size):
        self.size[n] = size
        self.add(at, "cut", ino=n, offset=size)

    def rename(self, at, path, other):
        old, new = self.place(path), self.place(other)
        if not old or not new or old not in self.entries:
            return
        n = self.entries.pop(old)
        self.entries[new] = n
        if self.kind[n] == "dir":
            for p in [p for p in self.tree if p == path or p.startswith(path + "/")]:
                self.tree[other + p[len(path):]] = self.tree.pop(p)
        if self.model == "posix" or (self.model == "twonames" and self.kind[n] == "file"):
            self.add(at, "name", names=((*new, n),))
            self.add(at, "name", names=((*old, 0),), first=self.ops[-1] if self.model == "twonames" else None)
        else:
            self.add(at, "name", names=((*old, 0), (*new, n)))

    def sync(self, at, path, inode, before):
        directory = self.tree.get(path)
        if self.drop and self.drop in path + "$":
            return
        n = directory or self.kernel.get(inode)
        if not n:
            return
        for op in self.ops[:before]:
            if op.durable is not None:
                continue
            if op.kind in ("data", "cut"):
                done = op.ino == n
            elif self.model == "journal":
                done = True
            elif op.kind == "owner":
                done = op.ino == n
            else:
                # The name of a new directory comes along with a sync of it, where file systems keep one journal.
                done = n in op.dirs or (self.model != "posix" and directory and any(x[2] == n for x in op.names))
            if done:
                op.durable = at
                if op.first and op.first.durable is None:
                    op.first.durable = at

    # ---- states ----

    def pending(self, point):
        """The operations before this point that a cut may undo, those that nobody can see left out."""
        out = []
        ops = [op for op in self.ops if op.at <= point]
        for i, op in enumerate(ops):
            if op.durable is not None and op.durable <= point:
                continue
            if self.model != "journal" and op.kind == "name" and all(
                    any(later.kind == "name" and later.durable is not None and later.durable <= point and
                        any(x[:2] == n[:2] for x in later.names) for later in ops[i + 1:]) for n in op.names):
                continue
            out.append(op)
        return ops, out

    def units(self, pending):
        """What is kept or lost as one, in the ways it may be: ("kept", operations) or ("file", number, how, how far)."""
        units, files = [], {}
        others = [op for op in pending if op.kind in ("name", "owner")]
        if self.model == "journal":
            units.append([("kept", tuple(others[:k])) for k in range(len(others) + 1)])
        else:
            second = {id(op.first): op for op in others if op.first}
            for op in others:
                if op.first in others:
                    continue
                ways = [("kept", ()), ("kept", (op,))]
                if id(op) in second:
                    ways.append(("kept", (op, second[id(op)])))
                units.append(ways)
        for op in pending:
            if op.kind in ("data", "cut"):
                files.setdefault(op.ino, []).append(op)
        for ino, ops in files.items():
            ways = [("file", ino, "none", 0)] + [("file", ino, "first", k) for k in range(1, len(ops))]
            ways += [("file", ino, "half", k) for k in range(len(ops))]
            zeros = [] if self.model == "journal" else [("file", ino, "zeros", len(ops))]
            units.append([*ways, *zeros, ("file", ino, "first", len(ops))])
        return units

    def choices(self, point, most=64):
        """(operations, those not durable, [ways]): all ways together when they are few, else the extremes."""
        ops, pending = self.pending(point)
        units = self.units(pending)
        n = 1
        for u in units:
            n *= len(u)
        return ops, pending, list(itertools.product(*units) if n <= most else self.extremes(units))

    def states(self, point, most=64):
        ops, pending, choices = self.choices(point, most)
        for choice in choices:
            yield self.build(ops, pending, choice)

    @staticmethod
    def extremes(units):
        kept, lost = [u[-1] for u in units], [u[0] for u in units]
        yield kept
        yield lost
        for base in (kept, lost):
            for i, u in enumerate(units):
                for way in u:
                    if way is not base[i]:
                        yield base[:i] + [way] + base[i + 1:]

    def build(self, ops, pending, choice):
        keep = {id(op) for way in choice if way[0] == "kept" for op in way[1]}
        files = {way[1]: way[2:] for way in choice if way[0] == "file"}
        unsure = {id(op) for op in pending}
        entries, data, seen, sure, owner = {}, {}, {}, {}, dict(self.owner)
        for op in ops:
            if op.kind in ("name", "owner"):
                if id(op) in unsure and id(op) not in keep:
                    continue
                if op.kind == "owner":
                    owner[op.ino] = op.owner
                for d, name, ino in op.names:
                    if ino:
                        entries[(d, name)] = ino
                    else:
                        entries.pop((d, name), None)
            else:
                k = 0
                if id(op) in unsure:
                    k = seen[op.ino] = seen.get(op.ino, 0) + 1
                self.write(data, op, files.get(op.ino), k, sure.get(op.ino, 0))
                if not k:
                    sure[op.ino] = len(data[op.ino])
        return self.paths(entries, data, owner)

    @staticmethod
    def write(data, op, way, k, sure):
        """k: the how manieth unsure one of its file this is; 0: it is sure. sure: the durable length."""
        bytes_, offset = op.data, op.offset
        if k and way:
            how, far = way
            if how == "none" or (how == "first" and k > far) or (how == "half" and k > far + 1):
                return
            if how == "half" and k == far + 1:
                bytes_ = bytes_[:len(bytes_) // 2]
            if how == "zeros":
                offset = max(offset, sure)
                bytes_ = bytes(max(0, op.offset + len(bytes_) - offset))
                if not bytes_ and op.kind != "cut":
                    return
        b = data.setdefault(op.ino, bytearray())
        if op.kind == "cut":
            del b[op.offset:]
            return
        if len(b) < offset:
            b.extend(bytes(offset - len(b)))
        b[offset:offset + len(bytes_)] = bytes_

    def paths(self, entries, data, owner):
        children = {}
        for (d, name), ino in entries.items():
            children.setdefault(d, []).append((name, ino))
        out = Tree()
        todo = [(root, i + 1) for i, root in enumerate(self.roots)]
        while todo:
            path, number = todo.pop()
            for name, ino in children.get(number, ()):
                p = f"{path}/{name}"
                out.owner[p], out.ino[p] = owner[ino], ino
                if self.kind[ino] == "dir":
                    out[p] = None
                    todo.append((p, ino))
                else:
                    out[p] = bytes(data.get(ino, b""))
        return out


def hash_of(tree):
    h = hashlib.sha256()
    for path in sorted(tree):
        h.update(path.encode(errors="surrogateescape") + b"\0" + (tree[path] if tree[path] is not None else b"/") + b"\0")
        h.update(repr(tree.owner.get(path)).encode())
    return h.hexdigest()
