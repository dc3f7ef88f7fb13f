#!/usr/bin/env python3
"""The power goes at a random instant, on a real file system: queue and mailboxes lie on ext4, XFS or Btrfs on a disk that
remembers every write and flush (blocklog.c). While clients send, all is logged once; then for each cut a disk is made that
holds what was flushed before it and any part of what was written since, and mounted; the suite is started on it and drained,
and what came is compared with what clients had read before the cut. Ends with "N passed, N failed".

check_powercut.py [--cuts N] [--fs ext4,xfs,...] [--peer bulkhead|postfix|exim|opensmtpd] [--minutes N]: the file systems are FS.
A file system whose tools or whose driver are missing is left out, and said; it counts as neither."""
import argparse
import os
import random
import shutil
import struct
import subprocess
import sys
import tempfile
import threading
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from peers import PEERS  # noqa: E402
from rig import BUILD, Client, alone, compare  # noqa: E402
from mounted import Mounted  # noqa: E402

BLOCKLOG = os.path.join(BUILD, "fault", "blocklog")
HEAD = struct.Struct("<QQq")
FLUSH = 2 ** 64 - 1
EXT4 = ["mkfs.ext4", "-q", "-F", "-E", "nodiscard,lazy_itable_init=0,lazy_journal_init=0"]
XFS = ["mkfs.xfs", "-q", "-K", "-f"]


class Fs:
    """How it is made and mounted, its size in MiB, and what the disk writes whole: units of so many bytes; blocks of
    4,096 that begin as XFS's metadata do, if so said; and what mends it before it is mounted, if nothing in it does."""

    def __init__(self, kind, make, size, options="", unit=512, blocks=False, mend=()):
        self.kind, self.make, self.size, self.unit, self.blocks, self.mend = kind, make, size, unit, blocks, mend
        self.options = "noatime" + ("," + options if options else "")


FS = {"ext4": Fs("ext4", EXT4, 128, "data=ordered"),
      "ext4-writeback": Fs("ext4", EXT4, 128, "data=writeback"),
      "ext4-journal": Fs("ext4", EXT4, 128, "data=journal"),
      "ext4-1k": Fs("ext4", [*EXT4, "-b", "1024"], 128),
      # Each block is written by itself; of a directory's block that is torn e2fsck may make less.
      "ext4-nojournal": Fs("ext4", [*EXT4, "-O", "^has_journal"], 128, unit=4096, mend=["e2fsck", "-fy"]),
      # XFS tells what it has to replay in a metadata block by a number in its first sector. Where only that has arrived it
      # replays nothing, and finds a wrong checksum (docs/RELIABILITY.md); ext4 and Btrfs bear it.
      "xfs": Fs("xfs", XFS, 320, "nouuid", 4096),
      "xfs-512": Fs("xfs", [*XFS, "-s", "size=512", "-i", "size=512"], 320, "nouuid", 512, True),
      "xfs-torn": Fs("xfs", [*XFS, "-s", "size=512"], 320, "nouuid", 512),
      "btrfs": Fs("btrfs", ["mkfs.btrfs", "-q", "-K", "-f"], 160)}
# Directory, B-tree, attribute and symbolic link blocks, by the number they begin with, or have at 8.
XFS_MAGIC = {b"XDB3", b"XDD3", b"XDF3", b"AB3B", b"AB3C", b"IAB3", b"FIB3", b"BMA3", b"RMB3", b"R3FC", b"XSLM", b"XARM"}
XFS_MAGIC_8 = {b"\x3e\xbe", b"\x3d\xf1", b"\x3d\xff", b"\x3b\xee"}
RCPTS = (("box",), ("both", "gone"), ("bin", "box"), ("slow",), ("team",), ("gone",))
FAST = "/dev/shm" if os.path.isdir("/dev/shm") else None


