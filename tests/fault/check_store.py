#!/usr/bin/env python3
"""The store when the power goes, a process is killed or the disk is full, at every call: one IMAP session appends, flags,
copies, moves and expunges while all its file calls are recorded (trace.c).

Power: every state that the disk may be in after a cut at each point (disk.py) is laid out, a new session opens it, and what it
finds is compared with what the first client had read. Kill and errors: the session is run anew, once for each of its calls,
which ends it, or fails with ENOSPC, EDQUOT or EIO; then the same comparison, which is stricter then.

What must hold: UIDVALIDITY as told; what was told to be there is there, once, with its bytes and its UID; no UID is given to
another message, nor given again; a flag is one that the message had or was to have. Ends with "N passed, N failed".

check_store.py [--all] [--what power|calls] [--posix] [--minutes N]: without --all a slice."""
import argparse
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
sys.path.insert(0, os.path.join(HERE, "..", "protocol"))
from cell_harness import Cell  # noqa: E402
from disk import Record, hash_of  # noqa: E402
from rig import BUILD  # noqa: E402

TRACE = os.path.join(BUILD, "fault", "trace")
SLICE = 60
ERRORS = {"kill": "kill", "ENOSPC": "28", "EIO": "5", "EDQUOT": "122"}
CHANGING = "openat,write,pwrite64,fsync,fdatasync,renameat,renameat2,linkat,unlinkat,mkdirat,utimensat"


def text(name):
    return f"Subject: {name}\r\n\r\nbody of {name}\r\n".encode() * 3


# The command, and what it does: ("put", name, flags), ("flag", name, flag), ("copy", name), ("gone", name).
COMMANDS = [
    ("SELECT INBOX", []),
    ("APPEND INBOX (\\Seen)", [("put", "m1", {"\\Seen"})]),
    ("APPEND INBOX", [("put", "m2", set())]),
    ("APPEND INBOX (\\Draft)", [("put", "m3", {"\\Draft"})]),
    ("CREATE Box", []),
    ("STORE 1 +FLAGS (\\Flagged)", [("flag", "m1", "\\Flagged")]),
    ("STORE 2:3 +FLAGS (Work)", [("flag", "m2", "Work"), ("flag", "m3", "Work")]),
    ("COPY 1:2 Box", [("copy", "m1"), ("copy", "m2")]),
    ("STORE 2 +FLAGS (\\Deleted)", [("flag", "m2", "\\Deleted")]),
    ("EXPUNGE", [("gone", "m2")]),
    ("APPEND INBOX", [("put", "m4", set())]),
    ("MOVE 1 Box", [("copy", "m1"), ("gone", "m1")]),
    ("STORE 1 +FLAGS (\\Answered)", [("flag", "m3", "\\Answered")]),
    ("LOGOUT", []),
]


class Expect:
    """What a client knows after `done` commands were answered, the next one perhaps done, too."""

    def __init__(self):
        self.done = 0
        self.answers = {}  # command -> its answer
        self.failed = set()  # commands that said NO

    def take(self, number, answer):
        self.answers[number] = answer
        if not re.match(rb"x\d+ OK", answer):
            self.failed.add(number)
        self.done = number + 1

    def told_uids(self):
        """{("INBOX", name): uid, ("Box", name): {uids}} and {folder: validity}"""
        uids, validity = {}, {}
        for i, (command, effects) in enumerate(COMMANDS):
            answer = self.answers.get(i, b"")
            if m := re.search(rb"APPENDUID (\d+) (\d+)", answer):
                validity["INBOX"] = int(m.group(1))
                uids["INBOX", effects[0][1]] = {int(m.group(2))}
            if m := re.search(rb"COPYUID (\d+) \S+ (\d+)(?::(\d+))?\]", answer):
                validity["Box"] = int(m.group(1))
                first = int(m.group(2))
                for k, name in enumerate(x[1] for x in effects if x[0] == "copy"):
                    uids.setdefault(("Box", name), set()).add(first + k)
        return uids, validity


