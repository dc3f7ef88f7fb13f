#!/usr/bin/env python3
"""Eight IMAP cells, two POP3 cells, a stream of deliveries and a foreign mutt on one Maildir, all at once.

Every message has a number in its Subject, and a client that removes one writes that down. While it runs each IMAP session
compares what it is told with what it was told before: a UID stands for one message for ever, UIDs ascend in the order of
numbers, EXISTS fits what FETCH lists, and what another session has done (a flag, a removal, a new message) is seen by the
next NOOP. At the end a new session must find just what was delivered and not removed, each once, and the same after all
indexes are deleted.

check_store_run.py [--seconds N]: 20 by default; the whole is 600. Ends with "N passed, N failed"."""
import argparse
import os
import pty
import random
import re
import select
import shutil
import signal
import sys
import tempfile
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, ".."))
sys.path.insert(0, os.path.join(HERE, "..", "protocol"))
from cell_harness import Cell  # noqa: E402
from harness import Report  # noqa: E402

REPORT = Report()
IMAP, POP3 = 8, 2
ROOM = 400  # messages that are kept, about


class World:
    """What is known of all, under one lock."""

    def __init__(self, maildir, end):
        self.maildir, self.end = maildir, end
        self.lock = threading.Lock()
        self.count = 0
        self.delivered = {}  # number -> when it was there
        self.removing = set()  # a client has asked for it, or mutt
        self.removed = set()  # and was told that it is done
        self.by_uid = {}  # uid -> number
        self.validity = set()
        self.errors = []
        self.did = {}

    def wrong(self, text):
        with self.lock:
            self.errors.append(text)

    def note(self, what):
        with self.lock:
            self.did[what] = self.did.get(what, 0) + 1

    def next(self):
        with self.lock:
            self.count += 1
            return self.count

    def alive(self):
        with self.lock:
            return len(self.delivered) - len(self.removed)

    def saw(self, uid, number):
        with self.lock:
            other = self.by_uid.setdefault(uid, number)
            if other != number:
                self.errors.append(f"UID {uid} was message {other}, and is {number} now")


def text(number):
    return (f"From: a@example.org\r\nSubject: n{number}\r\nDate: Fri, 21 Nov 2025 09:55:06 +0000\r\n\r\n"
            + "x" * (number % 700) + "\r\n").encode()


def deliver(world):
    """As local does: into tmp/, renamed into new/."""
    while time.time() < world.end:
        if world.alive() > 2 * ROOM:
            time.sleep(0.05)
            continue
        n = world.next()
        name = f"{int(time.time())}.M{n}R{os.getpid()}.stream"
        data = text(n)
        with open(f"{world.maildir}/tmp/{name}", "wb") as f:
            f.write(data)
        os.rename(f"{world.maildir}/tmp/{name}", f"{world.maildir}/new/{name},S={len(data)},W={len(data)}")
        with world.lock:
            world.delivered[n] = time.time()
        world.note("delivered")
        time.sleep(random.choice((0.001, 0.01, 0.05)))


class Imap:
    def __init__(self, world):
        self.world = world
        self.cell = Cell("imapd-cell", maildir=world.maildir, user="test")
        self.n, self.uids = 0, []  # UIDs by number, 0 where not known yet
        while b"a0 " not in self.cell.file.readline():
            pass
        out = self.say("SELECT INBOX")
        validity = int(re.search(rb"UIDVALIDITY (\d+)", b"".join(out)).group(1))
        with world.lock:
            world.validity.add(validity)

    def say(self, command, literal=None):
        self.n += 1
        tag = b"t%d " % self.n
        data = tag + command.encode()
        if literal is not None:
            data += b" {%d+}\r\n" % len(literal) + literal
        self.cell.sock.sendall(data + b"\r\n")
        out = []
        while True:
            line = self.cell.file.readline()
            if not line:
                raise EOFError(f"the cell ended at {command}: {out[-3:]}")
            out.append(line)
            self.hear(line)
            if line.startswith(tag):
                return out

    def hear(self, line):
        if m := re.match(rb"\* (\d+) EXISTS", line):
            n = int(m.group(1))
            if n < len(self.uids):
                self.world.wrong(f"EXISTS went from {len(self.uids)} to {n}")
            self.uids += [0] * (n - len(self.uids))
        elif m := re.match(rb"\* (\d+) EXPUNGE", line):
            n = int(m.group(1))
            if not 1 <= n <= len(self.uids):
                self.world.wrong(f"EXPUNGE {n} of {len(self.uids)}")
            else:
                del self.uids[n - 1]
        elif (m := re.match(rb"\* (\d+) FETCH ", line)) and (u := re.search(rb"UID (\d+)", line)):
            n, uid = int(m.group(1)), int(u.group(1))
            if n > len(self.uids):
                self.world.wrong(f"FETCH {n} of {len(self.uids)}")
            elif self.uids[n - 1] not in (0, uid):
                self.world.wrong(f"number {n} was UID {self.uids[n - 1]}, and is {uid} now")
            else:
                self.uids[n - 1] = uid

    def learn(self):
        """Which UID is which message."""
        known = {}
        out = self.say("FETCH 1:* (UID FLAGS BODY.PEEK[HEADER.FIELDS (SUBJECT)])") if self.uids else []
        uid = None
        for line in out:
            if u := re.search(rb"FETCH .*UID (\d+)", line):
                uid = int(u.group(1))
            elif uid and (s := re.match(rb"Subject: n(\d+)", line)):
                known[uid] = int(s.group(1))
                self.world.saw(uid, int(s.group(1)))
                uid = None
        if sorted(self.uids) != self.uids and 0 not in self.uids:
            self.world.wrong("UIDs do not ascend")
        return known

    def end(self):
        try:
            self.say("LOGOUT")
        except (EOFError, OSError):
            self.world.wrong("a session ended by itself")
        self.cell.close()