def sh(*args):
    p = subprocess.run(args, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    if p.returncode:
        raise RuntimeError(f"{' '.join(args)}: {p.stderr.strip()}")


def why_not(fs):
    """Why this file system cannot be tried here, or ''."""
    if os.geteuid() != 0:
        return "mounting takes root"
    if not shutil.which(FS[fs].make[0]):
        return f"no {FS[fs].make[0]}"
    for what, where in ((FS[fs].kind, "/proc/filesystems"), ("fuse", "/proc/filesystems")):
        with open(where) as f:
            if what not in f.read().split():
                return f"the kernel has no {what}"
    if not os.path.exists("/dev/loop-control") or not os.path.exists("/dev/fuse"):
        return "no loop devices or no /dev/fuse"
    return ""


def mounted(image, at, fs):
    """The disks of several cuts have one UUID."""
    fs = FS[fs]
    if fs.mend and subprocess.run([*fs.mend, image], stdin=subprocess.DEVNULL, capture_output=True).returncode > 1:
        raise RuntimeError(f"{' '.join(fs.mend)} does not mend it")
    return Mounted(image, at, fs.kind, fs.options)


class Logged:
    """A run of a peer on a logged disk: the image of before, the log, and what clients and the other host saw."""

    def __init__(self, peer, fs, directory, messages, senders):
        self.peer, self.fs = peer, fs
        self.base, self.log = f"{directory}/base", f"{directory}/log"
        image, at = f"{directory}/image", f"{directory}/blocklog"
        with open(self.base, "wb") as f:
            f.truncate(FS[fs].size << 20)
        sh(*FS[fs].make, self.base)
        m = mounted(self.base, peer.disk, fs)
        peer.prepare()
        m.end()
        sh("cp", "--sparse=always", self.base, image)
        os.mkdir(at)
        block = subprocess.Popen([BLOCKLOG, image, self.log, at], stdout=subprocess.PIPE, text=True)
        if block.stdout.readline().strip() != "ready":
            raise RuntimeError("blocklog does not run")
        try:
            m = mounted(f"{at}/disk", peer.disk, fs)
            try:
                peer.start()
                self.clients = self.send(messages, senders)
                peer.drain(60)
                peer.stop()
            finally:
                m.end()
        finally:
            time.sleep(0.2)
            subprocess.run(["umount", at])
            block.wait(20)
        os.unlink(image)
        self.host = list(peer.host.timed)
        self.records = self.read()

    def send(self, messages, senders):
        clients = [Client(self.peer.port) for _ in range(senders)]

        def run(k):
            for i in range(messages // senders):
                size = 150_000 if i % 17 == 5 else 300
                self.peer.send(clients[k], f"t{k}-{i}", RCPTS[(i + k) % len(RCPTS)], size)
        threads = [threading.Thread(target=run, args=(k,)) for k in range(senders)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        return clients

    def read(self):
        """[(offset of the bytes in the log, offset on the disk, length, time)]; a flush has length 0."""
        out, at, size = [], 0, os.path.getsize(self.log)
        with open(self.log, "rb") as f:
            while at + HEAD.size <= size:
                f.seek(at)
                offset, length, when = HEAD.unpack(f.read(HEAD.size))
                out.append((at + HEAD.size, offset, length, when / 1e9))
                at += HEAD.size + length
        return out

    def told(self, when):
        """What the clients had read by then."""
        told = {}
        for c in self.clients:
            for token, (answer, rcpts, size) in c.told.items():
                told[token] = (answer if c.when.get(token, 1e18) < when else "", rcpts, size)
        return told

    def span(self):
        """The first and the last record while clients were being served."""
        first = min(min(c.when.values()) for c in self.clients)
        last = max(max(c.when.values()) for c in self.clients)
        times = [r[3] for r in self.records]
        return (next(i for i, t in enumerate(times) if t >= first - 0.05),
                next((i for i, t in enumerate(times) if t > last + 2), len(times) - 1))


class Disk:
    """An image that follows a log, and gives disks as cuts leave them. Cuts come in rising order."""

    def __init__(self, logged, directory):
        self.logged, self.path, self.at = logged, f"{directory}/durable", 0
        sh("cp", "--sparse=always", logged.base, self.path)
        self.f = open(self.path, "r+b")
        self.log = open(logged.log, "rb")

    def data(self, record):
        self.log.seek(record[0])
        return self.log.read(record[2])

    def put(self, f, record):
        f.seek(record[1])
        f.write(self.data(record))

    def tear(self, f, record, rng):
        """Any part of it, in what the disk writes whole."""
        fs, data = FS[self.logged.fs], self.data(record)
        parts, at = [], 0
        while at < len(data):
            meta = fs.blocks and (data[at:at + 4] in XFS_MAGIC or data[at + 8:at + 10] in XFS_MAGIC_8)
            parts.append((at, 4096 if meta else fs.unit))
            at += parts[-1][1]
        for at, n in rng.sample(parts, rng.randint(0, len(parts))):
            f.seek(record[1] + at)
            f.write(data[at:at + n])

    def cut(self, point, rng, to, lie=0):
        """Writes a disk to `to`: records up to `point` have been written. lie: so many that were flushed are lost, too."""
        records = self.logged.records
        flushed = max((i for i in range(point + 1) if records[i][1] == FLUSH), default=0)
        sure = flushed if not lie else max(0, point - lie)
        while self.at < sure:
            if records[self.at][1] != FLUSH:
                self.put(self.f, records[self.at])
            self.at += 1
        self.f.flush()
        sh("cp", "--sparse=always", self.path, to)
        if lie:
            return "lie", 0
        since = [r for r in records[sure:point + 1] if r[1] != FLUSH]
        how = rng.choice(("all", "none", "some", "some", "torn"))
        with open(to, "r+b") as f:
            for r in since:
                if how == "all" or (how == "some" and rng.random() < 0.5):
                    self.put(f, r)
                elif how == "torn":
                    self.tear(f, r, rng)
        return how, len(since)


class Cuts:
    """All cuts of one log, shared by workers; the results."""

    def __init__(self, minutes):
        self.end = time.time() + 60 * minutes
        self.lock = threading.Lock()
        self.done = self.again = self.unsure = self.promised = self.lost = self.left = 0
        self.twice, self.failures = 0, []

    def work(self, peer, logged, points, seed, directory, lie=0):
        disk = Disk(logged, directory)
        rng = random.Random(seed)
        for point in points:
            if time.time() > self.end:
                with self.lock:
                    self.left += 1
                continue
            try:
                how, since = disk.cut(point, rng, f"{directory}/cut", lie)
                result, problem = self.one(peer, logged, point, f"{directory}/cut")
            except Exception as e:  # noqa: BLE001
                how, since, result, problem = "?", 0, None, f"{type(e).__name__}: {e}"
            with self.lock:
                self.done += 1
                self.unsure += since
                if result:
                    self.again += bool(result.again)
                    self.promised += result.promised
                    self.lost += len(result.lost)
                    self.twice += len(result.twice)
                if problem:
                    self.failures.append(f"cut at record {point} ({how} of {since}): {problem}")

    @staticmethod
    def one(peer, logged, point, image):
        when = logged.records[point][3]
        m = mounted(image, peer.disk, logged.fs)
        peer.host.got.clear()
        try:
            peer.start()
            drained = peer.drain(40)
            peer.stop()
            boxes = peer.boxes()
        finally:
            peer.stop()
            m.end()
        far = [g for g, t in logged.host if t <= when] + peer.host.got
        result = compare(logged.told(when), boxes, far)
        problems = [] if drained else ["the queue does not drain"]
        if result.lost or result.cut or (result.twice and peer.promises_once):
            problems.append(result.text())
        return result, "; ".join(problems)


def run(peer_class, fs, cuts, minutes, messages, lie=0):
    """(Cuts, records of the log, messages with 250)"""
    directory = tempfile.mkdtemp(prefix="bulkhead-disk-", dir=FAST)
    os.chmod(directory, 0o755)
    # Btrfs knows file systems by their UUID: one at a time.
    peers = [peer_class() for _ in range(1 if FS[fs].kind == "btrfs" else 2)]
    try:
        logged = Logged(peers[0], fs, directory, messages, 4)
        first, last = logged.span()
        rng = random.Random(fs)
        points = sorted(rng.randint(first, last) for _ in range(cuts))
        c = Cuts(minutes)
        threads = []
        for k, peer in enumerate(peers):
            own = f"{directory}/{k}"
            os.mkdir(own)
            threads.append(threading.Thread(target=c.work, args=(peer, logged, points[k::len(peers)], k, own, lie),
                                            daemon=True))
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        accepted = sum(len(x.accepted()) for x in logged.clients)
        return c, len(logged.records), accepted
    finally:
        for m in list(Mounted.all):
            m.end()
        for p in peers:
            p.remove()
        shutil.rmtree(directory, ignore_errors=True)


def main():
    alone()
    a = argparse.ArgumentParser()
    a.add_argument("--cuts", type=int, default=6)
    a.add_argument("--fs", default="ext4")
    a.add_argument("--peer", default="bulkhead", choices=list(PEERS))
    a.add_argument("--minutes", type=float, default=10)
    a.add_argument("--messages", type=int, default=120)
    a.add_argument("--no-control", action="store_true")
    o = a.parse_args()
    passed = failed = 0
    print(f"{'system':<10} {'disk':<15} {'cuts':>5} {'messages':>9} {'writes':>7} {'unsure':>7} {'promises':>9} {'lost':>5} "
          f"{'twice':>6} {'again':>6} {'wrong':>6}")
    jobs = [(fs, 0) for fs in o.fs.split(",")]
    if not o.no_control:
        jobs.append((o.fs.split(",")[0], 300))
    for fs, lie in jobs:
        reason = why_not(fs)
        if reason:
            print(f"{o.peer:<10} {fs:<15} left out: {reason}")
            continue
        c, writes, accepted = run(PEERS[o.peer], fs, o.cuts if not lie else min(o.cuts, 20), o.minutes, o.messages, lie)
        print(f"{o.peer:<10} {fs + (' lying' if lie else ''):<15} {c.done:>5} {accepted:>9} {writes:>7} {c.unsure:>7} "
              f"{c.promised:>9} {c.lost:>5} {c.twice:>6} {c.again:>6} {len(c.failures):>6}"
              + (f"  {c.left} left out for want of time" if c.left else ""), flush=True)
        if lie:
            # A disk that loses what it said was flushed: the rig must see mail lost, or it sees nothing.
            passed += bool(c.failures)
            failed += not c.failures
            continue
        for text in c.failures[:20]:
            print("FAIL", text)
        passed += c.done - len(c.failures)
        failed += len(c.failures)
    print(f"{passed} passed, {failed} failed")
    sys.exit(bool(failed))


main()
