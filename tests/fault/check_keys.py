#!/usr/bin/env python3
"""keyd and tlsd: the certificate that a client asks for by name, expiry told in time, renewal without a restart, tickets
that are worth nothing elsewhere, the allowance of signatures, and names that nobody has: memory stays as it is.

    check_keys.py          400 random names
    check_keys.py --all    100,000
"""
import os
import random
import re
import socket
import ssl
import struct
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from harness import Report, Suite, make_certificate, wait_for  # noqa: E402

KEY_CHAIN, KEY_SIGN, FAILED = 70, 72, 2
PER_ADDRESS = 40
GROWTH_KIB = 1024


def context(version=None):
    c = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    c.check_hostname, c.verify_mode = False, ssl.CERT_NONE
    if version:
        c.minimum_version = c.maximum_version = version
    return c


def connect(port, name="mx.example.org", c=None, session=None, protocol=b"* OK"):
    s = (c or context()).wrap_socket(socket.create_connection(("127.0.0.1", port), timeout=20), server_hostname=name,
                                     session=session)
    assert s.recv(999).startswith(protocol)
    return s


def common_name(port, name, protocol=b"* OK"):
    with connect(port, name, protocol=protocol) as s:
        der = s.getpeercert(True)
    found = re.findall(rb"\x06\x03\x55\x04\x03.(.)([\w.-]+)", der, re.S)  # id-at-commonName, tag, length
    return found[-1][1][:found[-1][0][0]].decode()


def extra_certificate(suite_dir, name, kind, days=90):
    d = os.path.join(suite_dir, name)
    os.makedirs(d, exist_ok=True)
    return make_certificate(d, [name], kind, days)


def chosen_by_name(s):
    for name, want in (("mx.example.org", "mx.example.org"), ("two.example", "two.example"),
                       ("TWO.example", "two.example"), ("soon.example", "soon.example"),
                       ("submit.example", "mx.example.org"),
                       ("nobody.example", "mx.example.org"), (None, "mx.example.org")):
        got = common_name(s.port["imaps"], name)
        assert got == want, (name, got)
    assert common_name(s.port["submissions"], "submit.example", b"220") == "submit.example"


def ask(c, kind, *fields):
    """A frame to keyd with numbers and texts; the type of its answer, and the answer."""
    body = b"".join(b"\x01" + struct.pack("<I", f) if isinstance(f, int) else b"\x03" + struct.pack("<I", len(f)) + f
                    for f in fields)
    c.send(struct.pack("<IBBHI", 0x48424B4C, 1, 0, kind, len(body)) + body)
    answer = c.recv(65536)
    return struct.unpack("<IBBHI", answer[:12])[3], answer


def keys_of_others(s):
    """With the doors of each service, all numbers: its own keys sign, in every way that fits, and no other does."""
    digest, told = bytes(range(32)), {}
    for front, names in (("smtpd", 3), ("submitd", 4), ("pop3d", 3), ("imapd", 3)):
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as c:
            c.settimeout(10)
            c.connect(os.path.join(s.run, "keyd.tlsd." + front))
            chains = [i for i in [*range(40), 2**31, 2**32 - 1] if ask(c, KEY_CHAIN, i)[0] != FAILED]
            signs = [i for i in [*range(40), 2**31, 2**32 - 1]
                     if any(ask(c, KEY_SIGN, i, how, data)[0] != FAILED
                            for how, data in ((2, digest), (1, b"\0" + b"x" * 254 + b"\xbc")))]
        assert chains == signs == list(range(names)), (front, chains, signs)
        told[front] = len(signs)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as c:
        assert c.connect_ex(os.path.join(s.run, "keyd.tlsd")) != 0, "a way to keyd that is no service's"
    return f"keys that signed: {told}"


def sockets_of(pid):
    found = {}
    for fd in os.listdir(f"/proc/{pid}/fd"):
        try:
            found[int(fd)] = os.readlink(f"/proc/{pid}/fd/{fd}")
        except FileNotFoundError:
            pass
    return found


