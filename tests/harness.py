"""A private instance of the suite for tests: its own directory, ports and configuration.

As root each program runs under its own user (bh-*, made here when missing); else all run as the
caller. Everything is on 127.0.0.1, on free ports; stop() leaves no process behind.
"""
import os
import pwd
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
BIN = os.path.abspath(os.environ.get("BULKHEAD_BIN", os.path.join(ROOT, "build", "bin")))
ROLES = ["authd", "keyd", "tlsd", "dnsd", "qmgr", "local", "relay", "submitd", "smtpd", "pop3d", "imapd", "idled"]
PREFIX = "bht-"  # the users of test instances, never those of an installation


def free_ports(n):
    """Ports that nobody listens at, and that the kernel gives to no connection before we do."""
    with open("/proc/sys/net/ipv4/ip_local_port_range") as f:
        below = int(f.read().split()[0])
    socks = []
    while len(socks) < n:
        s = socket.socket()
        try:
            s.bind(("127.0.0.1", random.SystemRandom().randrange(10000, below) if below > 11000 else 0))
            socks.append(s)
        except OSError:
            s.close()
    ports = [s.getsockname()[1] for s in socks]
    for s in socks:
        s.close()
    return ports


def make_users():
    if os.geteuid() != 0:
        return
    for role in ROLES:
        try:
            pwd.getpwnam(PREFIX + role)
        except KeyError:
            subprocess.run(["useradd", "--system", "--no-create-home", "--shell",
                            "/usr/sbin/nologin", "--user-group", PREFIX + role], check=True)


def make_certificate(directory, names, kind="ec", days=90):
    """A self-signed certificate; returns (chain, key)."""
    chain, key = os.path.join(directory, "cert.pem"), os.path.join(directory, "key.pem")
    new = ["ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"] if kind == "ec" else ["rsa:2048"]
    san = ",".join("DNS:" + n for n in names)
    subprocess.run(["openssl", "req", "-x509", "-newkey", *new, "-nodes", "-days", str(days),
                    "-subj", "/CN=" + names[0], "-addext", "subjectAltName=" + san,
                    "-keyout", key, "-out", chain], check=True, capture_output=True)
    os.chmod(key, 0o600)
    return chain, key


