#!/usr/bin/env python3
"""The power goes at every point: messages are accepted, expanded, delivered, put off and bounced while all their file calls
are recorded; then every state that the disk may be in after a cut at each point is laid out, the suite is started on it and
drained, and what came is compared with what clients had been told. See disk.py for the model. Ends with "N passed, N failed".

check_crash.py [--all] [--minutes N] [--posix]: without --all a slice; a control leaves out the syncs of new/ and of the
Maildir from the record, and must find a loss."""
import argparse
import os
import random
import re
import shutil
import sys
import tempfile
import threading
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from disk import Record, hash_of  # noqa: E402
from rig import Host, Instance, Traced, compare  # noqa: E402

SLICE = 20


def record():
    """Runs the messages; (path of the record, the directories, client, host)."""
    path = tempfile.mktemp(prefix="bulkhead-record-")
    suite = Instance()
    suite.start()
    suite.accounts()
    suite.ready()
    os.makedirs(suite.dir + "/mail/example.org", exist_ok=True)
    os.chmod(suite.dir + "/mail/example.org", 0o711)
    t = Traced(suite, "-o", path)
    client = suite.client()
    for token, rcpts, size in (("first", ("box",), 200), ("many", ("both", "gone"), 200), ("large", ("bin",), 200_000),
                               ("two", ("bin", "box"), 100), ("late", ("slow",), 100), ("asked", ("told", "slow"), 100)):
        assert client.send(token, rcpts, size).startswith("250"), client.told
        suite.host.seen.clear()
    time.sleep(0.3)
    assert suite.drain(20), suite.queued()
    t.end()
    suite.ctl("stop")
    owners = {n: os.stat(suite.maildir(n)) for n in ("box", "bin")}
    return path, suite, client, owners


class Crash:
    """A state, and what had been promised and had left the host when the power went."""

    def __init__(self, point, what, tree, told, far):
        self.point, self.what, self.tree, self.told, self.far = point, what, tree, told, far


def crashes(rec, client, host):
    """Every distinct one, and how many there were before like ones were put together."""
    ids = {m.group(1): token for token, (answer, _, _) in client.told.items()
           if (m := re.search(r"queued as (\w+)", answer))}
    seen, out, n, told = set(), [], 0, {}
    for at, when, what, said in rec.events:
        m = re.match(rb"250 2\.0\.0 Ok: queued as (\w+)", said)
        if m and m.group(1).decode() in ids:
            token = ids[m.group(1).decode()]
            told = {**told, token: client.told[token]}
        elif said:
            continue
        far = [g for g, t in zip(host.got, host.when) if t <= when]
        for tree in rec.states(at):
            n += 1
            key = (hash_of(tree), len(told), len(far))
            if key not in seen:
                seen.add(key)
                out.append(Crash(at, what, tree, told, far))
    return out, n


class Worker:
    """An instance whose queue and mail are replaced by a state before each start."""

    def __init__(self, recorded, client, owners):
        self.suite = Instance(host=Host()).accounts_made()
        self.suite.host.slow_answers = 0
        self.recorded, self.sizes, self.owners = recorded, client.told, owners
        self.queue_owner = os.stat(self.suite.dir + "/queue/new")

    def lay_out(self, tree):
        for part in ("queue", "mail"):
            top = f"{self.suite.dir}/{part}"
            for name in os.listdir(top):
                shutil.rmtree(f"{top}/{name}") if os.path.isdir(f"{top}/{name}") else os.unlink(f"{top}/{name}")
        for d in ("tmp", "new", "cur", "journal", "corrupt"):
            self.make(f"{self.suite.dir}/queue/{d}", None)
        os.makedirs(self.suite.dir + "/mail/example.org")
        os.chmod(self.suite.dir + "/mail/example.org", 0o711)
        for path in sorted(tree):
            self.make(self.suite.dir + path[len(self.recorded):], tree[path])

    def make(self, path, data):
        if data is None:
            os.makedirs(path, exist_ok=True)
        else:
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "wb") as f:
                f.write(data)
        os.chmod(path, 0o700 if data is None else 0o600)
        parts = path[len(self.suite.dir) + 1:].split("/")
        owner = self.queue_owner if parts[0] == "queue" else self.owners.get(parts[2]) if len(parts) > 2 else None
        if owner:
            os.chown(path, owner.st_uid, owner.st_gid)
        if data is not None:
            os.utime(path, (0, 0))

    def run(self, crash):
        """'' or why it is wrong; how many came a second time where that is allowed."""
        s = self.suite
        self.lay_out(crash.tree)
        s.host.got.clear()
        open(s.log, "w").close()
        s.ctl("start")
        drained = s.drain(20)
        restarts = sum(r["restarts"] for r in s.status())
        s.ctl("stop")
        result = compare({**{t: ("", r, z) for t, (_, r, z) in self.sizes.items()}, **crash.told},
                         {n: s.messages(n) for n in ("box", "bin")}, crash.far + s.host.got)
        problems = [] if drained else [f"the queue does not drain: {s.queued()[:3]}"]
        if restarts:
            problems.append(f"{restarts} restarts")
        if not result.ok():
            problems.append(result.text())
        return "; ".join(problems), len(result.again)


