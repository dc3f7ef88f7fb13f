#!/usr/bin/env python3
"""Every Unix socket of a running instance under garbage (catalogue E9): that peer is closed, nothing
restarts, and mail still flows. As another user all but sendmail's refuse. With --all 10,000 connects to each, else 400.
Ends with "N passed, N failed"."""
import array
import os
import random
import smtplib
import socket
import stat
import struct
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from harness import Report, Suite, wait_for  # noqa: E402

MAGIC = 0x48424B4C
PLAN_MAGIC = 0x424B5032  # of the operator's socket; a 3 behind it stops the suite
NOBODY = 65534


def head(kind, length, magic=MAGIC, version=1, fds=0):
    return struct.pack("<IBBHI", magic, version, fds, kind, length)


def text(s):
    return b"\x03" + struct.pack("<I", len(s)) + s


def sockets(suite):
    out = []
    for name in sorted(os.listdir(suite.run)):
        path = os.path.join(suite.run, name)
        if stat.S_ISSOCK(os.stat(path).st_mode):
            out.append(name)
    return out


def connect(suite, name):
    kind = socket.SOCK_STREAM if name == "submit" else socket.SOCK_SEQPACKET
    s = socket.socket(socket.AF_UNIX, kind)
    s.settimeout(5)
    s.connect(os.path.join(suite.run, name))
    return s


def say(suite, name, *frames, fds=0):
    """Send frames on a fresh connection, and hang up."""
    s = connect(suite, name)
    try:
        for f in frames:
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [0] * fds))]
            s.sendmsg([f], rights if fds else [])
    except OSError:
        pass  # it has hung up first
    finally:
        s.close()


def garbage(suite, name):
    r = random.Random(name)
    left = 1 << 20
    while left > 0:
        n = r.choice((1, 12, 13, 4096, 65536, 100000, 150000))
        say(suite, name, r.randbytes(n))
        left -= n
    s = connect(suite, name)
    try:
        while True:
            s.send(r.randbytes(32768))
    except OSError:
        pass
    s.close()


def frames(suite, name):
    good = text(b"a@example.org")
    say(suite, name, b"")
    say(suite, name, *[b""] * 200)
    for n in range(12 + len(good)):
        say(suite, name, (head(40, len(good)) + good)[:n])
    for kind in list(range(0, 100)) + [255, 65535]:
        say(suite, name, head(kind, 0))
        say(suite, name, head(kind, len(good)) + good)
        say(suite, name, head(kind, 5) + b"\x03\xff\xff\xff\xff")
    for bad in (head(40, 0, magic=1), head(40, 0, version=2), head(40, 9), head(40, 0xFFFFFFFF),
                head(40, 65536 - 12) + bytes(65536 - 12), head(40, 100000) + bytes(100000)):
        say(suite, name, bad)


def descriptors(suite, name):
    for fds in (1, 3, 4, 253):
        for claimed in (0, 1, fds):
            for kind in (1, 40, 43, 90):
                say(suite, name, head(kind, 0, fds=claimed), fds=fds)
                say(suite, name, b"", fds=fds)
    say(suite, name, *[head(1, 0, fds=1)] * 300, fds=1)  # each a door: descriptor 0 is no channel


def many(suite, name, n):
    for _ in range(n // 100):
        held = []
        for _ in range(100):
            try:
                held.append(connect(suite, name))
            except OSError:
                break  # full: refused, and nothing worse
        for s in held:
            s.close()


def mail_flows(suite, token):
    def one():
        try:
            with smtplib.SMTP("127.0.0.1", suite.port["smtp"], timeout=20) as c:
                c.sendmail("s@client.example", ["alice@example.org"], f"Subject: {token}\r\n\r\nx\r\n")
            return True
        except smtplib.SMTPResponseException:
            return False
    wait_for(one, 10, 0.2)
    wait_for(lambda: any(token.encode() in m for m in suite.messages("alice")))


def no_restarts(suite):
    rows = suite.status()
    assert rows and all(r["restarts"] == 0 and r["state"] == "ready" for r in rows), rows


def descriptors_of(suite):
    return {r["program"]: len(os.listdir(f"/proc/{r['pid']}/fd")) for r in suite.status()}


def refused(suite, names):
    pid = os.fork()
    if pid == 0:
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
        wrong = 0
        for name in names:
            try:
                connect(suite, name).close()
                wrong |= name != "submit"
            except PermissionError:
                wrong |= name == "submit"
        os._exit(wrong)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def forged_master(suite):
    """The operator's socket takes fixed structs; what is none is passed over."""
    for data in (b"", b"x", bytes(8), bytes(65536), struct.pack("<II", PLAN_MAGIC, 99),
                 struct.pack("<II", PLAN_MAGIC - 1, 3), struct.pack("<III", PLAN_MAGIC, 3, 0)):
        say(suite, "master", data)
    for fds in (1, 3, 253):
        say(suite, "master", struct.pack("<II", PLAN_MAGIC, 1), fds=fds)
        say(suite, "master", b"x", fds=fds)


def main():
    r = Report()
    with Suite() as suite:
        suite.add("alice", "secret")
        mail_flows(suite, "before.")
        names = sockets(suite)
        r.check("all the sockets are there", {"submit", "master", "qmgr.smtpd", "authd.imapd",
                                              "launcher.authd", "qmgr.bulkhead"} <= set(names), names)
        before = descriptors_of(suite)
        for name in names:
            r.run(f"{name}: a MiB of garbage", garbage, suite, name)
            if name not in ("submit", "master"):
                r.run(f"{name}: frames cut, too large, of wrong types", frames, suite, name)
                r.run(f"{name}: descriptors where none belong", descriptors, suite, name)
        r.run("master: forged requests", forged_master, suite)
        connects = 10000 if "--all" in sys.argv else 400
        for name in names:
            r.run(f"{name}: {connects} connects", many, suite, name, connects)
        r.run("nothing has restarted", no_restarts, suite)
        r.run("mail still flows", mail_flows, suite, "after.")
        time.sleep(0.5)
        after = descriptors_of(suite)
        r.check("no descriptor has leaked", all(after[p] <= before[p] + 6 for p in before),
                f"{before} {after}")
        if os.geteuid() == 0:
            r.run("another user is refused", refused, suite, names)
        if r.failed:
            print(suite.tail(40))
    r.end()


if __name__ == "__main__":
    main()
