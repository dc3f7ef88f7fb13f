#!/usr/bin/env python3
"""Descriptors, processes and memory run out, for one program after the other: it does not spin, no other one is hurt, and when
there is enough again all works by itself. As root only: the limits of running programs are lowered, and set back.

    check_exhaust.py          smtpd and authd
    check_exhaust.py --all    every program
"""
import os
import resource
import smtplib
import socket
import ssl
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from harness import Report, Suite, wait_for  # noqa: E402

FORKING = ["smtpd", "submitd", "imapd", "pop3d", "tlsd", "local", "relay", "authd"]
OTHERS = ["qmgr", "keyd", "dnsd", "idled", "launcher"]
SHORT_S = 1.2
CPU_MAX = 0.4  # of one core, by who is short of something


def imap(s, tls):
    c = socket.create_connection(("127.0.0.1", s.port["imaps" if tls else "imap"]), timeout=8)
    if tls:
        c = ssl._create_unverified_context().wrap_socket(c)
    with c:
        c.recv(999)
        c.sendall(b"a LOGIN alice secret\r\n")
        return c.recv(999).startswith(b"a OK")


def pop3(s):
    with socket.create_connection(("127.0.0.1", s.port["pop3"]), timeout=8) as c:
        c.recv(999)
        c.sendall(b"USER alice\r\n")
        c.recv(999)
        c.sendall(b"PASS secret\r\n")
        return c.recv(999).startswith(b"+OK")


def mail(s, service, token):
    with smtplib.SMTP("127.0.0.1", s.port[service], timeout=8) as c:
        if service == "submission":
            c.starttls()
            c.login("alice", "secret")
        c.sendmail("alice@example.org", ["alice@example.org", "x@far.example"][:1 if service == "smtp" else 2],
                   f"From: alice@example.org\r\nSubject: {token}\r\n\r\nx\r\n")
    return True


def tries(s, token):
    return [lambda: mail(s, "smtp", token + "-in."), lambda: mail(s, "submission", token + "-out."), lambda: imap(s, False),
            lambda: imap(s, True), lambda: pop3(s)]


def quiet(fn):
    try:
        return fn()
    except Exception:  # noqa: BLE001: something is short
        return False


def all_works(s, token):
    return all(quiet(fn) for fn in tries(s, token)) and any(f"{token}-in.".encode() in m for m in s.messages("alice"))


def cpu_s(pid):
    with open(f"/proc/{pid}/stat") as f:
        t = f.read().rsplit(")", 1)[1].split()
    return (int(t[11]) + int(t[12])) / os.sysconf("SC_CLK_TCK")


def vsize(pid):
    with open(f"/proc/{pid}/statm") as f:
        return int(f.read().split()[0]) * resource.getpagesize()


def limit(pid, kind, soft):
    """Set a running process's limit, up to what its hard one allows: as its user, who may."""
    with open(f"/proc/{pid}/status") as f:
        ids = {line.split(":")[0]: int(line.split()[1]) for line in f if line.startswith(("Uid", "Gid"))}
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.setgroups([])
            os.setresgid(*[ids["Gid"]] * 3)
            os.setresuid(*[ids["Uid"]] * 3)
            hard = resource.prlimit(pid, kind)[1]
            resource.prlimit(pid, kind, (hard if soft is None else soft, hard))
            status = 0
        finally:
            os._exit(status)
    return os.waitpid(child, 0)[1] == 0


def short(s, program, what, amount):
    rows = {r["program"]: r for r in s.status()}
    pid, before = rows[program]["pid"], {p: r["restarts"] for p, r in rows.items()}
    kind = {"descriptors": resource.RLIMIT_NOFILE, "processes": resource.RLIMIT_NPROC, "memory": resource.RLIMIT_AS}[what]
    assert limit(pid, kind, amount(pid))
    token, spent, clients = f"{program}-{what}", cpu_s(pid), []
    try:
        for fn in tries(s, token + "-short"):
            child = os.fork()
            if child == 0:
                quiet(fn)
                os._exit(0)
            clients.append(child)
        time.sleep(SHORT_S)
        try:
            spent = cpu_s(pid) - spent
        except OSError:
            spent = 0  # it has ended, and another one runs
    finally:
        if os.path.exists(f"/proc/{pid}"):
            limit(pid, kind, None)
        for c in clients:
            os.waitpid(c, 0)
    n = [0]

    def works():
        n[0] += 1
        return all_works(s, f"{token}-{n[0]}")
    wait_for(works, 30, 0.1)
    after = {r["program"]: r["restarts"] for r in s.status()}
    hurt = {p for p in before if after[p] != before[p]}
    assert hurt <= {program}, f"restarted: {hurt}"
    assert spent <= CPU_MAX * SHORT_S, f"{spent:.2f} s of processor in {SHORT_S} s"


def main():
    r = Report()
    if os.geteuid() != 0:
        r.check("needs root: left out", True)
        r.end()
    with Suite() as s:
        s.add("alice", "secret")
        r.check("before: mail and logins", all_works(s, "before"))
        for program in FORKING + OTHERS if "--all" in sys.argv else ["smtpd", "authd"]:
            r.run(f"{program}: no descriptors", short, s, program, "descriptors",
                  lambda pid: max(map(int, os.listdir(f"/proc/{pid}/fd"))) + 1)
            if program in FORKING:
                r.run(f"{program}: no processes", short, s, program, "processes", lambda pid: 0)
            r.run(f"{program}: no memory", short, s, program, "memory", vsize)
        if r.failed:
            print(s.tail(60))
    r.end()


if __name__ == "__main__":
    main()
