"""What a disk may hold after a power cut: a record of file calls (see trace.c), turned into operations, and every state
that a file system that honours fsync may leave at a point in it.

The model. A sync of a file makes the bytes durable that were written before the sync began; a sync of a directory the
names made, moved and removed in it. What is not durable may be there or not:
- of a file's unsynced writes: none, the first k, half of the next one more, or the length without the bytes (zeros);
- of a directory's unsynced operations: any subset, whatever their order was.
A rename is one operation: the old name or the new one, never both or none (as ext4, XFS and Btrfs have it), durable with a
sync of either directory. With posix=True it is two: a sync of one directory says nothing about the other, and a new
directory has its name only by a sync of the one above.
"""
import hashlib
import itertools

O_CREAT = 0o100


class Op:
    """One change: of a file's bytes (ino, offset, data) or of names [(dir, name, ino or 0)]."""

    __slots__ = ("kind", "ino", "offset", "data", "names", "dirs", "durable", "at")

    def __init__(self, kind, at, ino=0, offset=0, data=b"", names=()):
        self.kind, self.at, self.ino, self.offset, self.data = kind, at, ino, offset, data
        self.names = names
        self.dirs = {n[0] for n in names}
        self.durable = None  # the event after which it is


class Record:
    """The operations below the roots (absolute paths), and events in their order."""

    def __init__(self, path, roots, dirs=(), drop=None, posix=False):
        """dirs: directories below the roots that were there before, the upper ones first."""
        self.roots, self.drop, self.posix = roots, drop, posix
        self.ops, self.events = [], []  # events: (line, time, text) that may be crash points
        self.tree = {}  # path of a directory -> its number
        self.entries = {}  # (dir, name) -> number
        self.kernel = {}  # the kernel's inode -> number
        self.size, self.kind = {}, {}
        self.next = 1
        self.started = {}  # (process, inode) -> how many operations there were
        for root in roots:
            self.tree[root] = self.new("dir")
        for d in dirs:
            self.add(-1, "name", names=((*self.place(d), self.new("dir")),))
            self.tree[d] = self.entries[self.place(d)] = self.next - 1
            self.ops[-1].durable = -1
        with open(path, errors="surrogateescape") as f:
            for line in f:
                self.take(line.rstrip("\n").split("\t"))

    def new(self, kind):
        n, self.next = self.next, self.next + 1
        self.kind[n], self.size[n] = kind, 0
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

    def add(self, at, kind, **more):
        self.ops.append(Op(kind, at, **more))

    def take(self, f):
        number, when, pid, role, phase, call, result, inode, path, other, data = f
        at = len(self.events)
        if phase == "say":
            self.events.append((at, float(when), f"{role} says", bytes.fromhex(data)))
            return
        if not self.below(path):
            return
        if phase == "enter":
            self.started[(pid, inode)] = len(self.ops)
            return
        self.apply(at, call, int(inode), path, other, bytes.fromhex(data), pid, inode)
        self.events.append((at, float(when), f"{role} {call} {path.rpartition('/')[0].rpartition('/')[2]}", b""))

    def apply(self, at, call, inode, path, other, data, pid, key):
        place = self.place(path)
        if call == "openat" and place and place not in self.entries:
            n = self.entries[place] = self.new("file")
            self.kernel[inode] = n
            self.add(at, "name", names=((*place, n),))
        elif call == "mkdirat" and place:
            n = self.entries[place] = self.new("dir")
            self.tree[path] = n
            self.add(at, "name", names=((*place, n),))
        elif call in ("write", "pwrite64") and inode in self.kernel:
            n = self.kernel[inode]
            offset = int(other) if call == "pwrite64" else self.size[n]
            self.size[n] = max(self.size[n], offset + len(data))
            self.add(at, "data", ino=n, offset=offset, data=data)
        elif call == "ftruncate" and inode in self.kernel:
            self.size[self.kernel[inode]] = int(other)
            self.add(at, "cut", ino=self.kernel[inode], offset=int(other))
        elif call.startswith("rename"):
            self.rename(at, path, other)
        elif call == "linkat" and path and self.place(other):
            old, new = self.place(path), self.place(other)
            if old in self.entries:
                self.entries[new] = self.entries[old]
                self.add(at, "name", names=((*new, self.entries[old]),))
        elif call == "unlinkat" and place and place in self.entries:
            self.entries.pop(place)
            self.add(at, "name", names=((*place, 0),))
        elif call in ("fsync", "fdatasync"):
            self.sync(at, path, inode, self.started.get((pid, key), 0))

    def rename(self, at, path, other):
        old, new = self.place(path), self.place(other)
        if not old or not new or old not in self.entries:
            return
        n = self.entries.pop(old)
        self.entries[new] = n
        if self.kind[n] == "dir":
            for p in [p for p in self.tree if p == path or p.startswith(path + "/")]:
                self.tree[other + p[len(path):]] = self.tree.pop(p)
        if self.posix:
            self.add(at, "name", names=((*new, n),))
            self.add(at, "name", names=((*old, 0),))
        else:
            self.add(at, "name", names=((*old, 0), (*new, n)))

    def sync(self, at, path, inode, before):
        directory = self.tree.get(path)
        if self.drop and self.drop in path:
            return
        n = directory or self.kernel.get(inode)
        for op in self.ops[:before]:
            if op.durable is not None:
                continue
            if op.kind != "name":
                done = op.ino == n
            else:
                # The name of a new directory comes along with a sync of it, where file systems keep one journal.
                done = n in op.dirs or (not self.posix and directory and any(x[2] == n for x in op.names))
            if done:
                op.durable = at

    # ---- states ----

    def pending(self, point):
        """The operations before this point that a cut may undo, those that nobody can see left out."""
        out = []
        ops = [op for op in self.ops if op.at <= point]
        for i, op in enumerate(ops):
            if op.durable is not None and op.durable <= point:
                continue
            if op.kind == "name" and all(
                    any(later.kind == "name" and later.durable is not None and later.durable <= point and
                        any(x[:2] == n[:2] for x in later.names) for later in ops[i + 1:]) for n in op.names):
                continue
            out.append(op)
        return ops, out

    def units(self, pending):
        """What is kept or lost as one: each operation on names; the bytes of each file, in the ways they may be."""
        units = [[("lost", op), ("kept", op)] for op in pending if op.kind == "name"]
        files = {}
        for op in pending:
            if op.kind != "name":
                files.setdefault(op.ino, []).append(op)
        for ino, ops in files.items():
            ways = [("none", ino, 0)] + [("first", ino, k) for k in range(1, len(ops))]
            ways += [("half", ino, k) for k in range(len(ops))] + [("zeros", ino, len(ops)), ("first", ino, len(ops))]
            units.append(ways)
        return units

    def states(self, point, most=64):
        """Trees as {path: bytes, or None for a directory}: all when they are few, else the extremes."""
        ops, pending = self.pending(point)
        units = self.units(pending)
        n = 1
        for u in units:
            n *= len(u)
        if n <= most:
            choices = itertools.product(*units)
        else:
            choices = self.extremes(units)
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
        keep, files = set(), {}
        for way in choice:
            if isinstance(way[1], Op):
                if way[0] == "kept":
                    keep.add(id(way[1]))
            else:
                files[way[1]] = way
        unsure = {id(op) for op in pending}
        entries, data, seen = {}, {}, {}
        for op in ops:
            if op.kind == "name":
                if id(op) in unsure and id(op) not in keep:
                    continue
                for d, name, ino in op.names:
                    if ino:
                        entries[(d, name)] = ino
                    else:
                        entries.pop((d, name), None)
            else:
                k = 0
                if id(op) in unsure:
                    k = seen[op.ino] = seen.get(op.ino, 0) + 1
                self.write(data, op, files.get(op.ino), k)
        return self.paths(entries, data)

    @staticmethod
    def write(data, op, way, k):
        """k: the how manieth unsure one of its file this is; 0: it is sure."""
        bytes_ = op.data
        if k and way:
            if way[0] == "none" or (way[0] == "first" and k > way[2]) or (way[0] == "half" and k > way[2] + 1):
                return
            if way[0] == "half" and k == way[2] + 1:
                bytes_ = bytes_[:len(bytes_) // 2]
            if way[0] == "zeros":
                bytes_ = bytes(len(bytes_))
        b = data.setdefault(op.ino, bytearray())
        if op.kind == "cut":
            del b[op.offset:]
            return
        if len(b) < op.offset:
            b.extend(bytes(op.offset - len(b)))
        b[op.offset:op.offset + len(bytes_)] = bytes_

    def paths(self, entries, data):
        children = {}
        for (d, name), ino in entries.items():
            children.setdefault(d, []).append((name, ino))
        out = {}
        todo = [(root, i + 1) for i, root in enumerate(self.roots)]
        while todo:
            path, number = todo.pop()
            for name, ino in children.get(number, ()):
                p = f"{path}/{name}"
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
    return h.hexdigest()
