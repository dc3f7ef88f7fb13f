#!/usr/bin/env python3
"""Every role taken over: builds of the programs that play the taken process (tests/fault/breach) try every system call,
10,000 paths, sockets, every message through every door, and fill memory and descriptors. What they reach is compared
with what docs/SECURITY.md and docs/ARCHITECTURE.md say; anything more fails.

    check_breach.py          a slice: three roles, a sample of the calls
    check_breach.py --all    everything, and the figures beside Postfix and Dovecot (root only)
"""
import errno
import json
import os
import re
import shutil
import smtplib
import socket
import ssl
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
import harness  # noqa: E402
from harness import Report, Suite, number, rows, wait_for  # noqa: E402

BREACH = os.path.join(os.path.dirname(harness.BIN), "breach", "bin")
CALLS_MAX = 470
# uretprobe and uprobe: the kernel (6.14 and later) lets them past every filter, and then refuses who is no probe.
PAST_FILTERS = {335: "signal 4", 336: "returned %d" % errno.ENXIO}
CELLS = ["imapd-cell", "pop3d-cell", "local-cell"]
SERVICES = ["authd", "keyd", "dnsd", "idled", "qmgr", "launcher"]
LISTENERS = ["smtpd", "submitd", "pop3d", "imapd", "tlsd", "local", "relay"]
BATCHES = [["smtpd", "submitd"], ["pop3d", "imapd"], ["tlsd", "local"], ["relay", "dnsd"], ["authd", "keyd"],
           ["qmgr", "launcher"], ["idled"]]
DIRECTORY = {"authd": "state", "qmgr": "queue"}
SPECIALS = ["executable memory", "memory made executable", "a user namespace", "a thread", "Unix datagrams",
            "a Unix socket", "a netlink socket", "a packet socket", "an AF_ALG socket", "F_SETOWN", "F_SETSIG",
            "O_ASYNC", "the x32 table", "the 32-bit table", "cutting the log", "the log no longer only for appending",
            "a file that it holds mapped for writing"]


def numbers():
    """Of each system call its number."""
    text = subprocess.run(["cc", "-E", "-dM", "-include", "asm/unistd.h", "-x", "c", "/dev/null"], check=True,
                          capture_output=True, text=True).stdout
    return {name: int(nr) for name, nr in re.findall(r"#define __NR_(\w+) (\d+)", text)}


def some_paths(top, n):
    """n paths that somebody might try: of the suite, of the system, of other processes, and around walls."""
    out = ["/", "/etc/passwd", "/etc/shadow", "/root", "..", "../..", ".", "/proc/self/mem", "/proc/self/root/etc/passwd",
           "/proc/1/root/etc/shadow", "/dev/mem", "/dev/kmem", "/dev/sda", "/dev/vda", "/dev/ptmx", "//etc//passwd",
           "../../../../../../etc/shadow", "/sys/kernel/security", "/run/docker.sock", "/proc/sysrq-trigger",
           "alice", "../alice", "../../alice/new", "accounts", "/accounts", "new", "cur", "tmp", "/new/..", "key.pem"]
    for base, dirs, files in os.walk(top):
        out += [os.path.join(base, f) for f in files + dirs]
        out += ["../" * 8 + os.path.join(base, f)[1:] for f in files]
    for pid in list(range(1, 60)) + [os.getpid(), os.getppid()]:
        out += [f"/proc/{pid}/{f}" for f in ("mem", "environ", "maps", "fd/0", "fd/3", "root/etc/shadow", "cwd", "exe")]
    for base, dirs, files in os.walk("/etc"):
        out += [os.path.join(base, f) for f in files]
    for base, dirs, files in os.walk("/usr/share"):
        if len(out) >= n:
            break
        out += [os.path.join(base, f) for f in files]
    return [p for p in out if "\n" not in p and len(p) < 480][:n]


