"""What the rigs of tests/fault share: a small instance, another host, a client that notes what it was told, the
draining of the queue, and the comparison of what came with what was promised.

The recipients: box@ and bin@ have mailboxes; team@ is an alias for both and for far@far.example; slow@ leads to an
address that the other host puts off at first; gone@ to one that it refuses, so the sender gets a bounce; told@ to bin@, and
whoever sends to it asks for a report of success.
"""
import glob
import os
import re
import signal
import socket
import subprocess
import sys
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(ROOT, "tests"))
from fake_mx import FakeMX  # noqa: E402
from harness import Report, Suite, free_ports, wait_for  # noqa: E402, F401

BUILD = os.path.dirname(os.environ.get("BULKHEAD_BIN", os.path.join(ROOT, "build", "bin")))
TRACE = os.path.join(BUILD, "fault", "trace")
SENDER = "box@example.org"
signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # what was started is stopped, what was mounted unmounted
ALIASES = ("team: box, bin, far@far.example\nslow: slow@far.example\ngone: gone@far.example\n"
           "both: team, slow\ntold: bin\n")
# What each recipient must come to: (where, who).
ENDS = {"box": {("box", "box")}, "bin": {("box", "bin")},
        "team": {("box", "box"), ("box", "bin"), ("far", "far@far.example")},
        "slow": {("far", "slow@far.example")}, "gone": {("bounce", "gone@far.example")},
        "told": {("box", "bin"), ("bounce", "bin@example.org")},
        "both": {("box", "box"), ("box", "bin"), ("far", "far@far.example"), ("far", "slow@far.example")}}


def alone():
    """In a mount namespace of our own, where there can be one (not in a root directory that is no mount): one that somebody else
    makes meanwhile would hold our disks."""
    private = ["unshare", "-m", "--propagation", "private"]
    if os.geteuid() == 0 and "BULKHEAD_ALONE" not in os.environ:
        os.environ["BULKHEAD_ALONE"] = "1"
        if subprocess.run([*private, "true"], stderr=subprocess.DEVNULL, check=False).returncode == 0:
            os.execvp("unshare", [*private, sys.executable, *sys.argv])


class Host(FakeMX):
    """Another host. Takes all, but gone@ (never) and slow@ (not at the first try of a message)."""

    def __init__(self):
        self.got, self.timed = [], []  # (recipient, text); and of all, when
        self.slow_answers = 1
        self.seen = {}
        super().__init__()

    def rcpt(self, who):
        if who.startswith("gone@"):
            return b"550 5.1.1 no such user\r\n"
        if who.startswith("slow@"):
            self.seen[who] = self.seen.get(who, 0) + 1
            if self.seen[who] <= self.slow_answers:
                return b"450 4.2.0 later\r\n"
        return b"250 ok\r\n"

    def kept(self, text, rcpts, when):
        self.got += [(who, text) for who in rcpts]
        self.timed += [((who, text), when) for who in rcpts]


def body_of(token, size):
    """A body that tells when anything of it is missing."""
    lines, n = [], 0
    while n < size:
        lines.append(f"{token} {len(lines):08d} {'x' * 50}\r\n")
        n += len(lines[-1])
    return "".join(lines) + f"end-{token}\r\n"