def session(maildir, expect, cell):
    """Say the commands until the end or the cell's death."""
    sock = cell.sock
    sock.settimeout(20)
    buffer = b""

    def line():
        nonlocal buffer
        while b"\r\n" not in buffer:
            more = sock.recv(65536)
            if not more:
                raise EOFError
            buffer += more
        one, _, buffer = buffer.partition(b"\r\n")
        return one

    try:
        for i, (command, effects) in enumerate(COMMANDS):
            data = f"x{i} {command}".encode()
            if command.startswith("APPEND"):
                body = text(effects[0][1])
                data += b" {%d+}\r\n" % len(body) + body
            sock.sendall(data + b"\r\n")
            said = b""
            while True:
                one = line()
                if one.startswith(b"x%d " % i):
                    break
                if b"COPYUID" in one:
                    said += one
            expect.take(i, one + said)
            if expect.failed:
                break  # the numbers behind would be of other messages
    except (EOFError, OSError):
        pass


def begin(maildir):
    for sub in ("cur", "new", "tmp"):
        os.makedirs(f"{maildir}/{sub}")


class Look:
    """A new session's view of both folders."""

    def __init__(self, maildir):
        self.folders, self.validity = {}, {}
        cell = Cell("imapd-cell", maildir=maildir, user="test")
        try:
            cell.file.readline()
            for folder in ("INBOX", "Box"):
                self.one(cell, folder)
            self.next = self.append(cell)
        finally:
            cell.close()

    def ask(self, cell, command):
        cell.sock.sendall(b"z " + command + b"\r\n")
        out = []
        while True:
            one = cell.file.readline()
            if not one:
                raise AssertionError(f"the session ended at {command}: {out[-3:]}")
            out.append(one)
            if one.startswith(b"z "):
                return out

    def one(self, cell, folder):
        out = self.ask(cell, b"SELECT " + folder.encode())
        if not out[-1].startswith(b"z OK"):
            assert folder != "INBOX", out
            return
        self.validity[folder] = int(re.search(rb"UIDVALIDITY (\d+)", b"".join(out)).group(1))
        rows = []
        for one in self.ask(cell, b"UID FETCH 1:* (FLAGS)"):
            uid, flags = re.search(rb"UID (\d+)", one), re.search(rb"FLAGS \(([^)]*)\)", one)
            if one.startswith(b"* ") and uid and flags:
                flags = set(flags.group(1).decode().split()) - {"\\Recent"}
                body = b"".join(self.ask(cell, b"UID FETCH " + uid.group(1) + b" (BODY.PEEK[])"))
                name = re.search(rb"Subject: (\S+)", body)
                name = name.group(1).decode() if name else "?"
                assert name != "?" and text(name) in body, f"{folder} {uid.group(1)}: not whole: {body[:200]}"
                rows.append((int(uid.group(1)), name, flags))
        self.folders[folder] = rows

    def append(self, cell):
        cell.sock.sendall(b"z APPEND INBOX {4+}\r\na: b\r\n")
        while True:
            one = cell.file.readline()
            if one.startswith(b"z "):
                assert one.startswith(b"z OK"), one
                return int(re.search(rb"APPENDUID \d+ (\d+)", one).group(1))


def history(expect, name):
    """The flags that a message of INBOX may have: {step: set}, and when it was put and taken away."""
    steps, put, gone = [], None, None
    for i, (_, effects) in enumerate(COMMANDS):
        for e in effects:
            if e[1] != name:
                continue
            if e[0] == "put":
                put, steps = i, [(i, set(e[2]))]
            elif e[0] == "flag" and steps:
                steps.append((i, steps[-1][1] | {e[2]}))
            elif e[0] == "gone":
                gone = i
    return steps, put, gone