class Breach:
    """A tree of the playing builds, and an instance of the suite that runs them."""

    def __init__(self):
        self.dir = tempfile.mkdtemp(prefix="bulkhead-breach-")
        os.chmod(self.dir, 0o755)
        shutil.copytree(BREACH, self.dir + "/bin")
        self.jobs = self.dir + "/jobs"
        os.mkdir(self.jobs)
        harness.BIN = self.dir + "/bin"
        self.canary = socket.socket()
        self.canary.bind(("127.0.0.1", 0))
        self.canary.listen(64)
        self.abstract = socket.socket(socket.AF_UNIX)
        self.abstract.bind("\0bulkhead-breach")
        self.abstract.listen(8)
        self.other_host = socket.socket()
        self.other_host.bind(("127.0.0.1", 0))
        self.other_host.listen(64)
        port = self.relay_port = self.other_host.getsockname()[1]
        self.suite = Suite(relay_port=port, blocks={"smtpd": ["relay-from 127.0.0.0/8"], "relay": [f"via 127.0.0.1 port {port}"]})

    def write(self, name, text, mode=0o644):
        with open(os.path.join(self.jobs, name), "w") as f:
            f.write(text)
        os.chmod(os.path.join(self.jobs, name), mode)

    def set_jobs(self, roles, text):
        for name in os.listdir(self.jobs):
            os.unlink(os.path.join(self.jobs, name))
        self.write("paths", "\n".join(self.paths) + "\n")
        ports = sorted(set(self.suite.port.values()))
        self.write("ports", "\n".join(map(str, ports + [self.canary.getsockname()[1],
                                                        self.relay_port])) + "\n")
        for role in roles:
            self.write(role + ".job", text)
            self.write(role + ".out", "", 0o666)

    def out(self, role):
        with open(os.path.join(self.jobs, role + ".out"), errors="replace") as f:
            return f.read().splitlines()

    def provoke(self, roles):
        """A session of each."""
        s, held = self.suite, []

        def connect(service):
            c = socket.create_connection(("127.0.0.1", s.port[service]), timeout=60)
            held.append(c)
            return c
        for role, service in (("smtpd", "smtp"), ("submitd", "submission"), ("pop3d", "pop3"), ("imapd", "imap")):
            if role in roles:
                connect(service)
        if "tlsd" in roles:
            try:
                ssl._create_unverified_context().wrap_socket(connect("imaps"))
            except OSError:
                pass
        if "local" in roles or "relay" in roles:
            with smtplib.SMTP("127.0.0.1", s.port["smtp"], timeout=60) as c:
                for rcpt in ["bob@example.org"] * ("local" in roles) + ["x@far.example"] * ("relay" in roles):
                    c.sendmail("a@far.example", [rcpt], "Subject: x\r\n\r\nx\r\n")
        for role in roles:
            if role in LISTENERS:
                wait_for(lambda r=role: any(line.startswith("doors done") for line in self.out(r)), 120)
                wait_for(lambda r=role: any(line.startswith("filled") for line in self.out(r)), 60)
        for c in held:
            c.close()

    def close(self):
        shutil.rmtree(self.dir, ignore_errors=True)


def inodes(top):
    out = set()
    for base, dirs, files in os.walk(top):
        for name in ["."] + files + dirs:
            try:
                st = os.lstat(os.path.join(base, name))
                out.add((st.st_dev, st.st_ino))
            except OSError:
                pass
    return out