class Client:
    """Sends messages; notes for each token what it was told: an answer, or "" when the connection ended."""

    source = "127.0.0.1"

    def __init__(self, port, timeout=20):
        self.port, self.timeout = port, timeout
        self.told = {}  # token -> (answer to the final dot, recipients, size)
        self.when = {}

    def send(self, token, rcpts=("box",), size=200, sender=SENDER, domain="example.org"):
        self.told[token] = ("", tuple(rcpts), size)
        try:
            answer = self.talk(token, [f"{r}@{domain}" for r in rcpts], size, sender)
        except OSError:
            answer = ""
        self.told[token] = (answer, tuple(rcpts), size)
        self.when[token] = time.monotonic()
        return answer

    def talk(self, token, rcpts, size, sender):
        with socket.create_connection(("127.0.0.1", self.port), self.timeout, (self.source, 0)) as c:
            c.settimeout(self.timeout)
            f = c.makefile("rb")

            def ask(line):
                if line:
                    c.sendall(line.encode() + b"\r\n")
                while True:
                    answer = f.readline().decode(errors="replace")
                    if answer[3:4] != "-":
                        return answer

            for line in ["", "EHLO client.example", f"MAIL FROM:<{sender}>",
                         *[f"RCPT TO:<{r}>" + " NOTIFY=SUCCESS" * r.startswith("told@") for r in rcpts], "DATA"]:
                answer = ask(line)
                if answer[:1] not in ("2", "3"):
                    return answer
            text = f"From: {sender}\r\nSubject: {token}\r\n\r\n" + body_of(token, size) + "."
            answer = ask(text)
            if answer:
                c.sendall(b"QUIT\r\n")
            return answer

    def accepted(self):
        return {t: v for t, v in self.told.items() if v[0].startswith("250")}


class Instance(Suite):
    """smtpd, qmgr, local, relay and what they need; with another host of its own."""

    def __init__(self, host=None, queue="retry 1s\nretry-max 1s", extra="", submit=False):
        self.host = host or Host()
        super().__init__(tls=False, aliases=ALIASES, queue=queue, extra=extra,
                         blocks={"relay": [f"via 127.0.0.1 port {self.host.port}"]})
        self.drop_blocks(("pop3d", "imapd") + (() if submit else ("submitd",)))

    def drop_blocks(self, names):
        with open(self.conf) as f:
            text = f.read()
        for name in names:
            text = re.sub(r"^" + name + r" \{\n(  .*\n)*\}\n", "", text, flags=re.M)
        with open(self.conf, "w") as f:
            f.write(text)

    def accounts(self):
        for name in ("box", "bin"):
            self.add(name, "secret")
        return self

    def accounts_made(self):
        """The same, and down again."""
        self.start()
        self.accounts()
        self.ctl("stop")
        return self

    def client(self, timeout=20):
        return Client(self.port["smtp"], timeout)

    def queue_dir(self):
        return self.dir + "/queue"

    def queued(self):
        q = self.queue_dir()
        return glob.glob(f"{q}/new/*") + glob.glob(f"{q}/cur/*/*")

    def log_text(self):
        try:
            with open(self.log, errors="replace") as f:
                return f.read()
        except OSError:
            return ""

    def pid(self, program):
        return next((r["pid"] for r in self.status() if r["program"] == program), 0)

    def ready(self, seconds=20):
        """Every program is up."""
        wait_for(lambda: (lambda s: s and all(r["state"] == "ready" for r in s))(self.status()),
                 seconds, 0.02)

    def drain(self, seconds=30):
        """Until the queue is empty; whether it became so."""
        end = time.monotonic() + seconds
        asked = 0.0
        while self.queued():
            if time.monotonic() > end:
                return False
            if time.monotonic() > asked + 0.3:
                self.ctl("queue", "retry", "all", check=False)
                asked = time.monotonic()
            time.sleep(0.02)
        return True


FOLLOWED = ("qmgr", "smtpd", "local", "relay", "launcher")


def parents():
    """{process: its parent}"""
    out = {}
    for p in os.listdir("/proc"):
        if p.isdigit():
            try:
                with open(f"/proc/{p}/stat") as f:
                    out[int(p)] = int(f.read().rpartition(")")[2].split()[1])
            except OSError:
                pass
    return out


def programs_of(suite):
    """What trace is to follow: the programs of an instance, and the processes that they have forked ("NAME+")."""
    programs = {r["pid"]: r["program"] for r in suite.status() if r["program"] in FOLLOWED and r["pid"]}
    up = parents()
    pids = [f"{name}={pid}" for pid, name in programs.items()]
    return pids + [f"{programs[up[pid]]}+={pid}" for pid in up if up[pid] in programs and pid not in programs]


