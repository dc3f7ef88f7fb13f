#!/usr/bin/env python3
"""Kill any single process while mail flows: the suite is whole again within two seconds, and nothing that
was accepted is lost. Ends with "N passed, N failed"."""
import os
import signal
import smtplib
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from harness import Report, Suite, wait_for  # noqa: E402

SENDERS = 3
RECOVERY_S = 2.0


class Sender(threading.Thread):
    """Sends messages one after another; keeps the tokens for which it read 250."""

    def __init__(self, suite, number, stop):
        super().__init__(daemon=True)
        self.suite, self.number, self.stop = suite, number, stop
        self.accepted, self.tried = [], 0

    def run(self):
        while not self.stop.is_set():
            token = f"token-{self.number}-{self.tried}."
            self.tried += 1
            try:
                with smtplib.SMTP(self.suite.address, self.suite.port["smtp"], timeout=20) as c:
                    c.sendmail("sender@client.example", ["alice@example.org", "bob@example.org"],
                               f"Subject: {token}\r\n\r\n{token}\r\n")
                    self.accepted.append(token)
            except (OSError, smtplib.SMTPException):
                time.sleep(0.02)


def whole(suite, before):
    rows = suite.status()
    return len(rows) == before and all(r["state"] == "ready" for r in rows)


def kill_one(suite, program, count):
    pid = next(r["pid"] for r in suite.status() if r["program"] == program)
    start = time.time()
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: any(r["program"] == program and r["pid"] not in (0, pid)
                         for r in suite.status()), RECOVERY_S + 3, 0.02)
    wait_for(lambda: whole(suite, count), RECOVERY_S + 3, 0.02)
    return time.time() - start


def processes_of(suite, wanted):
    """Processes of this instance with this name that are not the program itself: sessions, cells."""
    programs = {r["pid"] for r in suite.status()}
    out = []
    for p in os.listdir("/proc"):
        if not p.isdigit() or int(p) in programs:
            continue
        try:
            with open(f"/proc/{p}/cmdline", "rb") as f:
                argv = f.read().split(b"\0")
        except OSError:
            continue
        name = os.path.basename(argv[0].decode(errors="replace"))
        if name == wanted and (suite.conf.encode() in argv or name.endswith("-cell")):
            out.append(int(p))
    return out


def kill_others(suite, wanted):
    killed = 0
    end = time.time() + 5
    while killed < 5 and time.time() < end:
        for pid in processes_of(suite, wanted):
            try:
                os.kill(pid, signal.SIGKILL)
                killed += 1
            except OSError:
                pass
    return killed


def main():
    report = Report()
    with Suite(queue="retry 1s\nretry-max 2s") as suite:
        suite.add("alice", "secret")
        suite.add("bob", "secret")
        stop = threading.Event()
        senders = [Sender(suite, i, stop) for i in range(SENDERS)]
        for s in senders:
            s.start()
        time.sleep(0.5)
        programs = [r["program"] for r in suite.status()]
        for program in programs:
            try:
                took = kill_one(suite, program, len(programs))
                report.check(f"killed {program}: whole again after {took:.2f} s", took <= RECOVERY_S,
                             f"{took:.2f} s")
            except AssertionError as e:
                report.check(f"killed {program}", False, str(e))
            time.sleep(0.3)
        for name in ("smtpd", "local", "local-cell"):
            report.check(f"killed sessions: {name}", kill_others(suite, name) > 0)
        stop.set()
        for s in senders:
            s.join(30)
        accepted = [t for s in senders for t in s.accepted]
        try:
            wait_for(lambda: "0 messages in the queue" in suite.ctl("queue", "list"), 60, 0.5)
        except AssertionError:
            report.check("the queue drains", False, suite.ctl("queue", "list")[-500:])
        for name in ("alice", "bob"):
            got = {}
            for m in suite.messages(name):
                token = m.split(b"Subject: ", 1)[1].split(b"\r\n", 1)[0].decode()
                got[token] = got.get(token, 0) + 1
            lost = [t for t in accepted if t not in got]
            twice = [t for t in accepted if got.get(t, 0) > 1]
            report.check(f"{name}: {len(accepted)} accepted, {len(lost)} lost, {len(twice)} twice",
                         not lost and not twice and accepted, f"lost {lost[:5]} twice {twice[:5]}")
        if report.failed:
            print(suite.tail(30))
    report.end()


main()
