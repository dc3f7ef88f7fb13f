#!/usr/bin/env python3
"""One Maildir, everybody at once: eight IMAP sessions, two of POP3, a stream of deliveries by SMTP, and mutt on the files
(a program that renames and removes as it likes, when it can be had). No UID twice, no message lost, no answer out of date.

check_maildir.py [--all]: ten minutes with --all (or MINUTES), else some seconds. Needs root for mutt to be the account's
user. Ends with "N passed, N failed"."""
import os
import poplib
import random
import re
import shutil
import smtplib
import socket
import subprocess
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from harness import Report, Suite, wait_for  # noqa: E402

REPORT = Report()
ROUND_S = 20
IMAPS, POPS = 8, 2
SECONDS = float(os.environ.get("MINUTES", 10)) * 60 if "--all" in sys.argv or "MINUTES" in os.environ else 8


class World:
    def __init__(self, suite):
        self.suite = suite
        self.lock = threading.Lock()
        self.stop = time.monotonic() + SECONDS
        self.added, self.removed = set(), set()  # markers
        self.uids, self.markers = {}, {}         # (uidvalidity, uid) -> marker, and back
        self.errors, self.did = [], {}
        self.turn = threading.Condition()
        self.paused, self.active = False, 0

    def note(self, what, n=1):
        with self.lock:
            self.did[what] = self.did.get(what, 0) + n

    def wrong(self, text):
        with self.lock:
            self.errors.append(text)

    def seen(self, validity, uid, marker):
        with self.lock:
            was, other = self.uids.setdefault((validity, uid), marker), self.markers.setdefault(marker, (validity, uid))
        if was != marker or other != (validity, uid):
            self.wrong(f"UID {uid} is {marker}, was {was}; {marker} was {other}")

    def __enter__(self):
        """Something that is to be over before views are compared."""
        with self.turn:
            self.turn.wait_for(lambda: not self.paused)
            self.active += 1

    def __exit__(self, *exc):
        with self.turn:
            self.active -= 1
            self.turn.notify_all()

    def pause(self, paused):
        with self.turn:
            self.paused = paused
            self.turn.notify_all()
            self.turn.wait_for(lambda: not paused or self.active == 0)

    def over(self):
        return time.monotonic() >= self.stop or len(self.errors) > 20


def text_of(marker):
    return f"From: a@example.org\r\nSubject: {marker}\r\n\r\nbody of {marker}\r\n".encode()


class Imap:
    def __init__(self, w):
        self.w = w
        self.sock = socket.create_connection(("127.0.0.1", w.suite.port["imap"]))
        self.sock.settimeout(60)
        self.file = self.sock.makefile("rb")
        self.file.readline()
        self.n = 0
        self.ask(b"LOGIN joe secret")
        self.select()

    def select(self):
        got = b"".join(self.ask(b"SELECT INBOX"))
        self.validity = int(re.search(rb"UIDVALIDITY (\d+)", got).group(1))

    def ask(self, line, may_fail=False):
        self.n += 1
        tag = b"t%d" % self.n
        self.sock.sendall(tag + b" " + line + b"\r\n")
        out = []
        while True:
            got = self.file.readline()
            if not got:
                raise ConnectionError("closed by the server: %r" % out[-3:])
            out.append(got)
            if got.startswith(tag + b" "):
                break
        if not may_fail and not out[-1].startswith(tag + b" OK"):
            raise RuntimeError("%r: %r" % (line[:80], out[-1]))
        return out

    def view(self):
        """{uid: flags}, and what each UID is."""
        out, got = {}, self.ask(b"UID FETCH 1:* (UID FLAGS BODY.PEEK[HEADER.FIELDS (SUBJECT)])", True)
        for line, after in zip(got, got[1:]):
            m = re.search(rb"\(UID (\d+) FLAGS \(([^)]*)\) BODY\[", line)
            if m and after.startswith(b"Subject: "):
                uid, flags = int(m.group(1)), frozenset(m.group(2).split()) - {b"\\Recent"}
                self.w.seen(self.validity, uid, after[9:].strip().decode())
                out[uid] = flags
        return out

    def close(self):
        self.file.close()
        self.sock.close()