def wrong(look, expect, strict):
    """'' or what does not hold. strict: nothing was lost with power."""
    uids, validity = expect.told_uids()
    done = expect.done

    def answered(i):
        return i is not None and i < done and i not in expect.failed

    def asked(i):
        return i is not None and i <= done
    for folder, v in validity.items():
        if look.validity.get(folder, v) != v:
            return f"{folder}: UIDVALIDITY {look.validity.get(folder)}, told was {v}"
    for folder, rows in look.folders.items():
        if len({r[0] for r in rows}) != len(rows) or [r[0] for r in rows] != sorted(r[0] for r in rows):
            return f"{folder}: UIDs {rows}"
        for uid, name, _ in rows:
            for (f, other), told in uids.items():
                if f == folder and other != name and uid in told:
                    return f"{folder}: UID {uid} was told for {other}, and is {name} now"
    inbox = look.folders["INBOX"]
    for name in ("m1", "m2", "m3", "m4"):
        steps, put, gone = history(expect, name)
        here = [r for r in inbox if r[1] == name]
        if len(here) > 1:
            return f"{name} is there twice: {here}"
        if answered(put) and not here and not asked(gone):
            return f"{name} is lost"
        if here and answered(gone) and strict:
            return f"{name} was expunged, and is there"
        if here and not asked(put):
            return f"{name} came from nowhere"
        # What was expunged and comes back with the power may be a new message.
        back = asked(gone) and here and here[0][0] > max(uids["INBOX", name])
        if here and answered(put) and not back and {here[0][0]} != uids["INBOX", name]:
            return f"{name} has UID {here[0][0]}, told was {uids['INBOX', name]}"
        if here:
            allowed = [s for i, s in steps if asked(i) and i not in expect.failed or i == put]
            allowed += [s for i, s in steps if i in expect.failed]
            last = [s for i, s in steps if answered(i)][-1:]
            if strict and last and not any(f for f in expect.failed):
                allowed = last + [s for i, s in steps if i == done]
            if here[0][2] not in allowed:
                return f"{name} has {here[0][2]}, allowed is {allowed}"
    return wrong_box(look, expect, uids, done)


def wrong_box(look, expect, uids, done):
    box = look.folders.get("Box", [])
    for name in ("m1", "m2"):
        times = [i for i, (_, effects) in enumerate(COMMANDS) if ("copy", name) in effects]
        sure = [i for i in times if i < done and i not in expect.failed]
        possible = [i for i in times if i <= done]
        here = [r for r in box if r[1] == name]
        if not len(sure) <= len(here) <= len(possible):
            return f"Box has {name} {len(here)} times: told {len(sure)}, asked {len(possible)}"
        if not uids.get(("Box", name), set()) <= {r[0] for r in here}:
            return f"Box: {name} has {here}, told was {uids['Box', name]}"
    highest = max([u for (f, _), us in uids.items() if f == "INBOX" for u in us], default=0)
    return f"the next message got {look.next}, told was {highest} before" if look.next <= highest else ""


class Traced:
    def __init__(self, pid, *options):
        self.p = subprocess.Popen([TRACE, *options, f"cell={pid}"], stdout=subprocess.PIPE, text=True)
        if self.p.stdout.readline().strip() != "ready":
            raise RuntimeError("trace cannot follow")

    def end(self):
        self.p.send_signal(signal.SIGTERM)
        out = self.p.communicate(timeout=20)[0]
        return sum(int(x.split()[3]) for x in out.split("\n") if x.startswith("calls ") and x.split()[2] in CHANGING), "hit " in out


def run(maildir, *options):
    """(what was told, how many calls, whether one was hit)"""
    begin(maildir)
    expect = Expect()
    cell = Cell("imapd-cell", maildir=maildir, user="test")
    try:
        while b"a0 " not in cell.file.readline():
            pass
        t = Traced(cell.process.pid, *options)
        session(maildir, expect, cell)
        time.sleep(0.02)
        n, hit = t.end()
    finally:
        cell.close()
    return expect, n, hit