def remove(world, imap, known, how):
    """Expunge some, and write it down."""
    uids = random.sample(sorted(known), min(len(known), random.randint(1, 40)))
    with world.lock:
        uids = [u for u in uids if known[u] not in world.removing]
        world.removing |= {known[u] for u in uids}
    if not uids:
        return
    which = ",".join(map(str, uids))
    imap.say(f"UID STORE {which} +FLAGS.SILENT (\\Deleted)")
    out = imap.say(f"UID EXPUNGE {which}")
    if not out[-1].split(b" ", 1)[1].startswith(b"OK"):
        world.wrong(f"EXPUNGE: {out[-1]}")
    with world.lock:
        world.removed |= {known[u] for u in uids}
    left = set(uids) & set(imap.uids)
    if left:
        world.wrong(f"expunged and still told of: {sorted(left)[:5]}")
    world.note(how)


def imap_session(world, k):
    rng = random.Random(k)
    try:
        while time.time() < world.end:
            imap = Imap(world)
            until = time.time() + rng.uniform(2, 10)
            known = imap.learn()
            while time.time() < min(until, world.end):
                what = rng.random()
                before = time.time()
                if what < 0.3:
                    imap.say("NOOP")
                elif what < 0.45:
                    known = imap.learn()
                elif what < 0.6 and imap.uids:
                    flag = rng.choice(("\\Seen", "\\Flagged", "\\Answered", "k1", "k2"))
                    imap.say(f"STORE 1:{rng.randint(1, len(imap.uids))} {rng.choice('+-')}FLAGS.SILENT ({flag})")
                    world.note("store")
                elif what < 0.7:
                    n = world.next()
                    out = imap.say(f"APPEND INBOX ({rng.choice(('', chr(92) + 'Seen'))})", text(n))
                    uid = re.search(rb"APPENDUID \d+ (\d+)", out[-1])
                    if not uid:
                        world.wrong(f"APPEND: {out[-1]}")
                    else:
                        world.saw(int(uid.group(1)), n)
                        with world.lock:
                            world.delivered[n] = time.time()
                    world.note("append")
                elif what < 0.85 and world.alive() > ROOM:
                    known = imap.learn()
                    remove(world, imap, known, "expunge")
                else:
                    fresh(world, imap, before)
                time.sleep(rng.uniform(0, 0.02))
            imap.end()
            world.note("imap session")
    except Exception as e:  # noqa: BLE001
        world.wrong(f"imap {k}: {type(e).__name__}: {e}")


def fresh(world, imap, now):
    """What was there a moment before the NOOP is told, what was removed is not."""
    with world.lock:
        there = {n for n, when in world.delivered.items() if when < now} - world.removing
        gone = set(world.removed)
    imap.say("NOOP")
    known = imap.learn()
    numbers = set(known.values())
    with world.lock:
        missing = there - numbers - world.removing
    if missing:
        world.wrong(f"stale: not told of {sorted(missing)[:5]}")
    if numbers & gone:
        world.wrong(f"stale: told of {sorted(numbers & gone)[:5]}, which were removed before")
    world.note("look")


def pop3_session(world, k):
    rng = random.Random(100 + k)
    try:
        while time.time() < world.end:
            cell = Cell("pop3d-cell", maildir=world.maildir, user="test", tag="")
            said = cell.file.readline()
            if not said.startswith(b"+OK"):  # the other one is at work
                world.note("pop3 in use")
                cell.close()
                time.sleep(rng.uniform(0.05, 0.3))
                continue

            def say(command, many=False):
                cell.sock.sendall(command.encode() + b"\r\n")
                out = [cell.file.readline()]
                while many and out[0].startswith(b"+OK") and out[-1] != b".\r\n":
                    out.append(cell.file.readline())
                return out
            deleted = []
            n = int(say("STAT")[0].split()[1])
            uidl = say("UIDL", many=True)
            if len(uidl) != n + 2 or len({x.split()[1] for x in uidl[1:-1]}) != n:
                world.wrong(f"UIDL tells {len(uidl) - 2} of {n}, or one twice")
            for i in rng.sample(range(1, n + 1), min(n, 5)):
                out = b"".join(say(f"RETR {i}", many=True))
                m = re.search(rb"Subject: n(\d+)", out)
                if not m:
                    continue  # gone meanwhile
                number = int(m.group(1))
                if world.alive() > ROOM:
                    with world.lock:
                        mine = number not in world.removing
                        world.removing.add(number)
                    if mine:
                        say(f"DELE {i}")
                        world.note("pop3 dele")
                        deleted.append(number)
            said = say("QUIT")[0]
            with world.lock:
                world.removed |= set(deleted) if said.startswith(b"+OK") else set()
            cell.close()
            world.note("pop3 session")
            time.sleep(rng.uniform(0.1, 0.5))
    except Exception as e:  # noqa: BLE001
        world.wrong(f"pop3 {k}: {type(e).__name__}: {e}")


