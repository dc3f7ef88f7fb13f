#!/usr/bin/env python3
"""Messages a second, and the CPU time they cost: Bulkhead beside others, and what the disk gives, in one run.

smtp-source (from Debian's postfix) brings the messages. Rounds are interleaved and medians are told. Durability is the same for
all: the message is synced before 250 (Bulkhead syncs the name as well). "accept" is the queue alone: delivery is held back.
"maildir" and "relay" end when the last message lies in the Maildir or is with the other host.
CPU: of all processes of a system, ended ones too (a cgroup each), until it is quiet again.
The bare loop: P processes create, write, fsync, rename, and sync the directory. The bare server does that behind the least of
an SMTP dialogue, with a process for each connection: no server that has one gets above it.

Without --all: accepting, one message a connection, beside Postfix. With it: every way, every peer.
TMPDIR says which file system; ext4 without a journal is slow for minutes after many removals. --flush-ms N: an ext4 of its own, on a
disk whose flush takes that long.
"""
import argparse
import os
import shutil
import statistics
import sys
import tempfile
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from systems import SYSTEMS, Bare, Bulkhead, Postfix  # noqa: E402
from slow_disk import SlowDisk  # noqa: E402

K4, M25 = 4096, 25 << 20


class Load:
    """sessions at once; messages in all; each of size bytes; on a connection each, or many on one."""

    def __init__(self, way, sessions, messages, size=K4, many=False, goal=None, without=()):
        self.way, self.sessions, self.messages, self.size, self.many, self.goal = way, sessions, messages, size, many, goal
        self.without = without

    def __str__(self):
        return (f"{self.way:8} {self.sessions:4} {'many' if self.many else 'one':>5} "
                f"{'25 MiB' if self.size == M25 else '4 KiB':>7}")