class Judge:
    def __init__(self, report, breach, tables, calls_max):
        self.r, self.b, self.calls_max = report, breach, calls_max
        self.nr = numbers()
        self.tables = {x["role"]: x for x in tables["roles"]}
        self.may_send = {(n, a, b) for n, _, fr, to, *_ in rows("ARCHITECTURE.md", "| name | number | from | to |")
                         for a in fr.split() for b in to.split()}
        self.type = {int(num): n for n, num, *_ in rows("ARCHITECTURE.md", "| name | number | from | to |")}
        self.documented = {r[0]: r for r in rows("SECURITY.md", "| role | calls |")}
        self.figures = {}

    def calls(self, role, table_role, lines):
        passed = {"entered": set(), "session": set(), "syncer": set()}
        tried = {k: 0 for k in passed}
        for line in lines:
            m = re.match(r"call (\d+) (\w+) (.*)", line)
            if m:
                tried[m[2]] += 1
                if m[3] != "killed" and m[3] != PAST_FILTERS.get(int(m[1])):
                    passed[m[2]].add(int(m[1]))
        x = self.tables[table_role]
        for stage in passed:
            want = {self.nr[c] for c in x["calls" if stage == "entered" else "session_calls"]}
            want = {n for n in want if n <= self.calls_max}
            if not tried[stage]:
                continue
            more, less = passed[stage] - want, want - passed[stage]
            self.r.check(f"{role} {stage}: of {tried[stage]} system calls these {len(want)} and no other",
                         not more and not less and tried[stage] == self.calls_max + 1,
                         f"more: {sorted(more)}, less: {sorted(less)}, tried {tried[stage]}")
        self.r.check(f"{role}: calls were tried", tried["entered"] > 0, str(lines[:3]))
        fig = self.figures.setdefault(role, {})
        fig["calls"], fig["session"] = len(x["calls"]), len(x["session_calls"])

    def specials(self, role, lines):
        wrong = []
        for line in lines:
            m = re.match(r"special (\d+) (\w+) (.*)", line)
            if m and m[3] == "returned 0":
                name = SPECIALS[int(m[1])]
                # qmgr cuts journals, and the log is a file, too; authd writes the page of known recipients.
                if (role, name) in (("qmgr", SPECIALS[14]), ("authd", SPECIALS[16])):
                    continue
                wrong.append(f"{name} ({m[2]})")
        tried = sum(line.startswith("special ") for line in lines)
        self.r.check(f"{role}: none of {len(SPECIALS)} forbidden arguments", tried >= len(SPECIALS) and not wrong,
                     str(wrong))

    def paths(self, role, lines, top=None):
        """Below top, or where top is the role's directory of the suite, is what it may reach."""
        s = self.b.suite
        mine = top or (os.path.join(s.dir, DIRECTORY[role]) if role in DIRECTORY else os.path.join(s.run, "empty"))
        allowed = inodes(mine)
        opened, stated, wrong, tried = set(), set(), set(), 0
        for line in lines:
            m = re.match(r"reached (open|stat) (\d+) (\d+) (.*)", line)
            if m:
                (opened if m[1] == "open" else stated).add((int(m[2]), int(m[3])))
                if (int(m[2]), int(m[3])) not in allowed:
                    wrong.add(m[4])
            m = re.match(r"tried \w+ (\d+)", line)
            tried = max(tried, int(m[1])) if m else tried
        fig = self.figures.setdefault(role, {})
        fig["files"], fig["stat"] = len(opened), len(stated)
        if role == "launcher":
            self.r.check(f"launcher: root: it reaches {len(opened)} files", tried > 0)
            return
        self.r.check(f"{role}: of {tried} paths none but below its own directory ({len(opened)} opened)",
                     tried >= len(self.b.paths) and not wrong, str(sorted(wrong)[:8]))

    def connects(self, role, lines):
        reached, unix = set(), []
        for line in lines:
            m = re.match(r"port (\d+) (\d+)", line)
            if m and m[2] == "0":
                reached.add(int(m[1]))
            m = re.match(r"(abstract|unix) (\d+)", line)
            if m and m[2] == "0":
                unix.append(m[1])
        relay_port = self.b.relay_port
        allowed = {relay_port} if role == "relay" else set()
        self.r.check(f"{role}: no Unix socket reached, and ports as the document says",
                     not unix and reached == allowed, f"{unix} {sorted(reached)}")
        self.figures.setdefault(role, {})["ports"] = len(reached)

    def own(self, role, lines):
        """Through the doors of one that has no sessions of clients."""
        self.forged(role, lines)
        cells = [line.split()[2] for line in lines if re.match(r"cell \d+", line)]
        if role == "authd":
            self.r.check(f"authd: of {len(cells)} cells that may not be none was started", len(cells) == 11 and
                         "cells done" in lines and "ready" not in cells, str(cells))

    def forged(self, role, lines):
        wrong, accepted, tried = [], set(), 0
        for line in lines:
            m = re.match(r"door (\w+) (\d+) (\w+) ?(\d*)", line)
            if not m:
                continue
            tried += 1
            service, kind, result, answer = m[1], int(m[2]), m[3], int(m[4] or 0)
            name = self.type.get(kind, str(kind))
            if result == "closed" or (result == "answer" and self.type.get(answer) == "FAILED"):
                continue
            accepted.add(f"{name}>{service}")
            if (name, role, service) not in self.may_send:
                wrong.append(f"{name} to {service}: {result} {answer}")
        self.r.check(f"{role}: of {tried} forged messages only its own were taken ({len(accepted)})",
                     tried > 0 and not wrong, str(wrong))
        fig = self.figures.setdefault(role, {})
        fig["messages"], fig["forged"] = len(accepted), tried

    def doors(self, role, lines):
        self.forged(role, lines)
        filled = next((line.split() for line in lines if line.startswith("filled")), None)
        limit = next(t for t in rows("SECURITY.md", "| role | root directory |") if t[0] == role)[5]
        files = number(self.documented[role][3])
        self.r.check(f"{role}: memory and descriptors end where they should", filled and
                     int(filled[1]) <= number(limit) << 20 and int(filled[2]) <= files, str(filled))