def one_door(s):
    """A session of tlsd, before its client has said anything, holds its own service's door to keyd, and none of the others."""
    pid = next(r["pid"] for r in s.status() if r["program"] == "tlsd")
    with open(f"/proc/{pid}/environ", "rb") as f:
        names = next(v for v in f.read().split(b"\0") if v.startswith(b"LISTEN_FDNAMES=")).split(b"=")[1].decode().split(":")
    held = sockets_of(pid)
    doors = {held[3 + i]: n.removeprefix("to.keyd.") for i, n in enumerate(names) if n.startswith("to.keyd")}
    assert sorted(doors.values()) == ["imapd", "pop3d", "smtpd", "submitd"], names
    for port, front in (("imaps", "imapd"), ("pop3s", "pop3d"), ("submissions", "submitd")):
        with socket.create_connection(("127.0.0.1", s.port[port])):
            def session():
                with open(f"/proc/{pid}/task/{pid}/children") as f:
                    children = f.read().split()
                return [doors[x] for c in children for x in sockets_of(c).values() if x in doors] == [front]
            wait_for(session)

            time.sleep(0.3)
            assert session()
        wait_for(lambda: not open(f"/proc/{pid}/task/{pid}/children").read())


def days(s, name):
    row = next(r for r in s.status() if r["program"] == "keyd")
    return next((c["days"] for c in row.get("certificates", []) if c["name"] == name), None)


def expiry_is_told(s):
    wait_for(lambda: re.search(r"the certificate of soon.example expires in [45] days", s.tail(200)))
    assert "certificate of mx.example.org expires" not in s.tail(200)
    wait_for(lambda: days(s, "soon.example") == 4)
    assert "certificate of soon.example: 4 days left" in s.ctl("status")
    assert days(s, "mx.example.org") == 89


def renewed(s):
    held = connect(s.port["imaps"])
    before = {r["program"]: r["restarts"] for r in s.status()}
    extra_certificate(s.dir, "soon.example", "ec", 60)
    s.ctl("reload")
    wait_for(lambda: days(s, "soon.example") == 59)

    def served():
        try:
            return common_name(s.port["imaps"], "soon.example") == "soon.example"
        except OSError:
            return False
    wait_for(served)
    for _ in range(20):
        assert common_name(s.port["imaps"], "soon.example") == "soon.example"
    held.sendall(b"a NOOP\r\n")
    assert held.recv(99).startswith(b"a OK"), "an open session goes on"
    assert {r["program"]: r["restarts"] for r in s.status()} == before


def reloads_in_the_middle(s):
    """Ten renewals while clients come: none is left with a chain whose key has gone."""
    failed, stop, n = [], [], [0]

    def clients():
        while not stop:
            n[0] += 1
            try:
                connect(s.port["imaps"], "soon.example").close()
            except (OSError, AssertionError) as e:
                failed.append(str(e))
    t = threading.Thread(target=clients)
    t.start()
    try:
        for _ in range(10):
            extra_certificate(s.dir, "soon.example", "ec", 60)
            s.ctl("reload")
            time.sleep(0.2)
            wait_for(lambda: all(r["state"] == "ready" for r in s.status()))
            for _ in range(5):
                connect(s.port["imaps"], "soon.example").close()
    finally:
        stop.append(1)
        t.join()
    assert not failed, (len(failed), failed[:5])
    return f"{n[0]} clients, none of them cut"


def starttls(port):
    """As far as the answer to STARTTLS."""
    plain = socket.create_connection(("127.0.0.1", port), timeout=20)
    for line in (b"", b"EHLO x\r\n", b"STARTTLS\r\n"):
        plain.sendall(line)
        said = plain.recv(999)
        assert said.startswith(b"2"), said
    return plain