def loads(everything, n):
    if not everything:
        return [Load("accept", 1, n // 4), Load("accept", 20, n, goal=(1.5, 0.6, 1 / 2)),
                Load("accept", 100, n, goal=(1.5, 0.6, 1 / 2))]
    return [Load("accept", 1, n // 4), Load("accept", 20, n, goal=(4, 0.7, 1 / 3)), Load("accept", 100, n, goal=(4, 0.7, 1 / 3)),
            Load("accept", 500, n, without=("OpenSMTPD",)),  # it listens with a backlog of 5
            Load("accept", 1, n // 4, many=True), Load("accept", 20, n, many=True),
            Load("accept", 100, n, many=True), Load("accept", 4, 20, M25), Load("maildir", 20, n, goal=(3, None, 1 / 3)),
            Load("maildir", 20, n, many=True), Load("relay", 20, n, goal=(3, None, 1 / 3)), Load("relay", 20, n, many=True)]


def measured(kind, load):
    """The bare server takes one message a connection, and leads it nowhere."""
    fits = kind is not Bare or (load.way == "accept" and not load.many and load.size == K4)
    return fits and kind.name not in load.without


def measure(system, load):
    """Messages a second, and CPU seconds for 1,000 of them."""
    before, cpu = system.delivered(), system.cgroup.cpu()
    start = time.monotonic()
    system.source("-s", str(load.sessions), "-m", str(load.messages), "-l", str(load.size), *(["-d"] if load.many else []))
    while load.way != "accept" and system.delivered() < before + load.messages:
        if time.monotonic() > start + 300:
            raise RuntimeError(f"{system.name}: {system.delivered() - before} of {load.messages} delivered after 300 s")
        time.sleep(0.01)
    took = time.monotonic() - start
    while True:  # until it is quiet
        used = system.cgroup.cpu()
        time.sleep(0.5)
        if not system.cgroup.path or system.cgroup.cpu() - used < 0.01 or time.monotonic() > start + took + 30:
            break
    return load.messages / took, (system.cgroup.cpu() - cpu) * 1000 / load.messages


def bare(load, directory):
    """The same from the disk alone. Files stay until the end."""
    data = b"x" * load.size
    start = time.monotonic()
    pids = []
    processes = min(load.sessions, load.messages)
    for k in range(processes):
        pid = os.fork()
        if pid == 0:
            fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
            for i in range(load.messages // processes):
                tmp, new = f"t{start}.{k}.{i}", f"n{start}.{k}.{i}"
                f = os.open(tmp, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=fd)
                os.write(f, data)
                os.fsync(f)
                os.rename(tmp, new, src_dir_fd=fd, dst_dir_fd=fd)
                os.fsync(fd)
                os.close(f)
            os._exit(0)
        pids.append(pid)
    for pid in pids:
        os.waitpid(pid, 0)
    return (load.messages // processes) * processes / (time.monotonic() - start)


class Bench:
    def __init__(self, rounds, kinds):
        self.rounds, self.kinds = rounds, kinds
        self.passed = self.failed = 0
        self.scratch = tempfile.mkdtemp(prefix="bench-bare-")
        self.systems = []

    def use(self, way):
        for s in self.systems:
            s.stop()
        self.systems = []
        for kind in self.kinds:
            if kind is not Bare or way == "accept":
                self.systems.append(kind(way))

    def row(self, load):
        systems = [s for s in self.systems if measured(type(s), load)]
        got, disk = {s: [] for s in systems}, []
        for r in range(self.rounds + 1):
            for s in systems:
                one = measure(s, load)
                if r:  # the first is a warm-up
                    got[s].append(one)
            if r:
                disk.append(bare(load, self.scratch))
        loop = statistics.median(disk)
        rate = {s.name: statistics.median(x[0] for x in got[s]) for s in systems}
        cpu = {s.name: statistics.median(x[1] for x in got[s]) for s in systems}
        print(load, " ".join(f"{rate[k.name]:9.0f} {cpu[k.name]:6.2f}" if k.name in rate else f"{'-':>9} {'-':>6}"
                             for k in self.kinds), f"{loop:9.0f}",
              f"{rate['Bulkhead'] / rate['Postfix']:6.2f} {cpu['Bulkhead'] / cpu['Postfix']:6.2f} {rate['Bulkhead'] / loop:7.0%}",
              flush=True)
        if load.goal:
            self.judge(load, rate, cpu, loop)

    def judge(self, load, rate, cpu, loop):
        times, share, part = load.goal
        want = times * rate["Postfix"] if share is None else min(times * rate["Postfix"], share * loop)
        for ok, what in ((rate["Bulkhead"] >= want, f"at least {want:.0f} a second"),
                         (cpu["Bulkhead"] <= cpu["Postfix"] * part, f"at most {part:.2f} of Postfix's CPU a message")):
            self.passed += ok
            self.failed += not ok
            print(f"{'ok  ' if ok else 'FAIL'} {load.way}, {load.sessions} sessions: {what}")

    def stop(self):
        for s in self.systems:
            s.stop()
        shutil.rmtree(self.scratch, ignore_errors=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--messages", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--only", help="rows whose text has this")
    parser.add_argument("--two", action="store_true", help="beside Postfix only")
    parser.add_argument("--flush-ms", type=float)
    args = parser.parse_args()
    disk = SlowDisk(args.flush_ms) if args.flush_ms else None
    if disk:
        tempfile.tempdir = disk.at
    try:
        run(args)
    finally:
        if disk:
            disk.end()


def run(args):
    bench = Bench(args.rounds, SYSTEMS if args.all and not args.two else (Bulkhead, Postfix, Bare))
    print(f"{args.messages} messages a round, medians of {args.rounds} rounds; for each a second, and CPU s for 1,000\n")
    print(f"{'way':8} {'sess':>4} {'msgs':>5} {'size':>7} "
          + " ".join(f"{k.name + '/s':>9} {'cpu':>6}" if len(k.name) < 8 else f"{k.name:>9} {'cpu':>6}" for k in bench.kinds)
          + f" {'loop/s':>9} {'ratio':>6} {'cpu':>6} {'of loop':>7}")
    way = None
    try:
        for load in loads(args.all, args.messages):
            if args.only and args.only not in str(load):
                continue
            if load.way != way:
                way = load.way
                bench.use(way)
            bench.row(load)
    finally:
        bench.stop()
    print(f"{bench.passed} passed, {bench.failed} failed")
    sys.exit(1 if bench.failed else 0)


main()