class Check:
    def __init__(self, minutes):
        self.top = tempfile.mkdtemp(prefix="bulkhead-store-")
        self.end = time.time() + minutes * 60
        self.passed = self.failed = 0
        self.shown = 0

    def fresh(self):
        d = self.top + "/m"
        shutil.rmtree(d, ignore_errors=True)
        return d

    def judge(self, what, maildir, expect, strict):
        try:
            why = wrong(Look(maildir), expect, strict)
        except (AssertionError, OSError, AttributeError) as e:
            why = f"{type(e).__name__}: {e}"
        self.passed += not why
        self.failed += bool(why)
        if why and self.shown < 20:
            self.shown += 1
            print(f"FAIL {what}, after {expect.done} answers: {why}", flush=True)

    def power(self, most, posix, drop=None):
        """Every state at each point. The number of those that are wrong."""
        d, log = self.fresh(), self.top + "/log"
        expect, _, _ = run(d, "-o", log)
        assert expect.done == len(COMMANDS) and not expect.failed, (expect.done, expect.failed, expect.answers)
        rec = Record(log, [d], [f"{d}/{s}" for s in ("cur", "new", "tmp")], drop=drop, posix=posix)
        states, told, seen = [], 0, set()
        for at, _, what, said in rec.events:
            told = max([told] + [int(x) + 1 for x in re.findall(rb"(?:^|\n)x(\d+) ", said)])
            for tree in rec.states(at):
                key = (hash_of(tree), told)
                if key not in seen:
                    seen.add(key)
                    states.append((at, what, tree, told))
        random.Random(7).shuffle(states)
        before = self.failed
        count = 0
        for at, what, tree, told in states[:most]:
            if time.time() > self.end:
                break
            count += 1
            d = self.fresh()
            begin(d)
            for path in sorted(tree):
                os.makedirs(path if tree[path] is None else os.path.dirname(path), exist_ok=True)
                if tree[path] is not None:
                    self.lay_out(path, tree[path])
            part = Expect()
            for i in range(told):
                part.take(i, expect.answers[i])
            self.judge(f"power at {at} ({what})", d, part, False)
        return len(states), count, self.failed - before

    @staticmethod
    def lay_out(path, data):
        """Two names of a message in one folder are of one file."""
        folder, name = os.path.dirname(os.path.dirname(path)), os.path.basename(path)
        for sub in ("new", "cur"):
            for other in os.listdir(f"{folder}/{sub}") if "," in name and os.path.isdir(f"{folder}/{sub}") else ():
                if other.partition(",")[0] == name.partition(",")[0]:
                    os.link(f"{folder}/{sub}/{other}", path)
                    return
        with open(path, "wb") as f:
            f.write(data)

    def calls(self, most):
        _, n, _ = run(self.fresh())
        todo = [(k, what) for k in range(1, n + 1) for what in ERRORS]
        random.Random(7).shuffle(todo)
        count = 0
        for k, what in todo[:most]:
            if time.time() > self.end:
                break
            d = self.fresh()
            expect, _, hit = run(d, "-o", "/dev/null", "-c", CHANGING, "-i", f"cell:{k}:{ERRORS[what]}")
            count += hit
            self.judge(f"{what} at call {k}", d, expect, True)
        return len(todo), count


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--what", choices=("power", "calls"))
    parser.add_argument("--posix", action="store_true")
    parser.add_argument("--minutes", type=float, default=20)
    args = parser.parse_args()
    if os.geteuid() != 0:
        print("needs root\n0 passed, 0 failed")
        return 1
    most = 10 ** 9 if args.all else SLICE
    check = Check(args.minutes)
    try:
        if args.what != "calls":
            states, tried, _ = check.power(most, args.posix)
            print(f"power: {tried} of {states} states")
        if args.what != "power":
            todo, hit = check.calls(most)
            print(f"calls: {hit} hit, of {todo}")
    finally:
        shutil.rmtree(check.top, ignore_errors=True)
    print(f"{check.passed} passed, {check.failed} failed")
    return check.failed > 0


sys.exit(main())
