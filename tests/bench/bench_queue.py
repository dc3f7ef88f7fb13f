#!/usr/bin/env python3
"""Bulkhead with 10,000, 100,000 and 1,000,000 deferred messages in its queue (each with its journal).

For each depth: how long after `bulkhead start` a message is accepted, and delivered; when the scan has ended; how
much memory qmgr has (its peak); how long the first page of `queue list`, a page at the other end, `queue shape` and a
filter that must read every file take; and how fast new mail is taken in and delivered into a Maildir, beside a second
instance in the same run whose queue is empty (smtp-source, 20 sessions, 4 KiB; rounds interleaved, medians).
Both sync before 250. TMPDIR says on which file system; it is named in the output. What must hold for a pass is at the end of measure().
"""
import argparse
import json
import os
import pwd
import smtplib
import statistics
import subprocess
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from harness import BIN, PREFIX, Report, Suite, wait_for  # noqa: E402

FILL = os.path.join(os.path.dirname(BIN), "queue_fill")
MESSAGES, SESSIONS = 1500, 20


def new_suite():
    return Suite(tls=False, queue="retry 10m", blocks={"smtpd": ["sessions-per-address 1000", "sessions 1000"]})


def fill(suite, depth):
    queue = os.path.join(suite.dir, "queue")
    subprocess.run([FILL, queue, str(depth), "filler@example.com", "u@d%d.example", "deferred"], check=True)
    if os.geteuid() == 0:
        user = pwd.getpwnam(PREFIX + "qmgr")
        subprocess.run(["chown", "-R", f"{user.pw_uid}:{user.pw_gid}", queue], check=True)


def delivered(suite):
    new = os.path.join(suite.maildir("sink"), "new")
    return len(os.listdir(new)) if os.path.isdir(new) else 0


def qmgr(suite):
    return next(r["pid"] for r in suite.status() if r["program"] == "qmgr")


def memory_mb(pid):
    with open(f"/proc/{pid}/status") as f:
        return next(int(line.split()[1]) for line in f if line.startswith("VmHWM")) / 1024


def start(suite):
    """Seconds until 250, and until it is in the Maildir, since the command was given."""
    began = time.monotonic()
    p = threading.Thread(target=suite.start)
    p.start()
    while True:
        try:
            with smtplib.SMTP("127.0.0.1", suite.port["smtp"], timeout=5) as c:
                c.sendmail("one@client.example", ["sink@example.org"], "Subject: one\r\n\r\nbody\r\n")
            break
        except (OSError, smtplib.SMTPException):
            time.sleep(0.01)
    accepted = time.monotonic() - began
    wait_for(lambda: delivered(suite), 60, 0.005)
    first = time.monotonic() - began
    p.join()
    wait_for(lambda: "messages found" in subprocess.run(["grep", "messages found", suite.log], capture_output=True,
                                                        text=True).stdout, 600, 0.1)
    return accepted, first, time.monotonic() - began


def rate(suite):
    """Messages a second, from the first connection to the last delivery."""
    before, began = delivered(suite), time.monotonic()
    subprocess.run(["smtp-source", "-s", str(SESSIONS), "-m", str(MESSAGES), "-l", "4096", "-f", "s@client.example",
                    "-t", "sink@example.org", f"inet:127.0.0.1:{suite.port['smtp']}"], check=True, capture_output=True)
    wait_for(lambda: delivered(suite) >= before + MESSAGES, 120, 0.01)
    return MESSAGES / (time.monotonic() - began)


def timed(fn):
    began = time.monotonic()
    value = fn()
    return value, time.monotonic() - began


def first_rows(suite, rows):
    """The list's first rows, as a person with a pager sees them."""
    p = subprocess.Popen([os.path.join(BIN, "bulkhead"), "-f", suite.conf, "queue", "list"], stdout=subprocess.PIPE)
    for _ in range(3 * rows):
        p.stdout.readline()
    p.kill()
    p.wait()


def list_all(suite):
    return len(json.loads(suite.ctl("--json", "queue", "list", "--newer", "1s"))) >= 0


def measure(depth, rounds, report):
    base, suite = new_suite(), new_suite()
    try:
        base.start()
        base.add("sink", "secret")
        suite.start()
        suite.add("sink", "secret")
        suite.ctl("stop")
        _, filled = timed(lambda: fill(suite, depth))
        os.truncate(suite.log, 0)
        accepted, first, scanned = start(suite)
        pid = qmgr(suite)
        _, page_first = timed(lambda: first_rows(suite, 40))
        _, page_last = timed(lambda: list_all(suite))
        dry, read_all = timed(lambda: json.loads(run_long(suite, "--json", "queue", "remove", "-n", "--sender",
                                                           "*@example.com")))
        shape, shape_s = timed(lambda: json.loads(suite.ctl("--json", "queue", "shape")))
        rates = {"empty": [], "full": []}
        for k in range(rounds):
            for which, it in sorted([("empty", base), ("full", suite)], reverse=k % 2 == 1, key=lambda x: x[0]):
                rates[which].append(rate(it))
        empty, full = statistics.median(rates["empty"]), statistics.median(rates["full"])
        mb = memory_mb(pid)
        print(f"{depth:>9,} {accepted:>7.2f} {first:>7.2f} {scanned:>7.1f} {mb:>7.0f} {page_first * 1000:>8.0f} "
              f"{page_last * 1000:>8.0f} {shape_s * 1000:>8.0f} {read_all:>8.1f} {empty:>8.0f} {full:>8.0f} "
              f"{full / empty:>6.2f}   (filled in {filled:.0f} s)", flush=True)
        n = f"{depth:,}: "
        report.check(n + "accepting within 1 s of start", accepted < 1, f"{accepted:.2f}")
        report.check(n + "first delivery within 2 s", first < 2, f"{first:.2f}")
        report.check(n + "qmgr below 300 MB", mb < 300, f"{mb:.0f}")
        report.check(n + "the list's first page within 0.2 s", page_first < 0.2, f"{page_first:.2f}")
        report.check(n + "its last within 0.2 s", page_last < 0.2, f"{page_last:.2f}")
        report.check(n + "the shape within 0.5 s", shape_s < 0.5, f"{shape_s:.2f}")
        report.check(n + "a filter finds all", dry["count"] == depth and shape["total"] == depth, f"{dry} {shape['total']}")
        report.check(n + "new mail at 90 % of the rate with an empty queue", full >= 0.9 * empty, f"{full / empty:.2f}")
    finally:
        base.stop()
        suite.stop()


def run_long(suite, *args):
    return subprocess.run([os.path.join(BIN, "bulkhead"), "-f", suite.conf, *args], text=True, capture_output=True,
                          check=True, timeout=1800).stdout


def file_system():
    where = os.environ.get("TMPDIR", "/tmp")
    return subprocess.run(["df", "--output=fstype,source,target", where], capture_output=True,
                          text=True).stdout.splitlines()[-1]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--depths", default="10000,100000,1000000")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    report = Report()
    print(f"on {file_system()}; {args.rounds} rounds of {MESSAGES} messages; {os.cpu_count()} processors\n")
    print(f"{'messages':>9} {'250 s':>7} {'first s':>7} {'scan s':>7} {'MB':>7} {'page ms':>8} {'end ms':>8} "
          f"{'shape ms':>8} {'all s':>8} {'empty/s':>8} {'full/s':>8} {'ratio':>6}")
    for depth in args.depths.split(","):
        measure(int(depth), args.rounds, report)
    report.end()


if __name__ == "__main__":
    main()
