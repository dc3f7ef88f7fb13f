#!/usr/bin/env python3
"""Each system call in turn goes wrong, once, in each program that a message meets: the program is killed before it, or it
fails (EIO, ENOSPC, EDQUOT, EMFILE, ENOMEM, EINTR), or writes half. Then: what was answered with 250 arrives, whole, and in
a mailbox once; what was not may be missing; every program is up again, the queue drains, and the next message goes through.
The same for Postfix, Exim and OpenSMTPD: of them all processes are followed, and one that does not answer or stays with mail in
its queue is started anew, which is counted. It fails for Bulkhead only. Ends with "N passed, N failed".

check_calls.py [--all] [--minutes N] [--only ROLE] [--what kill|errors] [--peer NAME] [--runs N]: without --all a slice, or of that
length."""
import argparse
import errno
import glob
import os
import queue
import random
import shutil
import signal
import subprocess
import sys
import threading
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from peers import PEERS  # noqa: E402
from rig import Client, Instance, Traced, compare, outcome, parents  # noqa: E402

RCPTS = ("both", "gone")
# A "+" is a process that was forked from it: a session, or a cell before its exec.
ROLES = ("qmgr", "qmgr+", "smtpd+", "smtpd", "local+", "local", "local-cell", "launcher+", "launcher", "relay+")
FULL = ("ENOSPC", "EDQUOT", "EIO")
ERRORS = {
    "openat": ("EMFILE", "ENOSPC", "EIO"), "write": (*FULL, "EINTR", "short"),
    "pwrite64": (*FULL, "EINTR", "short"), "fsync": FULL, "fdatasync": FULL, "renameat": FULL, "renameat2": FULL,
    "unlinkat": ("EIO",), "mkdirat": FULL, "ftruncate": ("EIO",), "utimensat": ("EIO",), "read": ("EIO", "EINTR"),
    "pread64": ("EIO", "EINTR"), "newfstatat": ("EIO",), "fstatfs": ("EIO",), "lseek": ("EIO",),
    "getdents64": ("EIO", "EINTR"), "close": ("EIO",), "fchown": ("EIO",), "socketpair": ("EMFILE",),
    "accept4": ("EMFILE", "ENOMEM", "EINTR"), "clone": ("EAGAIN", "ENOMEM"), "sendmsg": ("EINTR", "ENOMEM"),
    "sendto": ("EINTR",), "recvmsg": ("EINTR", "ENOMEM"), "recvfrom": ("EINTR",), "poll": ("EINTR", "ENOMEM"),
    "epoll_wait": ("EINTR",), "epoll_ctl": ("ENOMEM",), "mmap": ("ENOMEM",),
    # What others call besides.
    "rename": FULL, "link": FULL, "unlink": ("EIO",), "mkdir": FULL, "writev": (*FULL, "EINTR"), "fchmod": ("EIO",),
    "fstat": ("EIO",), "flock": ("EINTR",), "pipe": ("EMFILE",), "pipe2": ("EMFILE",), "socket": ("EMFILE", "ENOMEM"),
    "accept": ("EMFILE", "ENOMEM", "EINTR"), "fork": ("EAGAIN",), "select": ("EINTR",),
}
LARGE = 300_000  # so that a session writes it in pieces
AGAIN_LARGE = {(role, call) for role in ("smtpd+", "local-cell") for call in ("write", "pwrite64", "fsync", "pread64")}


def end_idle(suite):
    """Sessions of local and relay and cells that wait for more work are ended, so that each run starts its own."""
    programs = {r["pid"]: r["program"] for r in suite.status()}
    up = parents()
    for pid in up:
        if programs.get(up[pid]) in ("local", "relay", "launcher"):
            try:
                os.kill(pid, signal.SIGKILL)
            except OSError:
                pass


