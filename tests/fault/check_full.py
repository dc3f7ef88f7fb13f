#!/usr/bin/env python3
"""Disks that are full, for real: queue and mailboxes lie on one that has no room, no inodes, or is at its quota (a Btrfs
qgroup: EDQUOT) from moment to moment, while clients send. Each answer is 250 or 4xx; then there is room again, the queue
drains, and what was answered with 250 is there, whole, and in a mailbox once. Ends with "N passed, N failed".

check_full.py [--all] [--seconds N]: with --all a minute for each, else a few seconds."""
import argparse
import os
import random
import subprocess
import sys
import tempfile
import threading
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from peers import Bulkhead  # noqa: E402
from rig import Client, Report, alone, compare  # noqa: E402

RCPTS = (("box",), ("both", "gone"), ("bin", "box"), ("slow",), ("team",), ("gone",))
SENDERS = 6
IMAGE = 160 << 20
KIB = 1024


def sh(*args):
    subprocess.run(args, check=True, capture_output=True)


def unmount(at):
    for _ in range(100):
        if subprocess.run(["umount", at], capture_output=True).returncode == 0:
            return
        time.sleep(0.1)


class Disk:
    """A file system in a file. fill(left): little is left of something; free(): there is enough."""

    make = ["mkfs.ext4", "-q", "-F", "-m", "0"]
    kind, lefts = "ext4", (0, 16 * KIB, 100 * KIB, 17 << 20)

    def __init__(self, at):
        self.at, self.image = at, tempfile.mktemp(prefix="bulkhead-disk-", dir="/dev/shm" if os.path.isdir("/dev/shm") else None)
        with open(self.image, "wb") as f:
            f.truncate(IMAGE)
        try:
            sh(*self.make, self.image)
            sh("mount", "-t", self.kind, "-o", "loop", self.image, at)
        except (OSError, subprocess.CalledProcessError):
            os.unlink(self.image)
            raise
        self.filler = at + "/filler"

    def fill(self, left):
        st = os.statvfs(self.at)
        with open(self.filler, "ab") as f:
            take = st.f_bavail * st.f_frsize - left
            while take >= 4 * KIB:
                try:
                    os.posix_fallocate(f.fileno(), os.fstat(f.fileno()).st_size, take)
                except OSError:
                    pass
                take //= 2

    def free(self):
        if os.path.exists(self.filler):
            os.unlink(self.filler)

    def end(self):
        unmount(self.at)
        os.unlink(self.image)


class Inodes(Disk):
    make = [*Disk.make, "-N", "1200"]
    lefts = (0, 1, 3, 20, 101)

    def fill(self, left):
        os.makedirs(self.filler, exist_ok=True)
        names = len(os.listdir(self.filler))
        for k in range(names, names + os.statvfs(self.at).f_ffree - left):
            try:
                open(f"{self.filler}/{k}", "x").close()
            except OSError:
                return

    def free(self):
        if os.path.isdir(self.filler):
            for name in os.listdir(self.filler):
                os.unlink(f"{self.filler}/{name}")


class Quota(Disk):
    """A subvolume with a limit; orders come from above it, where there is none."""

    make = ["mkfs.btrfs", "-q", "-f"]
    kind, lefts = "btrfs", (0, 64 * KIB, 256 * KIB, KIB * KIB)

    def __init__(self, at):
        self.top = tempfile.mkdtemp(prefix="bulkhead-top-")
        super().__init__(self.top)
        self.at = at
        sh("btrfs", "quota", "enable", self.top)
        sh("btrfs", "subvolume", "create", self.top + "/v")
        sh("mount", "--bind", self.top + "/v", at)

    def fill(self, left):
        out = subprocess.run(["btrfs", "qgroup", "show", "--raw", "--sync", self.top], capture_output=True, text=True).stdout
        used = next((int(line.split()[1]) for line in out.split("\n") if line.startswith("0/256 ")), 0)
        sh("btrfs", "qgroup", "limit", str(max(used + left, 4 * KIB)), "0/256", self.top)

    def free(self):
        sh("btrfs", "qgroup", "limit", "none", "0/256", self.top)

    def end(self):
        unmount(self.at)
        self.at = self.top
        super().end()
        os.rmdir(self.top)


class Sender(threading.Thread):
    def __init__(self, peer, number):
        super().__init__(daemon=True)
        self.peer, self.number, self.sent, self.over = peer, number, 0, False
        self.client = Client(peer.port, 30)

    def run(self):
        while not self.over:
            size = 60_000 if self.sent % 4 == 1 else 300
            self.peer.send(self.client, f"t{self.number}-{self.sent}", RCPTS[self.sent % len(RCPTS)], size)
            self.sent += 1
            time.sleep(0.02)


def run(r, name, kind, seconds):
    peer = Bulkhead(extra="message-size 1M\n")
    disk = None
    try:
        try:
            disk = kind(peer.disk)
        except (OSError, subprocess.CalledProcessError) as e:
            print(f"{name:<8} left out: {e}")
            return
        peer.prepare()
        peer.start()
        peer.suite.ready()
        senders = [Sender(peer, n) for n in range(SENDERS)]
        for s in senders:
            s.start()
        chance, end, times = random.Random(name), time.time() + seconds, 0
        while time.time() < end:
            time.sleep(chance.uniform(0.1, 0.5))
            disk.fill(chance.choice(disk.lefts))
            times += 1
            time.sleep(chance.uniform(0.2, 0.8))
            disk.free()
        for s in senders:
            s.over = True
        for s in senders:
            s.join()
        answers = [a for s in senders for a, *_ in s.client.told.values()]
        drained = peer.drain(90)
        restarts = peer.restarts()
        told = {k: v for s in senders for k, v in s.client.told.items()}
        result = compare(told, peer.boxes(), peer.host.got)
        taken, later = (sum(a.startswith(x) for a in answers) for x in ("250", "4"))
        codes = sorted({a[:3] for a in answers})
        print(f"{name:<8} {times:>6} {len(answers):>9} {taken:>6} {later:>6} {len(answers) - taken - later:>6} {result.promised:>9} "
              f"{len(result.lost):>5} {len(result.twice):>6} {len(result.cut):>4} {len(result.again):>6} {restarts:>9}", flush=True)
        r.check(f"{name}: 250 or 4xx, and both", taken and later and taken + later == len(answers),
                f"{codes} {[a for a in answers if a[:1] not in '24'][:3]}")
        r.check(f"{name}: nothing lost, cut, or twice in a Maildir", result.ok(), result.text())
        r.check(f"{name}: drained", drained, str(peer.queued()[:5]))
        if r.failed:
            print(peer.suite.tail(30))
    finally:
        peer.stop()
        if disk:
            disk.end()
        peer.remove()


def main():
    alone()
    a = argparse.ArgumentParser()
    a.add_argument("--all", action="store_true")
    a.add_argument("--seconds", type=float, default=6)
    a.add_argument("--only")
    o = a.parse_args()
    if os.geteuid() != 0:
        print("left out: mounting takes root\n0 passed, 0 failed")
        return
    r = Report()
    print(f"{'disk':<8} {'filled':>6} {'messages':>9} {'250':>6} {'4xx':>6} {'other':>6} {'promises':>9} {'lost':>5} {'twice':>6} "
          f"{'cut':>4} {'again':>6} {'restarts':>9}")
    for name, kind in (("room", Disk), ("inodes", Inodes), ("quota", Quota)):
        if o.only and name != o.only:
            continue
        run(r, name, kind, 60 if o.all else o.seconds)
    r.end()


main()
