#!/usr/bin/env python3
"""2,000 connections that say one byte each nine seconds, on each of the ports of smtpd, submitd, imapd and pop3d, while honest
clients come: they get their banner at once and do their work. And the memory of a session that waits.

    check_loris.py          150 on each port, with limits to match, for some seconds
    check_loris.py --all    2,000 on each, with the limits as they are; three minutes from many addresses, three from one
"""
import os
import poplib
import random
import re
import resource
import select
import signal
import smtplib
import imaplib
import socket
import ssl
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from harness import Report, Suite, wait_for  # noqa: E402

SERVICES = ["smtp", "submission", "imap", "pop3"]
BANNER = {"smtp": b"220 ", "submission": b"220 ", "imap": b"* OK", "pop3": b"+OK "}
BANNER_MS = 200
PLAIN_KIB, TLS_KIB = 250, 350
EACH_S = 9


def attacker(ports, n, addresses):
    """Holds n connections to each port, from addresses(i); one that is closed comes again when its turn comes."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    poll, by_fd, turns = select.epoll(), {}, []
    words = {p: b"EHLO slow.example" * 100 if i < 2 else b"a NOOP " * 100 for i, p in enumerate(ports)}

    def come(port, i):
        s = socket.socket()
        s.setblocking(False)
        try:
            s.bind((addresses(i), 0))
            s.connect_ex(("127.0.0.1", port))
        except OSError:
            s.close()
            return None
        poll.register(s, select.EPOLLIN)
        by_fd[s.fileno()] = s
        return s

    def go(s):
        if s and by_fd.pop(s.fileno(), None):
            poll.unregister(s)
            s.close()
    for i in range(n):
        for port in ports:
            turns.append([time.time() + random.random() * EACH_S, port, i, come(port, i), 0])
        if i % 20 == 0:
            time.sleep(0.02)
    while os.getppid() != 1:
        for fd, _ in poll.poll(0.1):
            s = by_fd.get(fd)
            try:
                over = s is not None and s.recv(4096) == b""
            except BlockingIOError:
                over = False
            except OSError:
                over = True
            if over:
                go(s)
        now = time.time()
        for t in turns:
            if t[0] > now:
                continue
            t[0] = now + EACH_S
            s = t[3]
            if s is None or s.fileno() < 0:
                t[3], t[4] = come(t[1], t[2]), 0
                continue
            try:
                s.send(words[t[1]][t[4]:t[4] + 1] or b"x")
                t[4] += 1
            except OSError:
                go(s)


def begin(ports, n, addresses):
    pid = os.fork()
    if pid == 0:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        try:
            attacker(ports, n, addresses)
        finally:
            os._exit(0)
    return pid


def fresh_address():
    return f"127.{random.randrange(200, 250)}.{random.randrange(1, 250)}.{random.randrange(1, 250)}"


def knock(s, service):
    """The seconds to the banner for somebody new."""
    began = time.time()
    with socket.create_connection(("127.0.0.1", s.port[service]), timeout=30, source_address=(fresh_address(), 0)) as c:
        said = c.recv(999)
    assert said.startswith(BANNER[service]), (service, said)
    return time.time() - began


def whole_work(s, n):
    """One message in by port 25, one submitted with TLS and a password, both read by IMAP, one by POP3."""
    here, context = (fresh_address(), 0), ssl._create_unverified_context()
    with smtplib.SMTP("127.0.0.1", s.port["smtp"], timeout=60, source_address=here) as c:
        c.sendmail("a@far.example", ["alice@example.org"], f"Subject: in-{n}.\r\n\r\nx\r\n")
    with smtplib.SMTP("127.0.0.1", s.port["submission"], timeout=60, source_address=here) as c:
        c.starttls(context=context)
        c.login("alice", "secret")
        c.sendmail("alice@example.org", ["alice@example.org"], f"From: alice@example.org\r\nSubject: out-{n}.\r\n\r\nx\r\n")
    wait_for(lambda: all(any(f"Subject: {w}-{n}.".encode() in m for m in s.messages("alice")) for w in ("in", "out")), 60)
    raw = socket.create_connection(("127.0.0.1", s.port["imap"]), timeout=60, source_address=here)
    c = imaplib.IMAP4.__new__(imaplib.IMAP4)
    c._create_socket = lambda timeout=None: raw
    imaplib.IMAP4.__init__(c, "127.0.0.1", s.port["imap"])
    c.starttls(context)
    c.login("alice", "secret")
    count = int(c.select()[1][0])
    text = b"".join(c.fetch(str(i), "BODY[]")[1][0][1] for i in range(max(1, count - 1), count + 1))
    c.logout()
    assert f"-{n}.".encode() in text
    p = poplib.POP3.__new__(poplib.POP3)
    p._create_socket = lambda timeout: socket.create_connection(("127.0.0.1", s.port["pop3"]), 60, here)
    poplib.POP3.__init__(p, "127.0.0.1", s.port["pop3"])
    p.stls(context)
    p.user("alice")
    p.pass_("secret")
    assert len(p.list()[1]) >= count
    p.quit()


def sessions(s):
    """How many processes each program has started and still has."""
    tops = {r["pid"]: r["program"] for r in s.status()}
    n = {}
    for p in os.listdir("/proc"):
        if p.isdigit():
            try:
                with open(f"/proc/{p}/stat") as f:
                    name = tops.get(int(f.read().rsplit(")", 1)[1].split()[1]))
                n[name] = n.get(name, 0) + 1
            except OSError:
                pass
    return n


def attack(s, r, how, n, seconds, addresses):
    pid = begin([s.port[x] for x in SERVICES], n, addresses)
    times, failed, works, stop = {x: [] for x in SERVICES}, [], [0], threading.Event()
    began = time.time()

    def knocks():
        while not stop.is_set():
            for service in SERVICES:
                try:
                    times[service].append(knock(s, service))
                except (OSError, AssertionError) as e:
                    failed.append(f"{time.time() - began:.0f} s: {service}: {e}")
            stop.wait(0.1)

    def work():
        while not stop.is_set():
            try:
                whole_work(s, f"{how}{works[0]}")
                works[0] += 1
            except Exception as e:  # noqa: BLE001
                failed.append(f"{time.time() - began:.0f} s: work: {type(e).__name__} {e}")
            stop.wait(1)
    threads = [threading.Thread(target=knocks), threading.Thread(target=work)]
    try:
        time.sleep(15 if seconds > 60 else 4)  # until they are all there
        held = sessions(s)
        for t in threads:
            t.start()
        time.sleep(seconds)
        held = {k: max(v, held.get(k, 0)) for k, v in sessions(s).items()}
        stop.set()
        for t in threads:
            t.join()
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    print(f"     {how}: sessions held: " + ", ".join(f"{k} {held.get(k, 0)}" for k in ("smtpd", "submitd", "imapd", "pop3d")))
    for service in SERVICES:
        t = sorted(times[service])
        p99 = t[int(len(t) * 0.99)] * 1000 if t else 1e9
        print(f"     {how}: {service:<11} {len(t):>5} banners, median {t[len(t) // 2] * 1000 if t else 0:6.1f} ms, "
              f"99 % {p99:6.1f} ms, most {t[-1] * 1000 if t else 0:6.1f} ms")
        r.check(f"{how}: {service}: {BANNER_MS} ms at the 99th percentile", len(t) >= 10 and p99 < BANNER_MS, f"{p99:.0f} ms")
    r.check(f"{how}: none refused, all work done ({works[0]} times)", not failed and works[0] > 0, str(failed[:5]))
    wait_for(lambda: sum(sessions(s).get(k, 0) for k in ("smtpd", "submitd", "imapd", "pop3d", "tlsd")) < 20, 60)
    r.check(f"{how}: afterwards all is as before", all(x["restarts"] == 0 for x in s.status()))


def pss_kib(pid):
    with open(f"/proc/{pid}/smaps_rollup") as f:
        return int(re.search(r"^Pss:\s+(\d+)", f.read(), re.M)[1])


def idle_memory(s, r, n):
    """n sessions of smtpd that have said EHLO and wait, plain and with TLS: of each the processes that are its own."""
    context = ssl._create_unverified_context()
    tops = {x["pid"]: x["program"] for x in s.status()}

    def own():
        out = []
        for p in os.listdir("/proc"):
            try:
                with open(f"/proc/{p}/stat") as f:
                    if tops.get(int(f.read().rsplit(")", 1)[1].split()[1])) in ("smtpd", "tlsd"):
                        out.append(pss_kib(p))
            except (OSError, ValueError, TypeError):
                pass
        return out
    for tls, ceiling in ((False, PLAIN_KIB), (True, TLS_KIB)):
        held = []
        for i in range(n):
            c = socket.create_connection(("127.0.0.1", s.port["smtp"]), timeout=30, source_address=(f"127.9.{i // 200}.{i % 200 + 1}", 0))
            c.recv(999)
            c.sendall(b"EHLO x.example\r\n")
            c.recv(999)
            if tls:
                c.sendall(b"STARTTLS\r\n")
                c.recv(999)
                c = context.wrap_socket(c)
                c.sendall(b"EHLO x.example\r\n")
                c.recv(999)
            held.append(c)
        time.sleep(0.5)
        each = sum(own()) / n
        for c in held:
            c.close()
        wait_for(lambda: not own(), 30)
        r.check(f"an idle SMTP session {'with TLS' if tls else 'plain'}: {each:.0f} KiB of {ceiling}", each <= ceiling)


def main():
    r = Report()
    whole = "--all" in sys.argv
    n, seconds = (2000, 180) if whole else (150, 6)
    limits = [] if whole else ["sessions 100", "sessions-per-address 20"]
    with Suite(blocks={x: limits for x in ("smtpd", "submitd", "imapd", "pop3d")}) as s:
        s.add("alice", "secret")
        idle_memory(s, r, 100 if whole else 90)  # what all of a program share counts for each in part
        rand = random.Random(3)
        many = [f"127.{rand.randrange(10, 200)}.{rand.randrange(1, 250)}.{rand.randrange(1, 250)}" for _ in range(n)]
        attack(s, r, "many", n, seconds, lambda i: many[i])
        attack(s, r, "one", n, seconds if whole else 3, lambda i: "127.5.5.5")
        if r.failed:
            print(s.tail(20))
    r.end()


if __name__ == "__main__":
    main()