class Suite:
    def __init__(self, hostname="mx.example.org", domains=("example.org",), resolver=None,
                 relay_port=None, extra="", tls=True, cert_kind="ec", aliases="", blocks=None,
                 ports=None, queue="", address="127.0.0.1"):
        make_users()
        self.dir = tempfile.mkdtemp(prefix="bulkhead-test-")
        os.chmod(self.dir, 0o755)
        names = ["smtp", "submission", "submissions", "pop3", "pop3s", "imap", "imaps"]
        self.port = dict(zip(names, free_ports(len(names))))
        self.port.update(ports or {})
        self.hostname, self.domains, self.address = hostname, domains, address
        a = address
        self.log = os.path.join(self.dir, "log")
        self.conf = os.path.join(self.dir, "bulkhead.conf")
        self.run = os.path.join(self.dir, "run")
        with open(os.path.join(self.dir, "aliases"), "w") as f:
            f.write(aliases)
        cert = ""
        if tls:
            chain, key = make_certificate(self.dir, [hostname], cert_kind)
            cert = f"certificate {chain} key {key}\n"
        if resolver:
            extra += f"resolver 127.0.0.1 port {resolver}\n"
        t = " tls" if tls else None
        p = self.port
        default = {
            "smtpd": [f"listen {a} port {p['smtp']}"],
            "submitd": [f"listen {a} port {p['submission']}"]
            + ([f"listen {a} port {p['submissions']} tls"] if t else []),
            "pop3d": [f"listen {a} port {p['pop3']}"]
            + ([f"listen {a} port {p['pop3s']} tls"] if t else []),
            "imapd": [f"listen {a} port {p['imap']}"]
            + ([f"listen {a} port {p['imaps']} tls"] if t else []),
        }
        for name, lines in (blocks or {}).items():
            default[name] = default.get(name, []) + lines
        text = (f"version 1\nhostname {hostname}\ndomain {' '.join(domains)}\n"
                f"aliases {self.dir}/aliases\nlog {self.log}\nusers-prefix {PREFIX}\n{cert}{extra}"
                f"directories {{\n run {self.run}\n queue {self.dir}/queue\n state {self.dir}/state\n"
                f" mail {self.dir}/mail\n programs {BIN}\n}}\n"
                f"queue {{\n{queue}\n}}\n")
        if relay_port:
            default.setdefault("relay", []).append(f"port {relay_port}")
        for name, lines in default.items():
            text += name + " {\n" + "".join("  " + line + "\n" for line in lines) + "}\n"
        with open(self.conf, "w") as f:
            f.write(text)

    def ctl(self, *args, input=None, check=True):
        p = subprocess.run([os.path.join(BIN, "bulkhead"), "-f", self.conf, *args], text=True,
                           input=input, capture_output=True, timeout=60)
        if check and p.returncode:
            raise RuntimeError(f"bulkhead {' '.join(args)}: {p.stdout}{p.stderr}\n{self.tail()}")
        return p.stdout if check else p

    def start(self):
        self.ctl("start")
        return self

    def stop(self):
        self.ctl("stop", check=False)
        if not os.environ.get("BULKHEAD_KEEP"):
            shutil.rmtree(self.dir, ignore_errors=True)

    def add(self, name, password):
        self.ctl("account", "add", name, input=password + "\n")

    def tail(self, n=40):
        try:
            with open(self.log, errors="replace") as f:
                return "".join(f.readlines()[-n:])
        except OSError:
            return ""

    def status(self):
        import json
        p = self.ctl("--json", "status", check=False)
        return json.loads(p.stdout) if p.stdout.startswith("[") else []

    def maildir(self, name):
        user, _, domain = name.partition("@")
        return os.path.join(self.dir, "mail", domain or self.domains[0], user)

    def messages(self, name):
        """The files in new/ and cur/ of an account's inbox, as bytes."""
        out = []
        for sub in ("new", "cur"):
            d = os.path.join(self.maildir(name), sub)
            for f in sorted(os.listdir(d)) if os.path.isdir(d) else []:
                with open(os.path.join(d, f), "rb") as fh:
                    out.append(fh.read())
        return out

    def __enter__(self):
        return self.start()

    def __exit__(self, *exc):
        if exc[0] is not None:
            sys.stderr.write(self.tail())
        self.stop()


def rows(document, heading):
    """The table below a header line of docs/DOCUMENT: lists of cells."""
    with open(os.path.join(ROOT, "docs", document), encoding="utf-8") as f:
        text = f.read()
    out = []
    for line in text[text.index(heading):].splitlines()[2:]:
        if not line.startswith("|"):
            break
        out.append([c.strip() for c in line.strip().strip("|").split("|")])
    return out


def sanitized():
    """Whether the programs have sanitizers, which cannot work within the walls."""
    with open(os.path.join(BIN, "imapd"), "rb") as program:
        return b"__asan_init" in program.read()


def number(cell):
    """Of such a cell: - is 0, 1,000 is 1000."""
    return 0 if cell == "-" else int(cell.replace(",", ""))


def wait_for(what, seconds=15, every=0.05):
    """Call what() until it is true; its value, or AssertionError."""
    end = time.time() + seconds
    while True:
        value = what()
        if value:
            return value
        if time.time() > end:
            raise AssertionError("timeout waiting")
        time.sleep(every)


class Report:
    """Named checks; ends with the line "N passed, N failed"."""

    def __init__(self):
        self.passed = self.failed = 0

    def check(self, name, ok, detail=""):
        self.passed += bool(ok)
        self.failed += not ok
        print(f"{'ok  ' if ok else 'FAIL'} {name}" + (f": {detail}" if detail and not ok else ""),
              flush=True)
        return ok

    def run(self, name, fn, *args):
        """fn(*args) must not raise; a text that it returns is printed, too."""
        try:
            told = fn(*args)
        except Exception as e:  # noqa: BLE001: a test that dies has failed
            return self.check(name, False, f"{type(e).__name__}: {e}")
        self.check(name, True)
        if isinstance(told, str):
            print(f"     {told}", flush=True)
        return True

    def end(self):
        print(f"{self.passed} passed, {self.failed} failed")
        sys.exit(1 if self.failed or not self.passed else 0)