def alive(b, before):
    """Nobody was hurt: the same processes, and mail still flows."""
    s = b.suite
    hurt = [r["program"] for r in s.status() if r["restarts"] != 0 or r["state"] != "ready"]
    with smtplib.SMTP("127.0.0.1", s.port["smtp"], timeout=60) as c:
        c.sendmail("a@far.example", ["bob@example.org"], "Subject: x\r\n\r\nx\r\n")
    wait_for(lambda: len(s.messages("bob")) > before, 30)
    return hurt


def play(b, judge, roles, job):
    s = b.suite
    b.set_jobs(roles, job)
    p = s.ctl("start", check=False)
    if p.returncode:  # the tries take their time before a program says that it is ready
        wait_for(lambda: all(r["state"] == "ready" for r in s.status()) and s.status(), 120)
    try:
        before = len(s.messages("bob"))
        b.provoke(roles)
        for role in roles:
            lines = b.out(role)
            judge.calls(role, role, lines)
            judge.specials(role, lines)
            if "paths" in job:
                judge.paths(role, lines)
            judge.connects(role, lines)
            if role in LISTENERS:
                judge.doors(role, lines)
            elif "own" in job and role in ("authd", "qmgr"):
                judge.own(role, lines)
        judge.r.check(f"after {', '.join(roles)}: all others run, and mail flows", not alive(b, before))
    except Exception:
        sys.stderr.write(s.tail())
        raise
    finally:
        s.ctl("stop", check=False)


def play_control(b, r):
    """One program says everything and garbage to master: at most it alone is not called ready."""
    s = b.suite
    b.set_jobs(["pop3d"], "control\n")
    s.ctl("start", check=False)
    try:
        before = len(s.messages("bob"))
        wait_for(lambda: s.status() and all(x["state"] == "ready" for x in s.status() if x["program"] != "pop3d"), 30)
        r.check("master: 127 forged messages and garbage hurt nobody but who sent them",
                "control entered returned 0" in b.out("pop3d") and
                set(alive(b, before)) <= {"pop3d"}, str(s.status()))
    finally:
        s.ctl("stop", check=False)