class Worker:
    """An instance, and runs in it one after another."""

    def __init__(self):
        self.n = 0
        self.suite = Instance().accounts_made()
        self.suite.start()
        self.suite.ready()

    def fresh(self):
        """Started anew, so that master does not wait longer each time; and with empty mailboxes."""
        self.suite.ctl("stop", check=False)
        for name in ("box", "bin"):
            subprocess.run(["rm", "-rf", self.suite.maildir(name)], check=True)
        self.suite.host.got.clear()
        open(self.suite.log, "w").close()
        self.suite.ctl("start")
        self.suite.ready()

    def stop(self):
        self.suite.stop()

    def restarts(self):
        return sum(r["restarts"] for r in self.suite.status())

    def run(self, options, size=200):
        """(hit, count, problem): one message with one fault."""
        s = self.suite
        self.n += 1
        s.host.seen.clear()
        s.host.got.clear()
        log_before = len(s.log_text())
        client = s.client(30)
        end_idle(s)
        t = Traced(s, *options)
        answer = client.send(f"token-{self.n}", RCPTS, size)
        drained = s.drain(25)
        hit, count = t.end()
        # The fault is over: all must be well from here on.
        problems = [] if drained else ["the queue does not drain"]
        try:
            s.ready(10)
            after = s.client(20)
            if not after.send(f"after-{self.n}", ("box", "bin")).startswith("250"):
                problems.append(f"the next message: {after.told}")
            if not s.drain(15):
                problems.append("the queue does not drain afterwards")
            client.told.update(after.told)
        except AssertionError:
            problems.append("not all programs are up")
        result = outcome(s, client)
        if not result.ok():
            problems.append(result.text())
        log = s.log_text()[log_before:]
        for line in log.split("\n"):
            if "died of signal" in line and "signal 9" not in line:
                problems.append(line)
        again = [x for x in result.again if x[0] == f"token-{self.n}"]
        return hit, count, answer.strip() or "connection ended", again, "; ".join(problems)


class PeerWorker:
    """The same for a system of Debian."""

    def __init__(self, kind):
        self.n, self.down = 0, 0
        self.peer = self.suite = PEERS[kind]()
        self.peer.prepare()
        self.peer.start()

    def fresh(self):
        self.peer.stop()
        for box in glob.glob(self.peer.disk + "/mail/*"):
            shutil.rmtree(box)
        self.peer.start()

    def stop(self):
        self.peer.remove()

    def restarts(self):
        return 0

    def again(self):
        self.down += 1
        self.peer.stop()
        self.peer.start()

    def run(self, options, size=200):
        p = self.peer
        self.n += 1
        p.host.seen.clear()
        p.host.got.clear()
        client = Client(p.port, 30)
        t = Traced(p.processes(), *options)
        answer = p.send(client, f"token-{self.n}", RCPTS, size)
        p.drain(8)
        hit, count = t.end()
        problems = []
        if not p.answers():
            self.again()
        after = Client(p.port, 20)
        if not p.send(after, f"after-{self.n}", ("box", "bin"), 200).startswith("250"):
            problems.append(f"the next message: {after.told}")
        if not p.drain(8):
            self.again()
            if not p.drain(15):
                problems.append("the queue does not drain")
        client.told.update(after.told)
        result = compare(client.told, p.boxes(), p.host.got)
        if result.lost or result.cut:
            problems.append(result.text())
        token = f"token-{self.n}"
        again = [x for x in result.again + result.twice if x[0] == token]
        return hit, count, answer.strip() or "connection ended", again, "; ".join(problems)


class Plan:
    """What is to be run, handed to the workers; and what came out."""

    def __init__(self, everything, minutes, only, what):
        self.end = time.time() + 60 * minutes
        self.lock = threading.Lock()
        self.rows = {}  # (role, call or "kill", what) -> [runs, 250, 4xx, ended, again]
        self.failures, self.again, self.done, self.skipped = [], 0, 0, 0
        self.jobs = queue.Queue()
        self.only, self.what, self.everything, self.runs = only, what, everything, 0

    def note(self, key, fault, got):
        hit, _, answer, again, problem = got
        with self.lock:
            row = self.rows.setdefault(key, [0] * 5)
            row[0] += 1
            row[1 if answer.startswith("250") else 2 if answer[:1] == "4" else 3] += 1
            self.done += 1
            self.again += bool(again)
            row[4] += bool(again)
            if problem:
                self.failures.append(f"{fault}: {hit} -> {answer[:60]}: {problem}")
                print(f"FAIL {self.failures[-1]}", flush=True)
            if answer[:1] == "5":
                self.failures.append(f"{fault}: {hit} -> {answer}: a permanent refusal")
                print(f"FAIL {self.failures[-1]}", flush=True)

    def take(self):
        """The next, while there is time; or None."""
        while True:
            try:
                job = self.jobs.get_nowait()
            except queue.Empty:
                return None
            if time.time() > self.end:
                with self.lock:
                    self.skipped += 1
                continue
            return job


def options_of(role, call, n, what):
    out = ["-i", f"{role}:{n}:{what}"]
    return out + (["-c", call] if call else [])


