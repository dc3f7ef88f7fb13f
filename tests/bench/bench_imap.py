#!/usr/bin/env python3
"""imapd and pop3d beside Dovecot, Courier and Cyrus of Debian (imap_peers.py), in one run, on copies of the same Maildir of
varied messages; the servers take turns, row by row. Everything goes over loopback without TLS, but for the idle sessions
that say TLS. Medians; milliseconds unless the row says something else.

Before the rows on one session all servers have been asked everything once, so all have their indexes and caches. "cold": the
kernel has dropped its caches. "index gone": what can be made anew is removed before. What a server has not answered in
--cap seconds the first time counts as that long, and is not asked again. Ratios: the best of the others to
Bulkhead, and Dovecot to Bulkhead; above 1 Bulkhead is ahead.

--messages 20000 200000 --idle 2000 is the whole, and takes an hour; the default ends in minutes."""
import argparse
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
import imap_peers  # noqa: E402
from imap_peers import Pop, pss_kib  # noqa: E402

LOAD = os.path.join(os.path.dirname(imap_peers.Suite.__init__.__globals__["BIN"]), "imap_load")
FIELDS = "BODY.PEEK[HEADER.FIELDS (DATE FROM SUBJECT TO CC MESSAGE-ID REFERENCES CONTENT-TYPE)]"
# What is measured on one session, with everything warm.
WARM = [
    ("FETCH FLAGS", "FETCH 1:* (FLAGS)"),
    ("FETCH ENVELOPE", "FETCH 1:* (ENVELOPE)"),
    ("FETCH ENVELOPE and structure", "FETCH 1:* (ENVELOPE BODYSTRUCTURE)"),
    ("FETCH header fields", f"FETCH 1:* (UID {FIELDS})"),
    ("FETCH FLAGS UID SIZE DATE", "FETCH 1:* (FLAGS UID RFC822.SIZE INTERNALDATE)"),
    ("FETCH all bodies", "FETCH 1:* (BODY.PEEK[])"),
    ("SEARCH header", "SEARCH SUBJECT w4711"),
    ("SEARCH body", "SEARCH BODY w4711"),
    ("SORT DATE", "SORT (DATE) UTF-8 ALL"),
    ("SORT SUBJECT", "SORT (SUBJECT) UTF-8 ALL"),
    ("THREAD REFERENCES", "THREAD REFERENCES UTF-8 ALL"),
]
SHORT = ["LOGIN bench%u x", "SELECT INBOX", "FETCH 1:10 (UID FLAGS ENVELOPE)", "FETCH 5 (BODY.PEEK[])", "LOGOUT"]
IDLE = ["LOGIN bench%u x", "SELECT INBOX", "IDLE"]
IDLE_USERS = 20


def make(directory, n, sub="cur"):
    """A Maildir of n messages, the same each time."""
    for d in ("cur", "new", "tmp"):
        os.makedirs(os.path.join(directory, d))
    r = random.Random(1)
    words = ["w%d" % i for i in range(5000)]
    for i in range(n):
        body = "\r\n".join(" ".join(r.choices(words, k=10)) for _ in range(10 + i % 40))
        head = ("Return-Path: <u%d@example.org>\r\nReceived: from a.example.org (a.example.org [192.0.2.1])\r\n"
                "\tby mx.example.net with ESMTP id %08x\r\n\tfor <me@example.net>; Fri, 21 Nov 2025 09:55:06 +0000\r\n"
                "From: User %d <user%d@example%d.org>\r\nTo: Me <me@example.net>, \"Other, P\" <o%d@example.com>\r\n"
                "Subject: %s\r\nDate: Fri, %02d Nov 2025 %02d:%02d:06 +0000\r\nMessage-ID: <%d.x@example.org>\r\n"
                % (i, i, i % 997, i % 997, i % 31, i % 13, " ".join(r.choices(words, k=6)), 1 + i % 28, i % 24, i % 60, i))
        if i > 5 and i % 3:
            head += "In-Reply-To: <%d.x@example.org>\r\nReferences: <%d.x@example.org> <%d.x@example.org>\r\n" % (
                i - 1, i - 2, i - 1)
        if i % 3 == 0:
            head += "MIME-Version: 1.0\r\nContent-Type: multipart/alternative; boundary=\"b%d\"\r\n" % i
            body = ("--b%d\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n%s\r\n--b%d\r\n"
                    "Content-Type: text/html; charset=utf-8\r\n\r\n<p>%s</p>\r\n--b%d--\r\n" % (i, body, i, body, i))
        text = head + "\r\n" + body + "\r\n"
        name = "%s/%s/%d.M%dP1.host,S=%d,W=%d:2,%s" % (
            directory, sub, 1700000000 + i, i, len(text), len(text), r.choice(["", "S", "S", "FS", "RS"]))
        with open(name, "w", newline="") as f:
            f.write(text)
        os.utime(name, (1700000000 + i, 1700000000 + i))