def play_cells(b, judge, cells, job):
    s = b.suite
    b.set_jobs([], "")
    s.start()
    try:
        top = s.maildir("bob")
        for cell in cells:
            for name, text, mode in (("breach-job", job, 0o644), ("breach-out", "", 0o666),
                                     ("breach-paths", "\n".join(b.paths) + "\n", 0o644)):
                with open(os.path.join(top, name), "w") as f:
                    f.write(text)
                os.chmod(os.path.join(top, name), mode)

            def out():
                with open(os.path.join(top, "breach-out")) as f:
                    return f.read().splitlines()
            if cell == "local-cell":
                with smtplib.SMTP("127.0.0.1", s.port["smtp"], timeout=60) as c:
                    c.sendmail("a@far.example", ["bob@example.org"], "Subject: x\r\n\r\nx\r\n")
            else:
                c = socket.create_connection(("127.0.0.1", s.port["imap" if cell == "imapd-cell" else "pop3"]), timeout=60)
                c.recv(999)
                c.sendall(b"a LOGIN bob secret\r\n" if cell == "imapd-cell" else b"USER bob\r\nPASS secret\r\n")
            wait_for(lambda: "entered" in out(), 120)
            os.unlink(os.path.join(top, "breach-job"))
            lines = out()
            judge.calls(cell, "cell", lines)
            judge.specials(cell, lines)
            judge.connects(cell, lines)
            if "paths" in job:
                judge.paths(cell, lines, top)
    finally:
        s.ctl("stop", check=False)


def play_cells_speaking(b, r):
    """A taken cell says messages that are not its own to the front, or to local: they hang up, and nobody else notices."""
    s = b.suite
    b.set_jobs([], "")
    s.start()
    types = [1, 2, 13, 45, 56, 60, 61, 62, 63, 71, 75, 90, 99]
    try:
        top, wrong = s.maildir("bob"), []
        other = socket.create_connection(("127.0.0.1", s.port["imap"]), timeout=20)
        other.recv(999)
        before = len(s.messages("bob"))
        for kind in types:
            for name, text, mode in (("breach-job", f"say {kind}\n", 0o644), ("breach-out", "", 0o666)):
                with open(os.path.join(top, name), "w") as f:
                    f.write(text)
                os.chmod(os.path.join(top, name), mode)
            for service, lines in (("imap", b"a LOGIN bob secret\r\n"), ("pop3", b"USER bob\r\nPASS secret\r\n")):
                c = socket.create_connection(("127.0.0.1", s.port[service]), timeout=20)
                c.recv(999)
                c.sendall(lines)
                said = b""
                try:
                    while b"a " not in said and b"-ERR" not in said:
                        got = c.recv(999)
                        if not got:
                            break
                        said += got
                except OSError as e:
                    wrong.append(f"{service} {kind}: {e}")
                if b"a OK" in said or (service == "pop3" and said.count(b"+OK") > 1):
                    wrong.append(f"{service} {kind}: {said!r}")
                c.close()
            with smtplib.SMTP("127.0.0.1", s.port["smtp"], timeout=60) as c:
                c.sendmail("a@far.example", ["bob@example.org"], "Subject: x\r\n\r\nx\r\n")
        os.unlink(os.path.join(top, "breach-job"))
        r.check(f"a taken cell: {len(types)} forged messages to imapd, pop3d and local: nobody believes it", not wrong, str(wrong[:4]))
        s.ctl("queue", "retry", "--all")
        kept = before + len(types) - 2  # FAILED and CELL_DELIVERED are a cell's own to say: of its owner's mail
        wait_for(lambda: len(s.messages("bob")) >= kept, 60)
        other.sendall(b"a NOOP\r\n")
        r.check("and no mail is lost, nobody else notices", other.recv(99).startswith(b"a OK") and not alive(b, kept)
                and "died of signal" not in s.tail(3000))
    finally:
        s.ctl("stop", check=False)


def process_memory(pid):
    with open(f"/proc/{pid}/maps") as maps, open(f"/proc/{pid}/mem", "rb", 0) as mem:
        for line in maps:
            m = re.match(r"([0-9a-f]+)-([0-9a-f]+) r", line)
            if m and "[v" not in line:
                try:
                    mem.seek(int(m[1], 16))
                    yield mem.read(int(m[2], 16) - int(m[1], 16))
                except OSError:
                    pass