def all_below(pid):
    """The same for any system: a process and all that descend from it, by the names of their programs."""
    up, found = parents(), [pid]
    for p in found:
        found += [q for q in up if up[q] == p]
    out = []
    for p in found:
        try:
            out.append(f"{os.path.basename(os.readlink(f'/proc/{p}/exe'))}={p}")
        except OSError:
            pass
    return out


class Traced:
    """trace, following these processes ("ROLE=PID"), or the programs of an instance."""

    def __init__(self, who, *options):
        pids = who if isinstance(who, list) else programs_of(who)
        self.p = subprocess.Popen([TRACE, *options, *pids], stdout=subprocess.PIPE, text=True)
        if self.p.stdout.readline().strip() != "ready":
            raise RuntimeError("trace cannot follow")

    def end(self):
        """(what was hit, or '', {(role, call): how often it was made})"""
        self.p.send_signal(signal.SIGTERM)
        out = self.p.communicate(timeout=20)[0].split("\n")
        hit = next((line[4:] for line in out if line.startswith("hit ")), "")
        rows = [line.split() for line in out if line.startswith("calls ")]
        return hit, {(role, call): int(n) for _, role, call, n in rows}


def end_of(token, size):
    return body_of(token, size).encode()


def token_of(text):
    m = re.search(rb"^Subject: (\S+)\r?$", text, re.M)
    return m.group(1).decode() if m else ""


def arrivals(boxes, far):
    """{(token, where, who): [texts]}: boxes is {name: [texts]}, far a list of (recipient, text)."""
    got = {}
    for name, texts in boxes.items():
        for text in texts:
            text = text.replace(b"\r\n", b"\n")  # as others keep it
            if b"message/delivery-status" in text:
                inner = re.findall(rb"^Subject: (\S+)\r?$", text, re.M)
                tokens = [t.decode() for t in inner if t != b"Undelivered"]
                for who in re.findall(rb"^Final-Recipient: rfc822; ?(\S+?)\r?$", text, re.M):
                    # Exim names the address as the client gave it.
                    who = "gone@far.example" if who.startswith(b"gone@") else who.decode()
                    got.setdefault((tokens[-1] if tokens else "", "bounce", who), []).append(text)
            else:
                got.setdefault((token_of(text), "box", name), []).append(text)
    for who, text in far:
        got.setdefault((token_of(text), "far", who), []).append(text.replace(b"\r\n", b"\n"))
    return got


class Result:
    """lost: promised and not there. twice: in a mailbox more than once. again: at another host, or a bounce, more
    than once, which a crash may cause. cut: not the whole text."""

    def __init__(self):
        self.lost, self.twice, self.again, self.cut, self.promised = [], [], [], [], 0

    def ok(self):
        return not (self.lost or self.twice or self.cut)

    def text(self):
        parts = [f"{k} {v[:3]}" for k, v in (("lost", self.lost), ("twice", self.twice), ("cut", self.cut)) if v]
        return ", ".join(parts)


def compare(told, boxes, far):
    r = Result()
    got = arrivals(boxes, far)
    for token, (answer, rcpts, _) in told.items():
        if not answer.startswith("250"):
            continue
        for end in set().union(*(ENDS[x] for x in rcpts)):
            r.promised += 1
            if not got.get((token, *end)):
                r.lost.append((token, *end))
    for (token, where, who), texts in got.items():
        if len(texts) > 1:
            (r.twice if where == "box" else r.again).append((token, where, who))
        size = told[token][2] if token in told else 0
        if where != "bounce" and not all(t.endswith(end_of(token, size).replace(b"\r\n", b"\n")) for t in texts):
            r.cut.append((token, where, who))
    return r


def outcome(instance, client, host=None):
    """Of a running instance, once it is drained."""
    boxes = {n: instance.messages(n) for n in ("box", "bin")}
    return compare(client.told, boxes, (host or instance.host).got)