def on_terminal(args, env):
    """Its exit status; it has a terminal, and what it draws is thrown away. Who
    has not left after ten seconds sits at a question (a file was renamed under it): it is told to leave; after a minute ended."""
    pid, fd = pty.fork()
    if pid == 0:
        os.execvpe(args[0], args, env)
    end, nudge = time.time() + 60, time.time() + 10
    try:
        while time.time() < end:
            if time.time() > nudge:
                os.write(fd, b"\x07x")
                nudge += 2
            if select.select([fd], [], [], 1)[0] and not os.read(fd, 65536):
                break
    except OSError:
        pass
    if time.time() >= end:
        os.kill(pid, signal.SIGKILL)
    os.close(fd)
    return os.waitpid(pid, 0)[1]


def mutt(world, home):
    """Flags all it sees, and deletes what it finds flagged with a number that ends in 7."""
    with open(home + "/rc", "w") as f:
        f.write("set mail_check=0\nset maildir_trash=no\nset delete=yes\nset mark_old=no\nset header_cache=\"\"\n"
                "set wait_key=no\nset quit=yes\nset move=no\nset confirmappend=no\nset sleep_time=0\n")
    while time.time() < world.end:
        # What is to go is agreed before, by number: those that nobody removes.
        with world.lock:
            free = sorted(set(world.delivered) - world.removing)
        mine = random.sample(free, min(len(free), 3)) if world.alive() > ROOM else []
        with world.lock:
            mine = [n for n in mine if n not in world.removing]
            world.removing |= set(mine)
        # In what is pushed "^n" would be a key.
        pattern = "|".join(f"~s n{n}$" for n in mine) or "~s nothing"
        commands = f"<tag-pattern>{pattern}<enter><tag-prefix-cond><delete-message><end-cond>" \
                   "<untag-pattern>.<enter><first-entry><flag-message><sync-mailbox><quit>"
        status = on_terminal(["mutt", "-n", "-F", home + "/rc", "-f", world.maildir, "-e", f"push \"{commands}\""],
                             {"HOME": home, "TERM": "vt100", "PATH": os.environ["PATH"]})
        world.note("mutt" if status == 0 else "mutt failed")
        time.sleep(0.3)


def final(world):
    """(numbers in the order of UIDs, uids)"""
    imap = Imap(world)
    known = imap.learn()
    exists = len(imap.uids)
    imap.end()
    return exists, known


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=20)
    args = parser.parse_args()
    top = tempfile.mkdtemp(prefix="bulkhead-run-")
    maildir = top + "/m"
    for sub in ("cur", "new", "tmp"):
        os.makedirs(f"{maildir}/{sub}")
    world = World(maildir, time.time() + args.seconds)
    threads = [threading.Thread(target=deliver, args=(world,))]
    threads += [threading.Thread(target=imap_session, args=(world, k)) for k in range(IMAP)]
    threads += [threading.Thread(target=pop3_session, args=(world, k)) for k in range(POP3)]
    if shutil.which("mutt"):
        threads.append(threading.Thread(target=mutt, args=(world, top)))
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    REPORT.check("no session was told anything wrong", not world.errors, "; ".join(world.errors[:8]))
    try:
        exists, known = final(world)
        # mutt may have been through with what it was to remove, or not.
        want, may = set(world.delivered) - world.removing, set(world.delivered) - world.removed
        numbers = list(known.values())
        REPORT.check("each message once", len(set(numbers)) == len(numbers) == exists, f"{exists} {len(numbers)} {len(set(numbers))}")
        REPORT.check("none lost", want <= set(numbers), str(sorted(want - set(numbers))[:10]))
        REPORT.check("none came back", set(numbers) <= may, str(sorted(set(numbers) - may)[:10]))
        REPORT.check("one UIDVALIDITY", len(world.validity) == 1, str(world.validity))
        for name in ("bulkhead.index", "bulkhead.cache"):
            if os.path.exists(f"{maildir}/{name}"):
                os.unlink(f"{maildir}/{name}")
        again = final(world)
        REPORT.check("the same without an index", again == (exists, known), f"{again[0]} {exists}")
        REPORT.check("all took part", all(world.did.get(x, 0) > 0 for x in ("delivered", "append", "expunge", "store", "look",
                                                                             "pop3 session", "imap session")), str(world.did))
    except Exception as e:  # noqa: BLE001
        REPORT.check("a last look", False, f"{type(e).__name__}: {e}")
    print(" ".join(f"{k} {v}" for k, v in sorted(world.did.items())))
    shutil.rmtree(top, ignore_errors=True)
    REPORT.end()


main()
