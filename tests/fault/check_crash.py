#!/usr/bin/env python3
"""The power goes at every point: messages are accepted, expanded, delivered, put off and bounced while all their file calls
are recorded; then every state that the disk may be in after a cut at each point is laid out, the system is started on it and
drained, and what came is compared with what clients had been told. See disk.py for the models of a file system. The same for
Bulkhead and for Postfix, Exim and OpenSMTPD; it fails for Bulkhead only. Ends with "N passed, N failed".

check_crash.py [--all] [--minutes N] [--states N] [--model strict,journal,twonames,posix] [--peer bulkhead,postfix,exim,opensmtpd]
Without --all so many states of each (20), by chance. Controls, for Bulkhead, leave out the syncs of new messages, of the queue's new/ and cur/
and of the Maildir from the record, and must find a loss."""
import argparse
import collections
import glob
import os
import random
import shutil
import sys
import tempfile
import threading
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from disk import MODELS, Record, hash_of, snapshot  # noqa: E402
from peers import PEERS  # noqa: E402
from rig import Client, Traced, compare, wait_for  # noqa: E402

MESSAGES = (("first", ("box",), 200), ("many", ("both", "gone"), 200), ("large", ("bin",), 200_000),
            ("two", ("bin", "box"), 100), ("late", ("slow",), 100))
OURS = (("asked", ("told", "slow"), 100),)  # with a report of success
WAITS, AFTER = ("waits", ("slow",), 100), ("after", ("box",), 100)  # put off for so long that it has lost its name in new/
CANDIDATES, IN_A_SLICE = 12_000, 1_500  # looked at for being distinct
DRAIN_S = 20


class Recorded:
    """A run of a system: the record of its file calls, what was there before, what clients and the other host saw."""

    def __init__(self, kind):
        self.path = tempfile.mktemp(prefix="bulkhead-record-")
        self.peer = peer = PEERS[kind]()
        try:
            self.run(peer, kind)
        finally:
            peer.stop()

    def run(self, peer, kind):
        peer.prepare()
        peer.start()
        self.client = Client(peer.port)
        self.answered = {}  # token -> the answer's bytes
        processes = peer.processes()
        self.before = snapshot(peer.roots())
        t = Traced(processes, "-o", self.path)
        for token, rcpts, size in MESSAGES + (OURS if kind == "bulkhead" else ()):
            self.send(peer, token, rcpts, size)
        if kind == "bulkhead":
            self.long_wait(peer)
        time.sleep(0.3)
        assert peer.drain(30), "the queue does not drain"
        t.end()
        self.told, self.far = self.client.told, list(peer.host.timed)

    def send(self, peer, token, rcpts, size):
        answer = peer.send(self.client, token, rcpts, size)
        assert answer.startswith("250"), self.client.told
        self.answered[token] = answer.encode().rstrip()

    def long_wait(self, peer):
        peer.host.slow_answers = 10 ** 6
        for message in (WAITS, AFTER):
            self.send(peer, *message)
            wait_for(lambda: not glob.glob(peer.disk + "/queue/new/*"), 20)
        peer.host.slow_answers = 0

    def record(self, model, drop):
        return Record(self.path, self.peer.roots(), (), drop, model=model, before=self.before, places=self.peer.places)

    def remove(self):
        self.peer.remove()
        if os.path.exists(self.path):
            os.unlink(self.path)


class Crash:
    """A state, and what had been promised and had left the host when the power went."""

    def __init__(self, rec, point, what, choice, told, far):
        self.rec, self.point, self.what, self.choice, self.told, self.far = rec, point, what, choice, told, far

    def tree(self):
        ops, pending, choices = self.rec.choices(self.point)
        return self.rec.build(ops, pending, choices[self.choice])


def crashes(recorded, rec, rng, most):
    """Distinct ones, and how many there are before like ones are put together; of more than `most`, those of some."""
    every, told = [], {}
    for at, when, what, said in rec.events:
        if said:
            token = next((t for t, answer in recorded.answered.items() if answer in said), None)
            if not token:
                continue
            told = {**told, token: recorded.told[token]}
        far = [g for g, t in recorded.far if t <= when]
        every += [(at, what, i, told, far) for i in range(len(rec.choices(at)[2]))]
    assert set(told) == set(recorded.answered), f"the record has no answer for {set(recorded.answered) - set(told)}"
    some = sorted(rng.sample(range(len(every)), min(len(every), most)))
    seen, out, last, parts = set(), [], None, None
    for n in some:
        at, what, i, told, far = every[n]
        if at != last:
            last, parts = at, rec.choices(at)
        key = (hash_of(rec.build(*parts[:2], parts[2][i])), len(told), len(far))
        if key not in seen:
            seen.add(key)
            out.append(Crash(rec, at, what, i, told, far))
    return out, len(every)