def reloads_cut_nothing(s):
    """Twenty reloads with the keys as they were: of handshakes that have begun, of clients that have just connected or have
    read the answer to STARTTLS, and of those that come meanwhile, none is cut."""
    failed, stop, n = [], [], [0]

    def clients(port, protocol):
        while not stop:
            try:
                connect(port, protocol=protocol).close()
                n[0] += 1
            except (OSError, AssertionError) as e:
                failed.append(repr(e))

    def finish(raw):
        try:
            with context().wrap_socket(raw) as t:
                t.sendall(b"NOOP\r\n")
                assert t.recv(99)
            n[0] += 1
        except (OSError, AssertionError) as e:
            failed.append(repr(e))
    threads = [threading.Thread(target=clients, args=a) for a in ((s.port["imaps"], b"* OK"), (s.port["submissions"], b"220")) * 3]
    for t in threads:
        t.start()
    out = ssl.MemoryBIO()
    try:
        context().wrap_bio(ssl.MemoryBIO(), out).do_handshake()
    except ssl.SSLWantReadError:
        pass
    hello = out.read()
    try:
        for _ in range(20):
            begun = [socket.create_connection(("127.0.0.1", s.port["imaps"]), timeout=20) for _ in range(3)]
            half = [socket.create_connection(("127.0.0.1", s.port["imaps"]), timeout=20) for _ in range(3)]
            begun += [starttls(s.port["smtp"]) for _ in range(3)]
            for k in half:
                k.sendall(hello[:100])
            s.ctl("reload")
            for k in begun:
                finish(k)
            for k in half:
                k.sendall(hello[100:])
                first = k.recv(1)
                n[0] += first == b"\x16"
                if first != b"\x16":
                    failed.append(f"half a hello: {first!r}")
                k.close()
            wait_for(lambda: all(r["state"] == "ready" for r in s.status()), 60)
    finally:
        stop.append(1)
        for t in threads:
            t.join()
    assert not failed, (len(failed), failed[:5])
    return f"{n[0]} handshakes, none of them cut"


def resumed(c, port, session, protocol=b"* OK"):
    with connect(port, c=c, session=session, protocol=protocol) as s:
        return s.session_reused


def tickets(s, other):
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        c = context(version)
        with connect(s.port["imaps"], c=c) as first:
            ticket = first.session
        assert ticket.has_ticket
        assert resumed(c, s.port["imaps"], ticket), "its own service takes it"
        assert not resumed(c, s.port["pop3s"], ticket, b"+OK"), "another service does not"
        assert not resumed(c, s.port["submissions"], ticket, b"220"), "another service does not"
        assert not resumed(c, other.port["imaps"], ticket), "another instance does not"
        with connect(s.port["submissions"], c=c, protocol=b"220") as first:
            ticket = first.session
        plain = socket.create_connection(("127.0.0.1", s.port["smtp"]), timeout=20)
        plain.recv(999)
        plain.sendall(b"EHLO x\r\n")
        plain.recv(999)
        plain.sendall(b"STARTTLS\r\n")
        assert plain.recv(99).startswith(b"220")
        with c.wrap_socket(plain, session=ticket, server_hostname="mx.example.org") as t:
            t.sendall(b"NOOP\r\n")
            t.recv(99)
            assert not t.session_reused, "port 25 does not take what 465 gave"


def rationed(s):
    """As tlsd's user could: a burst is signed, the rest is refused, and the log says so a few times only."""
    c = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    c.settimeout(10)
    c.connect(os.path.join(s.run, "keyd.tlsd.imapd"))
    digest = bytes(range(32))
    body = b"\x01" + struct.pack("<I", 0) + b"\x01" + struct.pack("<I", 2) + b"\x03" + struct.pack("<I", 32) + digest
    answers = {}
    began = time.time()
    for _ in range(16000):
        c.send(struct.pack("<IBBHI", 0x48424B4C, 1, 0, KEY_SIGN, len(body)) + body)
        kind = struct.unpack("<IBBHI", c.recv(65536)[:12])[3]
        answers[kind] = answers.get(kind, 0) + 1
    took = time.time() - began
    signed, refused = answers.get(KEY_SIGN + 1, 0), answers.get(FAILED, 0)
    assert 4000 <= signed <= 4000 + 2000 * (took + 1), (answers, took)
    lines = s.tail(5000).count("signatures a second")
    if refused:
        assert 1 <= lines <= 12 + refused // 1000, lines
    time.sleep(2.2)  # for those who come after us
    return f"{signed} signed and {refused} refused in {took:.1f} s, {lines} lines in the log"


