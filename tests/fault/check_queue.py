#!/usr/bin/env python3
"""Thousands of messages for a dead destination, and some for a live one: those are delivered within ten seconds,
whoever sent them and however the dead one is dead. QUEUE_DEAD says how many (make check-queue: 50,000)."""
import json
import os
import pwd
import socket
import subprocess
import sys
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.join(HERE, ".."), os.path.join(HERE, "..", "protocol")]
from fake_dns import FakeDNS  # noqa: E402
from fake_mx import FakeMX  # noqa: E402
from harness import BIN, PREFIX, Report, Suite, wait_for  # noqa: E402
from test_queue import submit  # noqa: E402

FILL = os.path.join(os.path.dirname(BIN), "queue_fill")
DEAD = int(os.environ.get("QUEUE_DEAD", "2000"))
LIVE, LIMIT_S = 100, 10


class Tarpit:
    """Accepts, and never says a word."""

    def __init__(self, address, port):
        self.s = socket.create_server((address, port), backlog=1000)
        self.held = []
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        while True:
            try:
                self.held.append(self.s.accept()[0])
            except OSError:
                return


def fill(suite, count, sender, recipient, *how):
    queue = os.path.join(suite.dir, "queue")
    subprocess.run([FILL, queue, str(count), sender, recipient, *how], check=True)
    if os.geteuid() == 0:
        user = pwd.getpwnam(PREFIX + "qmgr")
        subprocess.run(["chown", "-R", f"{user.pw_uid}:{user.pw_gid}", queue], check=True)


def shape(suite):
    return json.loads(suite.ctl("--json", "queue", "shape"))


def run(name, domain, r):
    """One sender's mail to both, and another's."""
    mx = FakeMX()
    dns = FakeDNS(lambda d: {"live.example": "127.0.0.1", "tarpit.example": "127.0.0.3"}.get(d, "127.0.0.2"))
    tarpit = Tarpit("127.0.0.3", mx.port)
    suite = Suite(resolver=dns.port, relay_port=mx.port, queue="retry 5m\nrelay-sessions 20",
                  blocks={"relay": ["connect-time 5s", "command-time 5s"]})
    try:
        fill(suite, DEAD, "hog@example.org", domain)
        time.sleep(0.002)
        fill(suite, LIVE, "hog@example.org", "u%d@live.example")
        start = time.time()
        suite.start()
        suite.add("alice", "secret")
        subject = submit(suite, "x@live.example")
        wait_for(lambda: any(subject.encode() in m for m in mx.messages), LIMIT_S)
        alice_s = time.time() - start
        try:
            wait_for(lambda: len(mx.messages) >= LIVE + 1, 120, 0.02)
        except AssertionError:
            pass
        live_s = time.time() - start
        r.check(f"{name}: {LIVE} of the same sender to a live one delivered within {LIMIT_S} s",
                len(mx.messages) == LIVE + 1 and live_s < LIMIT_S, f"{len(mx.messages)} in {live_s:.1f} s")
        r.check(f"{name}: another sender's within {LIMIT_S} s", alice_s < LIMIT_S, f"{alice_s:.1f} s")
        subject = submit(suite, "x@live.example")
        before = time.time()
        wait_for(lambda: any(subject.encode() in m for m in mx.messages), LIMIT_S, 0.01)
        late_s = time.time() - before
        r.check(f"{name}: a new one at once", late_s < 2, f"{late_s:.2f} s")
        # All have been put off, none is lost, and none keeps the memory.
        s = wait_for(lambda: (lambda s: s["deferred"] == DEAD and s)(shape(suite)), 60 + DEAD / 500, 0.5)
        done_s = time.time() - start
        r.check(f"{name}: {DEAD} put off", s["total"] == DEAD and s["active"] == 0, str(s))
        print(f"    {DEAD:,} to {domain}: live ones after {live_s:.1f} s, a new sender's after {alice_s:.1f} s, "
              f"later {late_s:.2f} s; all put off after {done_s:.1f} s")
        if r.failed:
            print(suite.tail(20))
    finally:
        suite.stop()
        mx.stop()
        dns.stop()
        tarpit.s.close()


def main():
    r = Report()
    for name, domain in (("refused", "u%d@dead.example"), ("silent", "u%d@tarpit.example")):
        try:
            run(name, domain, r)
        except Exception as e:  # noqa: BLE001
            r.check(name, False, f"{type(e).__name__}: {e}")
    r.end()


if __name__ == "__main__":
    main()