def imap_work(w, k, barrier, views):
    rng, i, c = random.Random(k), 0, Imap(w)
    mine = []  # UIDs that only this one removes
    while not w.over():
        round_end = min(w.stop, time.monotonic() + ROUND_S)
        while time.monotonic() < round_end and not w.over():
            what = rng.randrange(8)
            if what == 0:
                marker = f"i{k}.{i}"
                i += 1
                data = text_of(marker)
                got = c.ask(b"APPEND INBOX {%d+}\r\n%s" % (len(data), data))
                uid = int(re.search(rb"APPENDUID \d+ (\d+)", got[-1]).group(1))
                with w.lock:
                    w.added.add(marker)
                w.seen(c.validity, uid, marker)
                mine.append((uid, marker))
            elif what == 1 and mine and rng.random() < 0.7:
                uid, marker = mine.pop(rng.randrange(len(mine)))
                with w.lock:
                    w.removed.add(marker)
                c.ask(b"UID STORE %d +FLAGS.SILENT (\\Deleted)" % uid, True)
                c.ask(b"UID EXPUNGE %d" % uid)
                w.note("expunged")
            elif what == 2:
                c.ask(b"UID STORE 1:* %sFLAGS.SILENT (k%d)" % (rng.choice((b"+", b"-")), k), True)
            elif what == 3 and mine:
                flag = rng.choice((b"\\Seen", b"\\Answered", b"\\Draft"))
                uid = rng.choice(mine)[0]
                c.ask(b"UID STORE %d +FLAGS (%s)" % (uid, flag), True)
                got = b"".join(c.ask(b"UID FETCH %d FLAGS" % uid, True))
                if b"FETCH" in got and flag not in got:
                    w.wrong(f"UID {uid} without {flag} just stored: {got}")
            elif what == 4:
                c.ask(b"SEARCH SUBJECT i%d." % k)
            elif what == 5:
                c.close()
                c = Imap(w)
            elif what == 6:
                c.view()
            else:
                c.ask(b"NOOP")
            w.note("imap")
        # All stop: then all must see the same.
        barrier.wait(120)
        if k == 0:
            w.pause(True)
            wait_for(lambda: not os.listdir(os.path.join(w.suite.dir, "queue", "new")), 60)
            time.sleep(0.5)
        barrier.wait(120)
        c.ask(b"NOOP")
        views[k] = c.view()
        barrier.wait(120)
        if k == 0:
            fresh = Imap(w)
            want = fresh.view()
            fresh.close()
            for other, view in views.items():
                if view != want:
                    odd = {u: (view.get(u), want.get(u)) for u in set(view) | set(want) if view.get(u) != want.get(u)}
                    w.wrong(f"session {other} is out of date: {dict(list(odd.items())[:3])}")
            w.note("rounds")
            w.pause(False)
        barrier.wait(120)
    c.close()


def pop_work(w, k):
    rng = random.Random(100 + k)
    while not w.over():
        with w:
            pop_session(w, rng)
        time.sleep(rng.random() / 5)


def pop_session(w, rng):
    try:
        p = poplib.POP3("127.0.0.1", w.suite.port["pop3"], timeout=60)
        p.user("joe")
        p.pass_("secret")
    except poplib.error_proto as e:
        if "IN-USE" not in str(e):
            w.wrong(f"POP3: {e}")
        w.note("pop3 in use")
        return
    try:
        n = p.stat()[0]
        for number in rng.sample(range(1, n + 1), min(n, 5)):
            head = p.top(number, 0)[1]
            marker = next(x[9:].decode() for x in head if x.startswith(b"Subject: "))
            if marker.startswith("d") and rng.random() < 0.5:  # of the deliveries it takes some away
                p.retr(number)
                with w.lock:
                    w.removed.add(marker)
                p.dele(number)
        w.note("pop3")
    except poplib.error_proto as e:
        if "removed" not in str(e):
            w.wrong(f"POP3: {e}")
    try:
        p.quit()
    except (poplib.error_proto, OSError):
        pass


def deliveries(w):
    i = 0
    while not w.over():
        with w, smtplib.SMTP("127.0.0.1", w.suite.port["smtp"]) as s:
            for _ in range(5):
                marker = f"d{i}"
                i += 1
                s.sendmail("x@example.net", ["joe@example.org"], text_of(marker))
                with w.lock:
                    w.added.add(marker)
                w.note("delivered")
        time.sleep(0.2)