class Table:
    def __init__(self, names):
        self.names = names
        self.ahead = self.behind = self.twice = self.compared = 0

    def head(self, text):
        print(f"\n{text:32} " + " ".join(f"{n:>10}" for n in self.names) + f" {'best':>7} {'Dovecot':>7}", flush=True)

    def row(self, text, got, more_is_better=False):
        """got: {name: number}; those without one could not be measured."""
        ours, others = got.get("Bulkhead"), {n: v for n, v in got.items() if n != "Bulkhead" and v}
        line = f"{text:32} " + " ".join(f"{got[n]:10.2f}" if got.get(n) else f"{'-':>10}" for n in self.names)
        if ours and others:
            ratio = (lambda other: ours / other) if more_is_better else (lambda other: other / ours)
            best = min(ratio(v) for v in others.values())
            self.ahead += best >= 1
            self.behind += best < 1
            line += f" {best:6.2f}x"
            if "Dovecot" in others:
                self.compared += 1
                self.twice += ratio(others["Dovecot"]) >= 2
                line += f" {ratio(others['Dovecot']):6.2f}x"
            line += "  behind" if best < 1 else ""
        print(line, flush=True)


def each(peers, what):
    """{name: median}, the servers in turn; who cannot do it is left out."""
    out = {}
    for p in peers:
        try:
            times = what(p)
        except (RuntimeError, EOFError, OSError) as e:
            print(f"  {p.name}: {str(e)[:150]}", file=sys.stderr)
            continue
        if times:
            out[p.name] = statistics.median(times)
    return out


def drop_caches():
    os.sync()
    with open("/proc/sys/vm/drop_caches", "w") as f:
        f.write("3")