def memory_kib(pid):
    with open(f"/proc/{pid}/smaps_rollup") as f:
        return sum(int(line.split()[1]) for line in f if line.startswith(("Private_Dirty", "Private_Clean")))


def random_names(s, n):
    rand = random.Random(5)
    pid = {r["program"]: r["pid"] for r in s.status()}
    watched = ["tlsd", "keyd", "imapd", "master", "authd"]
    plain = context()

    def hello(name):
        """A client that is gone when the certificate for its name was chosen: half of them; the others finish."""
        raw = socket.create_connection(("127.0.0.1", s.port["imaps"]), timeout=30)
        out = ssl.MemoryBIO()
        tls = plain.wrap_bio(ssl.MemoryBIO(), out, server_hostname=name)
        try:
            tls.do_handshake()
        except ssl.SSLWantReadError:
            pass
        raw.sendall(out.read())
        assert raw.recv(4096)[:1] == b"\x16"
        raw.close()

    def some(count, errors):
        for _ in range(count):
            labels = ["".join(rand.choices("abcdefghijklmnopqrstuvwxyz0123456789-", k=rand.randrange(1, 60))).strip("-") or "x"
                      for _ in range(rand.randrange(1, 4))]
            try:
                hello(".".join(labels))
            except (OSError, AssertionError, ValueError, UnicodeError) as e:
                errors.append(f"{type(e).__name__} {e}")

    def run(count):
        errors = []
        threads = [threading.Thread(target=some, args=(count // 4, errors)) for _ in range(4)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        return errors
    errors = run(200)
    time.sleep(0.5)
    before = {p: memory_kib(pid[p]) for p in watched}
    began = time.time()
    errors += run(n)
    took = time.time() - began
    time.sleep(0.5)
    after = {p: memory_kib(pid[p]) for p in watched}
    assert {r["program"]: r["pid"] for r in s.status()} == pid, "a program was restarted"
    assert len(errors) <= n // 1000, errors[:3]
    assert all(after[p] - before[p] <= GROWTH_KIB for p in watched), (before, after)
    return f"{n} names in {took:.0f} s; private KiB before {before}, after {after}"


def main():
    r = Report()
    whole = "--all" in sys.argv
    with Suite() as other, Suite(blocks={"imapd": ["sessions 500", "sessions-per-address 400"]}) as s:
        s.ctl("stop")
        lines = ""
        for name, kind, left in (("two.example", "rsa", 90), ("soon.example", "ec", 5)):
            lines += "certificate %s key %s\n" % extra_certificate(s.dir, name, kind, left)
        lines += "certificate %s key %s for submitd\n" % extra_certificate(s.dir, "submit.example", "ec", 90)
        with open(s.conf) as f:
            text = f.read()
        with open(s.conf, "w") as f:
            f.write(text.replace("directories {", lines + "directories {", 1))
        s.start()
        r.run("a certificate for each name", chosen_by_name, s)
        r.run("a service's keys sign for that service alone", keys_of_others, s)
        if os.geteuid() == 0:
            r.run("a session has the door of its own service", one_door, s)
        r.run("expiry is told: log, status", expiry_is_told, s)
        r.run("a renewed certificate, open sessions go on", renewed, s)
        r.run("reloads cut no handshake", reloads_cut_nothing, s)
        r.run("ten renewals among clients", reloads_in_the_middle, s)
        r.run("tickets are worth nothing at another service or instance", tickets, s, other)
        r.run("names that nobody has leave memory as it is", random_names, s, 100000 if whole else 400)
        r.run("signatures are rationed and the log is not flooded", rationed, s)
    r.end()


if __name__ == "__main__":
    main()