class Runs:
    def __init__(self, todo, minutes, stop_at_first=False):
        self.todo, self.end = iter(todo), time.time() + 60 * minutes
        self.lock = threading.Lock()
        self.failures, self.done, self.again, self.left, self.stop = [], 0, 0, 0, stop_at_first

    def work(self, worker):
        while True:
            with self.lock:
                crash = next(self.todo, None)
                if crash is None or (self.stop and self.failures):
                    return
                if time.time() > self.end:
                    self.left += 1
                    continue
            try:
                problem, again = worker.run(crash)
            except Exception as e:  # noqa: BLE001
                problem, again = f"{type(e).__name__}: {e}", 0
            with self.lock:
                self.done += 1
                self.again += bool(again)
                if problem:
                    self.failures.append(f"cut {crash.point} after {crash.what}: {problem}")


def walk(todo, workers, minutes, stop_at_first=False):
    runs = Runs(todo, minutes, stop_at_first)
    threads = [threading.Thread(target=runs.work, args=(w,), daemon=True) for w in workers]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    return runs


def main():
    a = argparse.ArgumentParser()
    a.add_argument("--all", action="store_true")
    a.add_argument("--minutes", type=float, default=20)
    a.add_argument("--posix", action="store_true")
    a.add_argument("--workers", type=int, default=2)
    o = a.parse_args()
    if os.geteuid() != 0:
        print("left out: following confined processes takes root\n0 passed, 0 failed")
        return
    path, suite, client, owners = record()
    roots = [suite.dir + "/queue", suite.dir + "/mail"]
    dirs = [f"{roots[0]}/{d}" for d in ("tmp", "new", "cur", "journal", "corrupt")] + [roots[1] + "/example.org"]
    workers = []
    passed = failed = 0
    try:
        workers = [Worker(suite.dir, client, owners) for _ in range(o.workers)]
        for w in workers:
            w.suite.host.slow_answers = 0
        random.seed(1)
        print(f"{'syncs that are left out':<24} {'calls':>6} {'states':>7} {'distinct':>9} {'tried':>6} {'again':>6} {'wrong':>6}")
        for drop in (None, "/queue/new", "/box/new", "/queue/tmp/"):
            rec = Record(path, roots, dirs, drop, o.posix)
            found, n = crashes(rec, client, suite.host)
            random.shuffle(found)
            if drop is None:
                runs = walk(found if o.all else found[:SLICE], workers, o.minutes)
                for text in runs.failures[:20]:
                    print("FAIL", text)
                passed += runs.done - len(runs.failures)
                failed += len(runs.failures)
                wrong = len(runs.failures)
            else:
                runs = walk(found, workers, o.minutes, True)
                wrong = len(runs.failures)
                passed += bool(wrong)
                failed += not wrong
                if not wrong:
                    print(f"FAIL without the syncs of {drop} nothing was found")
            print(f"{drop or 'none':<24} {len(rec.ops):>6} {n:>7} {len(found):>9} {runs.done:>6} {runs.again:>6} {wrong:>6}"
                  + (f"   {runs.left} left out for want of time" if runs.left else ""), flush=True)
    finally:
        suite.stop()
        for w in workers:
            w.suite.stop()
        os.unlink(path)
    print(f"{passed} passed, {failed} failed")
    sys.exit(bool(failed) or not passed)


main()