class OneSession:
    """The rows of one mailbox."""

    def __init__(self, peers, table, source, n, rounds, cap):
        self.peers, self.table, self.source, self.n, self.rounds, self.cap = peers, table, source, n, rounds, cap
        self.sessions, self.slow = {}, set()

    def select(self, p):
        c = p.open()
        ms = c.run("SELECT INBOX")
        c.close()
        return ms

    def first(self, p):
        times = []
        for _ in range(min(self.rounds, 3)):
            p.fill(0, self.source)
            if not p.uses_maildir:
                return None
            os.sync()
            times.append(self.select(p))
        return times

    def index_gone(self, p):
        times = []
        for _ in range(self.rounds):
            if not p.forget():
                return None
            times.append(self.select(p))
        return times

    def cold(self, p):
        times = []
        for _ in range(min(self.rounds, 3)):
            c = p.open()  # the program itself is to be warm
            drop_caches()
            times.append(c.run("SELECT INBOX"))
            c.close()
        return times

    def prepare(self, p):
        """Everything once, and who is too slow for it is known."""
        c = p.open()
        c.run("SELECT INBOX")
        c.sock.settimeout(self.cap)
        for _, command in WARM:
            try:
                c.run(command)
            except RuntimeError:
                pass
            except (OSError, EOFError):
                print(f"  {p.name}: {command[:40]}: more than {self.cap} s", file=sys.stderr)
                self.slow.add((p.name, command))
                c.close()
                p.end_sessions()
                c = p.open()
                c.run("SELECT INBOX")
                c.sock.settimeout(self.cap)
        while p.name == "Bulkhead" and os.path.exists(p.maildir(0) + "/bulkhead-adopt"):
            c.run("NOOP")  # files that were taken in get their names meanwhile
            time.sleep(0.1)
        c.close()

    def ask(self, p, command):
        """As often as --rounds says, three times that if it is quick, fewer if it is slow."""
        if (p.name, command) in self.slow:
            return [self.cap * 1000]
        times = []
        while len(times) < self.rounds or (len(times) < 3 * self.rounds and sum(times) < 1000):
            times.append(self.sessions[p].run(command))
            if len(times) >= 3 and sum(times) > 10000:
                break
        return times

    def store(self, p):
        return [self.sessions[p].run("STORE 1:* %sFLAGS.SILENT (\\Draft)" % "+-"[k % 2]) for k in range(self.rounds)]

    def append(self, p):
        text = b"From: a@example.org\r\nSubject: appended\r\n\r\n" + b"text\r\n" * 300
        c = self.sessions[p]
        return [sum(c.run("APPEND INBOX (\\Seen)", text) for _ in range(1000))]

    def folder(self, p):
        return "INBOX." if p.name == "Courier" else "INBOX/" if p.name == "Cyrus" else ""

    def copy(self, p):
        self.sessions[p].run(f"CREATE {self.folder(p)}Copy")
        return [self.sessions[p].run(f"COPY 1:* {self.folder(p)}Copy")]

    def expunge(self, p):
        self.sessions[p].run(f"STORE 1:{self.n // 2} +FLAGS.SILENT (\\Deleted)")
        return [self.sessions[p].run("EXPUNGE")]

    def move(self, p):
        if p.name == "Courier":
            return None  # has no MOVE
        self.sessions[p].run(f"CREATE {self.folder(p)}Moved")
        return [self.sessions[p].run(f"MOVE 1:* {self.folder(p)}Moved")]

    def pop(self, p):
        out = {}
        for name, run in (("POP3 STAT", lambda c: c.run("STAT")), ("POP3 UIDL", lambda c: c.run("UIDL", many=True)),
                          ("POP3 RETR of 1,000", lambda c: c.retrieve(min(self.n, 1000)))):
            def one(p, run=run):
                times = []
                for _ in range(self.rounds):
                    c = Pop(p.pop_port, "bench0")
                    times.append(run(c))
                    c.run("QUIT")
                    c.close()
                return times
            out[name] = one
        return out

    def run(self):
        row = self.table.row
        row("SELECT, foreign Maildir, first", each(self.peers, self.first))
        row("SELECT, index gone", each(self.peers, self.index_gone))
        for p in self.peers:
            self.prepare(p)
        row("SELECT, new session, cold", each(self.peers, self.cold))
        row("SELECT, new session", each(self.peers, lambda p: [self.select(p) for _ in range(20)]))
        for p in self.peers:
            self.sessions[p] = p.open()
            self.sessions[p].run("SELECT INBOX")
        for name, command in WARM:
            row(name, each(self.peers, lambda p, c=command: self.ask(p, c)))
        for name, what in self.pop(None).items():
            row(name, each(self.peers, what))
        row("STORE on all", each(self.peers, self.store))
        row("APPEND of 1,000", each(self.peers, self.append))
        row("COPY of all", each(self.peers, self.copy))
        row("EXPUNGE of half", each(self.peers, self.expunge))
        row("MOVE of all", each(self.peers, self.move))
        for c in self.sessions.values():
            c.close()


def load(how, port, users, at_once, total, commands):
    return [LOAD, how, str(port), str(users), str(at_once), str(total), *commands]


def short_sessions(p, total, rounds):
    """[(sessions a second, CPU ms each)]"""
    out = []
    for r in range(rounds + 1):
        before = p.cgroup.cpu()
        done = subprocess.run(load("run", p.port, IDLE_USERS, 100, total, SHORT), capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"short sessions: {done.stdout} {done.stderr[-300:]}")
        time.sleep(0.3)
        if r:
            out.append((total / float(done.stdout.split()[0]), (p.cgroup.cpu() - before) * 1000 / total))
    return out