def mutt_work(w, home):
    """Flags all that is new, and removes every third of its own."""
    d = w.suite.maildir("joe")
    st, i = os.stat(d), 0
    with open(os.path.join(home, "rc"), "w") as f:
        f.write("set quit=yes\nset delete=yes\nset sleep_time=0\nset wait_key=no\nset mark_old=no\nset mbox_type=Maildir\n"
                "set confirmappend=no\nset move=no\n")
    os.chown(home, st.st_uid, st.st_gid)
    while not w.over():
        with w:
            mutt_session(w, home, d, st, i)
        i += 1
        time.sleep(0.3)


def mutt_session(w, home, d, st, i):
    marker = f"m{i}"
    name = "%d.mutt%d.here" % (time.time(), i)
    path = os.path.join(d, "tmp", name)
    with open(path, "wb") as f:
        f.write(text_of(marker))
    os.chown(path, st.st_uid, st.st_gid)
    with w.lock:
        w.added.add(marker)
    os.rename(path, os.path.join(d, "new", name))
    push = "<tag-pattern>~N<enter><tag-prefix-cond><set-flag>!<end-cond><untag-pattern>~A<enter>"
    if i % 3 == 0:
        with w.lock:
            w.removed.add(marker)
        push += f"<delete-pattern>~s'^{marker}$'<enter>"
    command = f"mutt -n -F {home}/rc -f {d} -e \"push {push}<quit>\""
    try:
        subprocess.run(["setpriv", "--reuid", str(st.st_uid), "--regid", str(st.st_gid), "--clear-groups", "script", "-qec",
                        command, "/dev/null"], env=dict(os.environ, TERM="xterm", HOME=home), capture_output=True,
                       timeout=40, stdin=subprocess.DEVNULL)
        w.note("mutt")
    except subprocess.TimeoutExpired:
        w.note("mutt stuck")


def guarded(w, fn, *args):
    def run():
        try:
            fn(w, *args)
        except Exception as e:  # noqa: BLE001: a worker that dies has found something
            w.wrong(f"{fn.__name__}{args[:1]}: {type(e).__name__}: {e}")
            for a in args:
                if isinstance(a, threading.Barrier):
                    a.abort()
    t = threading.Thread(target=run)
    t.start()
    return t


def on_disk(w):
    out = []
    for sub in ("new", "cur"):
        d = os.path.join(w.suite.maildir("joe"), sub)
        for name in os.listdir(d):
            with open(os.path.join(d, name), "rb") as f:
                out.append(re.search(rb"Subject: (\S+)", f.read()).group(1).decode())
    return out


def main():
    home = f"/tmp/bulkhead-test-mutt-{os.getpid()}"
    os.mkdir(home)
    with Suite(blocks={"imapd": ["park 2s"]}) as suite:
        suite.add("joe", "secret")
        w = World(suite)
        c = Imap(w)
        c.close()
        barrier, views = threading.Barrier(IMAPS), {}
        threads = [guarded(w, imap_work, k, barrier, views) for k in range(IMAPS)]
        # Who is no IMAP session pauses while views are compared.
        others = [guarded(w, pop_work, k) for k in range(POPS)] + [guarded(w, deliveries)]
        if os.geteuid() == 0 and shutil.which("mutt"):
            others.append(guarded(w, mutt_work, home))
        for t in threads + others:
            t.join()
        wait_for(lambda: not os.listdir(os.path.join(suite.dir, "queue", "new")), 60)
        time.sleep(1)
        there = on_disk(w)
        print("     " + ", ".join(f"{v} {k}" for k, v in sorted(w.did.items())) + f", {len(there)} left")
        lost = w.added - w.removed - set(there)
        REPORT.check("nothing went wrong on the way", not w.errors, "\n".join(w.errors[:10]))
        REPORT.check("no message is lost", not lost, str(sorted(lost)[:10]))
        REPORT.check("no message is there twice", len(there) == len(set(there)))
        c = Imap(w)
        view = c.view()
        REPORT.check("each message has one UID, and always the same", len(view) == len(there) and not w.errors,
                     f"{len(view)} of {len(there)}")
        c.close()
    shutil.rmtree(home, ignore_errors=True)
    REPORT.end()


if __name__ == "__main__":
    main()