def count_calls(worker, plan):
    """What each role calls for one message: the list of jobs."""
    jobs = []
    for size in (200, LARGE) if plan.everything else (200,):
        worker.fresh()
        counts = worker.run([], size)[1]
        for role in ROLES if isinstance(worker, Worker) else sorted({r for r, _ in counts}):
            if plan.only and role != plan.only:
                continue
            total = sum(n for (r, _), n in counts.items() if r == role)
            if plan.what != "errors" and size != LARGE:
                jobs += [(role, "", n, "kill", size) for n in range(1, total + 1)]
            for call, errors in ERRORS.items():
                if plan.what == "kill" or (size == LARGE and plan.runs == 0 and (role, call) not in AGAIN_LARGE):
                    continue
                jobs += [(role, call, n, e, size) for n in range(1, counts.get((role, call), 0) + 1) for e in errors]
    return jobs


def work(worker, plan):
    used = 0
    while (job := plan.take()) is not None:
        role, call, n, what, size = job
        number = what if what in ("kill", "short") else str(getattr(errno, what))
        fault = f"{role} {call or 'any'} {n} {what}"
        try:
            got = worker.run(options_of(role, call, n, number), size)
        except Exception as e:  # noqa: BLE001
            got = ("", 0, "", [], f"{type(e).__name__}: {e}")
        if got[0] or got[4]:
            plan.note((role, call or got[0].split(" ")[0], what), fault, got)
        used += 1
        if worker.restarts() or got[4] or used % 40 == 0:
            worker.fresh()


def slice_of(jobs, plan):
    """All of them in an order in which a part is spread over all; or every step-th; or so many by chance, half of them kills."""
    if plan.runs:
        rng = random.Random(1)
        kills, errors = [j for j in jobs if j[3] == "kill"], [j for j in jobs if j[3] != "kill"]
        return [j for some in (kills, errors) for j in rng.sample(some, min(len(some), plan.runs // 2))]
    if not plan.everything:
        # A few of everything, and those that once found something.
        found = [j for j in jobs if j[0] == "qmgr" and j[1] in ("fsync", "unlinkat", "pread64") and j[3] == "EIO"]
        return found[::2] + jobs[::max(1, len(jobs) // 30)]
    return [j for k in range(7) for j in jobs[k::7]]


def table(plan):
    print(f"{'process':<12} {'call':<12} {'fault':<8} {'runs':>5} {'250':>5} {'4xx':>5} {'ended':>6} {'again':>6}")
    merged = {}
    for (role, call, what), row in plan.rows.items():
        key = (role, "each" if what == "kill" else call, what)
        merged[key] = [a + b for a, b in zip(merged.get(key, [0] * 5), row)]
    for (role, call, what), row in sorted(merged.items()):
        print(f"{role:<12} {call:<12} {what:<8} {row[0]:>5} {row[1]:>5} {row[2]:>5} {row[3]:>6} {row[4]:>6}")


def main():
    a = argparse.ArgumentParser()
    a.add_argument("--all", action="store_true")
    a.add_argument("--minutes", type=float, default=30)
    a.add_argument("--only")
    a.add_argument("--what", choices=("kill", "errors"))
    a.add_argument("--workers", type=int, default=2)
    a.add_argument("--peer", default="bulkhead", choices=list(PEERS))
    a.add_argument("--runs", type=int, default=0)
    o = a.parse_args()
    if os.geteuid() != 0:
        print("left out: following confined processes takes root\n0 passed, 0 failed")
        return
    plan = Plan(o.all, o.minutes, o.only, o.what)
    plan.runs = o.runs
    ours = o.peer == "bulkhead"
    workers = [Worker() if ours else PeerWorker(o.peer) for _ in range(o.workers)]
    try:
        jobs = slice_of(all_jobs := count_calls(workers[0], plan), plan)
        for j in jobs:
            plan.jobs.put(j)
        threads = [threading.Thread(target=work, args=(w, plan), daemon=True) for w in workers]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        down = "" if ours else f"; started anew {sum(w.down for w in workers)} times"
    finally:
        for w in workers:
            w.stop()
    table(plan)
    print(f"{o.peer}: {plan.done} faults of {len(jobs)} planned (of {len(all_jobs)}) struck, {plan.skipped} left out for want of "
          f"time; {plan.again} led to a second copy at another host or a second bounce{'' if ours else ' or in a mailbox'}{down}; "
          f"{len(plan.failures)} wrong")
    if not ours:
        print("0 passed, 0 failed")
        return
    print(f"{plan.done - len(plan.failures)} passed, {len(plan.failures)} failed")
    sys.exit(bool(plan.failures) or not plan.done)


main()