def hold_plain(p, n):
    process = subprocess.Popen(load("hold", p.port, IDLE_USERS, 20, n, IDLE), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, text=True)
    said = process.stdout.readline() + process.stdout.readline()
    if "ready" not in said:
        raise RuntimeError(f"idle sessions: {said} {process.stderr.read()[-300:]}")
    return lambda: process.communicate()


def hold_tls(p, n):
    import ssl
    context = ssl._create_unverified_context()
    socks = []
    for i in range(n):
        s = context.wrap_socket(imap_peers.socket.create_connection(("127.0.0.1", p.tls_port)))
        s.settimeout(60)
        s.recv(4096)
        for k, command in enumerate(IDLE):
            s.sendall(f"a{k} {command.replace('%u', str(i % IDLE_USERS))}\r\n".encode())
            data = b""
            while f"a{k} OK".encode() not in data and not (command == "IDLE" and b"+ " in data):
                more = s.recv(65536)
                if not more or f"a{k} NO".encode() in data:
                    raise RuntimeError(f"TLS session {i}: {command}: {data[-100:]}")
                data += more
        socks.append(s)
    return lambda: [s.close() for s in socks]


def idle_kib(p, n, hold):
    """Memory of each of n sessions that say IDLE."""
    time.sleep(1)
    before = pss_kib(p.pids())
    let_go = hold(p, n)
    try:
        time.sleep(2)
        return [(pss_kib(p.pids()) - before) / n]
    finally:
        let_go()
        time.sleep(1)


def many_sessions(peers, table, args, work):
    source = os.path.join(work, "small")
    make(source, 200)
    for p in peers:
        for user in range(IDLE_USERS):
            p.fill(user, source)
    table.head(f"{args.sessions} short sessions, 100 at once")
    got = {}
    for p in peers:
        try:
            got[p.name] = short_sessions(p, args.sessions, args.rounds)
        except RuntimeError as e:
            print(f"  {p.name}: {e}", file=sys.stderr)
    table.row("a second", {n: statistics.median(x[0] for x in v) for n, v in got.items()}, more_is_better=True)
    table.row("CPU ms each", {n: statistics.median(x[1] for x in v) for n, v in got.items()})
    if not args.idle:
        return
    table.head(f"{args.idle} idle sessions, KiB each")
    table.row("plain", each(peers, lambda p: idle_kib(p, args.idle, hold_plain)))
    table.row("TLS", each([p for p in peers if p.tls_port], lambda p: idle_kib(p, args.idle, hold_tls)))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, nargs="*", default=[10000])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--cap", type=int, default=120)
    parser.add_argument("--sessions", type=int, default=1000)
    parser.add_argument("--idle", type=int, default=200)
    parser.add_argument("--peers", nargs="*", default=["Dovecot", "Courier", "Cyrus"])
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended"))
    peers, work = [], tempfile.mkdtemp(prefix="bulkhead-bench-")
    try:
        for name in ["Bulkhead", *args.peers]:
            try:
                peers.append(getattr(imap_peers, name)(IDLE_USERS))
            except (RuntimeError, AssertionError, subprocess.CalledProcessError) as e:
                print(f"{name} cannot be started: {e}", file=sys.stderr)
        table = Table([p.name for p in peers])
        print(f"medians of {args.rounds} rounds; best: the best of the others to Bulkhead")
        for n in args.messages:
            source = os.path.join(work, f"m{n}")
            make(source, n)
            table.head(f"{n} messages, ms")
            OneSession(peers, table, source, n, args.rounds, args.cap).run()
            shutil.rmtree(source)
        if args.sessions:
            many_sessions(peers, table, args, work)
    finally:
        for p in peers:
            p.stop()
        shutil.rmtree(work, ignore_errors=True)
    print(f"\nahead of the best in {table.ahead} of {table.ahead + table.behind} rows, twice Dovecot in "
          f"{table.twice} of {table.compared}")
    half = table.twice * 2 >= table.compared
    print(f"{table.ahead + half} passed, {table.behind + (not half)} failed")
    return bool(table.behind or not half)


if __name__ == "__main__":
    sys.exit(main())