class Worker:
    """A system whose queue and mail are replaced by a state before each start."""

    def __init__(self, kind, recorded):
        self.peer, self.recorded = PEERS[kind](), recorded
        self.peer.prepare()
        self.peer.host.slow_answers = 0
        self.swap = (recorded.peer.disk.encode(), self.peer.disk.encode())

    def lay_out(self, tree):
        made, now = {}, time.time() - 1
        for here in self.peer.roots():
            for name in os.listdir(here):
                path = f"{here}/{name}"
                shutil.rmtree(path) if os.path.isdir(path) else os.unlink(path)
        for path in sorted(tree):
            to = self.peer.disk + path[len(self.recorded.peer.disk):]
            if tree[path] is None:
                os.mkdir(to)
            elif tree.ino[path] in made:
                os.link(made[tree.ino[path]], to)
                continue
            else:
                data = tree[path].replace(*self.swap) if len(self.swap[0]) == len(self.swap[1]) else tree[path]
                with open(to, "wb") as f:
                    f.write(data)
                made[tree.ino[path]] = to
            if tree.owner[path]:
                mode, uid, gid = tree.owner[path]
                os.chown(to, uid, gid)
                os.chmod(to, mode)
        for path in made.values():
            os.utime(path, (now, now))

    def run(self, crash):
        """(Result, what else is wrong)"""
        p = self.peer
        self.lay_out(crash.tree())
        p.host.got.clear()
        p.host.timed.clear()
        problems = []
        try:
            p.start()
            if not p.drain(DRAIN_S):
                problems.append(f"the queue does not drain: {[os.path.basename(x) for x in p.queued()][:3]}")
                if p.mend():
                    p.drain(DRAIN_S)
            if p.restarts():
                problems.append(f"{p.restarts()} restarts")
        finally:
            p.stop()
        told = {**{t: ("", r, z) for t, (_, r, z) in self.recorded.told.items()}, **crash.told}
        return compare(told, p.boxes(), crash.far + p.host.got), problems


class Runs:
    def __init__(self, todo, minutes, once, stop_at_first=False):
        self.todo, self.end, self.once = iter(todo), time.time() + 60 * minutes, once
        self.lock = threading.Lock()
        self.count = collections.Counter()
        self.failures, self.stop = [], stop_at_first

    def work(self, worker):
        while True:
            with self.lock:
                crash = next(self.todo, None)
                if crash is None or (self.stop and self.failures):
                    return
                if time.time() > self.end:
                    self.count["left"] += 1
                    continue
            result = None
            try:
                result, problems = worker.run(crash)
            except Exception as e:  # noqa: BLE001
                problems = [f"{type(e).__name__}: {e}"]
            with self.lock:
                self.note(crash, result, problems)

    def note(self, crash, result, problems):
        self.count["tried"] += 1
        self.count["stuck"] += bool(problems)
        if result:
            for what in ("lost", "cut", "twice", "again"):
                self.count[what] += bool(getattr(result, what))
            if result.lost or result.cut or (result.twice and self.once):
                problems = [*problems, result.text()]
        if problems:
            self.failures.append((f"after {crash.what}", f"cut {crash.point} after {crash.what}: {'; '.join(problems)}"))


def walk(todo, workers, minutes, stop_at_first=False):
    runs = Runs(todo, minutes, workers[0].peer.promises_once, stop_at_first)
    threads = [threading.Thread(target=runs.work, args=(w,), daemon=True) for w in workers]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    return runs


COLUMNS = ("tried", "lost", "cut", "twice", "again", "stuck")


class Table:
    def __init__(self, o):
        self.o, self.passed, self.failed = o, 0, 0
        print(f"{'system':<10} {'model':<9} {'syncs left out':<14} {'calls':>6} {'states':>7} {'distinct':>9}"
              + "".join(f" {c:>6}" for c in COLUMNS) + f" {'wrong':>6}")

    def row(self, kind, recorded, workers, model, drop=None):
        o = self.o
        rng = random.Random(1)
        rec = recorded.record(model, drop)
        found, n = crashes(recorded, rec, rng, CANDIDATES if o.all else IN_A_SLICE)
        rng.shuffle(found)
        runs = walk(found if o.all or drop else found[:o.states], workers, o.minutes, bool(drop))
        print(f"{kind:<10} {model:<9} {drop or 'none':<14} {sum(op.at >= 0 for op in rec.ops):>6} {n:>7} {len(found):>9}"
              + "".join(f" {runs.count[c]:>6}" for c in COLUMNS) + f" {len(runs.failures):>6}"
              + (f"   {runs.count['left']} left out for want of time" if runs.count["left"] else ""), flush=True)
        wrong = len(runs.failures)
        if drop:
            self.passed += bool(wrong)
            self.failed += not wrong
            if not wrong:
                print(f"FAIL without the syncs of {drop} nothing was found")
            return
        counts = kind == "bulkhead"
        for what, text in runs.failures[:20 if counts else 4]:
            print("FAIL" if counts else "    ", text)
        if not counts and wrong:
            print("     where:", ", ".join(f"{n} {w}" for w, n in collections.Counter(w for w, _ in runs.failures).most_common(8)))
        if counts:
            self.passed += runs.count["tried"] - wrong
            self.failed += wrong


def main():
    a = argparse.ArgumentParser()
    a.add_argument("--all", action="store_true")
    a.add_argument("--minutes", type=float, default=20)
    a.add_argument("--states", type=int, default=20)
    a.add_argument("--model", default="strict,posix")
    a.add_argument("--peer", default="bulkhead")
    a.add_argument("--no-control", action="store_true")
    a.add_argument("--workers", type=int, default=2)
    o = a.parse_args()
    models = o.model.split(",")
    if not set(models) <= set(MODELS):
        a.error(f"models: {', '.join(MODELS)}")
    if os.geteuid() != 0:
        print("left out: following confined processes takes root\n0 passed, 0 failed")
        return
    table = Table(o)
    for kind in o.peer.split(","):
        recorded, workers = Recorded(kind), []
        try:
            workers = [Worker(kind, recorded) for _ in range(o.workers)]
            for model in models:
                table.row(kind, recorded, workers, model)
            if kind == "bulkhead" and not o.no_control:
                for drop in ("/queue/new$", "/box/new$", "/queue/new/"):
                    table.row(kind, recorded, workers, "strict", drop)
                table.row(kind, recorded, workers, "posix", "/queue/cur/")
        finally:
            recorded.remove()
            for w in workers:
                w.peer.remove()
    print(f"{table.passed} passed, {table.failed} failed")
    sys.exit(bool(table.failed))


main()