def secrets(b, r):
    """No front has another session's bytes, a private key or a password's hash in its memory."""
    s = b.suite
    b.set_jobs([], "")
    s.start()
    try:
        with open(s.dir + "/key.pem") as f:
            pem = f.read()
        der = ssl.PEM_cert_to_DER_cert(pem.replace("PRIVATE KEY", "CERTIFICATE"))
        private = der[36:68]  # the number in a PKCS #8 key of P-256; OpenSSL holds it the other way round

        def has_key(data):
            return private in data or private[::-1] in data or pem.encode()[40:100] in data
        with open(s.dir + "/state/accounts") as f:
            digest = f.read().strip().splitlines()[-1].rsplit("$", 1)[1][:40].encode()
        first = {}
        for service in ("smtp", "imap"):
            c = socket.create_connection(("127.0.0.1", s.port[service]), timeout=20)
            c.recv(999)
            c.sendall(f"EHLO marker-{service}-77821\r\n".encode())
            c.recv(999)
            first[service] = c
        second = [socket.create_connection(("127.0.0.1", s.port[x]), timeout=20) for x in ("smtp", "imap")]
        for c in second:
            c.recv(999)
        t = ssl._create_unverified_context().wrap_socket(socket.create_connection(("127.0.0.1", s.port["imaps"])))
        t.recv(999)
        seen = json.loads(s.ctl("privileges", "--json"))["processes"]
        wrong, markers, has = [], {}, set()
        for p in seen:
            data = b"".join(process_memory(p["pid"]))
            if has_key(data):
                has.add(p["role"])
            if p["role"] in LISTENERS and (has_key(data) or digest in data):
                wrong.append(f"{p['role']} {p['kind']} has a key or a hash")
            for service, role in (("smtp", "smtpd"), ("imap", "imapd")):
                if f"marker-{service}-77821".encode() in data and p["role"] == role:
                    markers[(role, p["kind"])] = markers.get((role, p["kind"]), 0) + 1
        r.check("no front, tlsd, local or relay has a private key or a hash in its memory", not wrong, str(wrong))
        r.check("of all processes keyd alone has the private key", has == {"keyd"}, str(has))
        r.check("what one session said is in no other one's memory",
                all(kind == "session" and n == 1 for (_, kind), n in markers.items()) and markers, str(markers))
    finally:
        s.ctl("stop", check=False)


def main():
    r = Report()
    whole = "--all" in sys.argv
    if os.geteuid() != 0:
        r.check("needs root: left out", True)
        r.end()
    b = Breach()
    try:
        b.paths = ["/etc/passwd"]
        b.set_jobs([], "")
        with b.suite as s:
            s.add("bob", "secret")
            c = socket.create_connection(("127.0.0.1", s.port["imap"]), timeout=20)
            c.recv(999)
            c.sendall(b"a LOGIN bob secret\r\n")
            r.check("an account, a Maildir", c.recv(999).startswith(b"a OK"))
            owner = os.stat(s.maildir("bob"))
            s.ctl("account", "add", "alice", "-u", str(owner.st_uid), "-g", str(owner.st_gid), input="other\n")
            d = socket.create_connection(("127.0.0.1", s.port["imap"]), timeout=20)
            d.recv(999)
            d.sendall(b"a LOGIN alice other\r\n")
            r.check("another account of the same user ID", d.recv(999).startswith(b"a OK"))
            tables = json.loads(s.ctl("privileges", "--json"))
            os.environ["BULKHEAD_KEEP"] = "1"  # the instance is started again
        b.paths = some_paths(b.suite.dir, 10000 if whole else 500)
        last = CALLS_MAX if whole else 40
        judge = Judge(r, b, tables, last)
        job = f"calls 0 {last}\nspecials\npaths\nconnect\nown\ndoors\nfill\n"
        for roles in BATCHES if whole else [["smtpd", "qmgr"]]:
            play(b, judge, roles, job)
        play_cells(b, judge, CELLS if whole else CELLS[:1], f"calls 0 {last}\nspecials\npaths\nconnect\n")
        if whole:
            play_control(b, r)
            play_cells_speaking(b, r)
        secrets(b, r)
        if whole:
            import breach_peers
            breach_peers.figures(b, judge.figures)
    finally:
        os.environ.pop("BULKHEAD_KEEP", None)
        b.suite.stop()
        b.close()
    r.end()


if __name__ == "__main__":
    main()
