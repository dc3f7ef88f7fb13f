#!/usr/bin/env python3
"""qmgr: deferral and retry, expiry, bounces, the operator's commands, restarts and crashes, damaged
files. Other hosts are a scripted server. Ends with "N passed, N failed"."""
import email
import glob
import json
import os
import re
import signal
import smtplib
import ssl
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from fake_mx import FakeMX  # noqa: E402
from harness import BIN, Report, Suite, free_ports, wait_for  # noqa: E402

TLS = ssl.create_default_context()
TLS.check_hostname = False
TLS.verify_mode = ssl.CERT_NONE
NUMBER = iter(range(1000000))


def submit(suite, *rcpts, subject=None):
    """As alice, to other hosts; the subject by which the message is known."""
    subject = subject or f"number-{next(NUMBER)}"
    with smtplib.SMTP_SSL("127.0.0.1", suite.port["submissions"], context=TLS, timeout=20) as c:
        c.login("alice", "secret")
        c.sendmail("alice@example.org", list(rcpts),
                   f"From: alice@example.org\r\nSubject: {subject}\r\n\r\nbody\r\n")
    return subject


def incoming(suite, rcpt, sender="out@client.example", subject=None):
    subject = subject or f"number-{next(NUMBER)}"
    with smtplib.SMTP("127.0.0.1", suite.port["smtp"], timeout=20) as c:
        c.sendmail(sender, [rcpt], f"Subject: {subject}\r\n\r\nbody\r\n")
    return subject


def rows(suite):
    return json.loads(suite.ctl("--json", "queue", "list"))


def empty(suite, seconds=20):
    try:
        wait_for(lambda: not rows(suite), seconds, 0.1)
    except AssertionError:
        raise AssertionError(f"still queued: {rows(suite)}")


def mailbox(suite, subject, who="alice"):
    return [m for m in suite.messages(who) if subject.encode() in m]


def qmgr_pid(suite):
    return next(r["pid"] for r in suite.status() if r["program"] == "qmgr")


def kill_qmgr(suite):
    old = qmgr_pid(suite)
    os.kill(old, signal.SIGKILL)
    wait_for(lambda: any(r["program"] == "qmgr" and r["pid"] not in (0, old) and
                         r["state"] == "ready" for r in suite.status()), 10)


def later_then_done(suite, mx):
    mx.answers = {"RCPT": [b"450 4.2.0 not now\r\n", b"250 ok\r\n"]}
    subject = submit(suite, "x@far.example")
    row = wait_for(lambda: [r for r in rows(suite) if r["attempts"] == 1])[0]
    assert row["state"] == "deferred" and "not now" in row["reason"], row
    assert row["recipients"] == ["x@far.example"] and row["sender"] == "alice@example.org", row
    empty(suite)
    assert len([m for m in mx.messages if subject.encode() in m]) == 1
    assert not mailbox(suite, subject)


def back_off(suite, mx):
    mx.answers = {"MAIL": b"451 4.3.0 later\r\n"}
    submit(suite, "x@far.example")
    row = wait_for(lambda: [r for r in rows(suite) if r["attempts"] >= 3], 20)[0]
    assert row["next"] - time.time() <= 2 * 1.1 + 1, row  # retry-max, with its jitter
    mx.answers = {}
    empty(suite)


def refused(suite, mx, answers, status):
    mx.answers = answers
    subject = submit(suite, "gone@far.example")
    empty(suite)
    mx.answers = {}
    got = wait_for(lambda: mailbox(suite, subject))
    assert len(got) == 1, got
    m = email.message_from_bytes(got[0])
    assert m.get_content_type() == "multipart/report", m
    assert m.get_param("report-type") == "delivery-status"
    assert m["Return-Path"] == "<>" and m["To"] == "<alice@example.org>", m.items()
    assert m["From"].endswith("<MAILER-DAEMON@mx.example.org>") and m["Auto-Submitted"], m.items()
    human, report, header = m.get_payload()
    assert report.get_content_type() == "message/delivery-status"
    whole, one = report.get_payload()
    assert whole["Reporting-MTA"] == "dns; mx.example.org" and whole["Arrival-Date"]
    assert one["Final-Recipient"] == "rfc822; gone@far.example" and one["Action"] == "failed"
    assert one["Status"] == status, one["Status"]
    assert one["Diagnostic-Code"].startswith("smtp; "), one["Diagnostic-Code"]
    assert header.get_content_type() == "text/rfc822-headers"
    assert f"Subject: {subject}" in header.get_payload() and "body" not in header.get_payload()
    assert b"\n" not in re.sub(rb"\r\n", b"", got[0]) or b"\r" not in got[0]


def dropped(suite, mx, answers):
    """The connection breaks: later, never lost and never bounced."""
    mx.answers = answers
    before = len(mx.messages)
    if "banner" in answers or "EHLO" in answers:
        time.sleep(3)  # a connection kept from before would not meet them: it is closed when idle
    subject = submit(suite, "x@far.example")
    wait_for(lambda: any(r["attempts"] >= 1 for r in rows(suite)), 20)
    mx.answers = {}
    suite.ctl("queue", "retry", "all")
    empty(suite)
    assert len([m for m in mx.messages[before:] if subject.encode() in m]) == 1
    assert not mailbox(suite, subject)


def hostile(suite, mx, answers):
    before = len(mx.messages)
    mx.answers = answers
    if "banner" in answers or "EHLO" in answers:
        time.sleep(3)
    subject = submit(suite, "x@far.example")
    wait_for(lambda: any(r["attempts"] >= 1 for r in rows(suite)) or mailbox(suite, subject) or
             len(mx.messages) > before, 20)
    mx.answers = {}
    suite.ctl("queue", "retry", "all")
    empty(suite)
    with open(suite.log, "rb") as f:
        assert re.fullmatch(rb"[\x20-\x7e\n]*", f.read()), "the log is not clean"
    assert len(mx.messages) - before + len(mailbox(suite, subject)) == 1


def one_of_two_later(suite, mx):
    mx.answers = {"RCPT slow@far.example": [b"450 busy\r\n", b"450 busy\r\n", b"250 ok\r\n"]}
    before = len(mx.rcpts)
    submit(suite, "slow@far.example", "quick@far.example")
    row = wait_for(lambda: [r for r in rows(suite) if r["attempts"] >= 1])[0]
    assert row["recipients"] == ["slow@far.example"], row
    empty(suite)
    assert sorted(mx.rcpts[before:]) == ["quick@far.example", "slow@far.example"], mx.rcpts[before:]


def statistics(suite, mx):
    def now():
        return json.loads(suite.ctl("--json", "stats"))
    mx.answers = {"RCPT bad@far.example": b"550 5.1.1 no\r\n"}
    before = now()
    submit(suite, "good@far.example", "bad@far.example", "bob@example.org")
    empty(suite)
    mx.answers = {}
    after = now()
    assert set(before) == set(after)
    grown = {k: after[k] - before[k] for k in after}
    assert grown["accepted"] == 1 and grown["recipients_bounced"] == 1, grown  # the bounce is our own
    assert grown["recipients_sent"] == 3 and grown["syncs"] == 1 and grown["batches_of_1"] == 1, grown
    assert grown["commit_us"] >= grown["sync_us"] > 0 and after["batch_max"] >= 1, (grown, after)
    assert "accepted  " in suite.ctl("stats")


def no_journal_for_a_while(suite, mx):
    """What is done is not done twice when it cannot be written down: the message waits in memory until it can."""
    letters = "234567abcdefghijklmnopqrstuvwxyz"
    mx.answers = {"RCPT slow@far.example": [b"450 busy\r\n", b"250 ok\r\n"]}
    before = len(mx.rcpts)
    blocked = []
    for name in (a + b for a in letters for b in letters):
        path = f"{suite.dir}/queue/journal/{name}"
        if os.path.isdir(path):
            os.rmdir(path)  # of an earlier message, whose journal went with it
        open(path, "w").close()  # a file where a directory is to be
        blocked.append(path)
    try:
        submit(suite, "slow@far.example", "quick@far.example")
        wait_for(lambda: "journal of" in suite.tail(40), 30)
        time.sleep(3)  # longer than its back-off
        assert mx.rcpts[before:] == ["quick@far.example"], mx.rcpts[before:]
    finally:  # whatever happens, the tests after it have a journal
        for path in blocked:
            os.unlink(path)
    empty(suite, 30)
    assert sorted(mx.rcpts[before:]) == ["quick@far.example", "slow@far.example"], mx.rcpts[before:]
    mx.answers = {}


def local_and_far(suite, mx):
    mx.answers = {"RCPT": [b"450 busy\r\n", b"250 ok\r\n"]}
    subject = submit(suite, "x@far.example", "bob@example.org")
    empty(suite)
    assert len(mailbox(suite, subject, "bob")) == 1
    mx.answers = {}


def no_bounce_of_a_bounce(suite, mx):
    """H14."""
    mx.answers = {"RCPT": b"550 5.1.1 no\r\n"}
    subject = incoming(suite, "forward@example.org", sender="")
    empty(suite)
    mx.answers = {}
    assert "dropped without notice" in suite.tail(20), suite.tail(20)
    assert not mailbox(suite, subject)


def commands(suite, mx):
    mx.answers = {"MAIL": b"451 later\r\n"}
    subject = submit(suite, "x@far.example")
    row = wait_for(lambda: [r for r in rows(suite) if r["attempts"] >= 1])[0]
    table = suite.ctl("queue", "list")
    assert row["id"] in table and "<x@far.example>" in table and "1 message in" in table, table
    p = subprocess.run([os.path.join(BIN, "sendmail"), "-bp"], capture_output=True, text=True,
                       env=dict(os.environ, BULKHEAD_SUBMIT=suite.run + "/submit"), timeout=20)
    assert row["id"] in p.stdout, p
    shown = suite.ctl("queue", "show", row["id"])
    assert f"Subject: {subject}" in shown and "body" in shown, shown
    for verb in ("show", "retry", "remove"):
        for bad in ("nonsense", "../../../../etc/pass", "", "2" * 20):
            p = suite.ctl("queue", verb, bad, check=False)
            assert p.returncode != 0 or (verb, bad) == ("retry", ""), (verb, bad, p)
    suite.ctl("queue", "retry", row["id"])
    wait_for(lambda: rows(suite)[0]["attempts"] > row["attempts"])

    def remove():  # not while it is being delivered
        return suite.ctl("queue", "remove", row["id"], check=False).returncode == 0
    wait_for(remove)
    assert rows(suite) == []
    for sub in ("new", "cur/*", "journal/*", "tmp"):
        assert not glob.glob(f"{suite.dir}/queue/{sub}/*"), sub
    submit(suite, "y@far.example")
    wait_for(lambda: any(r["attempts"] >= 1 for r in rows(suite)))
    mx.answers = {}
    suite.ctl("queue", "retry", "all")
    empty(suite, 3)


def restarts(suite, mx):
    mx.answers = {"MAIL": b"451 later\r\n"}
    wanted = {submit(suite, "x@far.example") for _ in range(5)}
    before = {r["id"] for r in rows(suite)}
    assert len(before) == 5
    kill_qmgr(suite)
    wait_for(lambda: {r["id"] for r in rows(suite)} == before)
    suite.ctl("stop")
    leftover = f"{suite.dir}/queue/tmp/222222222aaaaaaaaaaa"
    for path in (leftover, f"{suite.dir}/queue/tmp/junk"):
        with open(path, "w") as f:
            f.write("half a message")
    suite.ctl("start")
    wait_for(lambda: {r["id"] for r in rows(suite)} == before)
    wait_for(lambda: not os.listdir(f"{suite.dir}/queue/tmp"))
    mx.answers = {}
    suite.ctl("queue", "retry", "all")
    empty(suite)
    for subject in wanted:
        assert len([m for m in mx.messages if subject.encode() in m]) == 1, subject


def queue_files(suite):
    return glob.glob(f"{suite.dir}/queue/new/*") + glob.glob(f"{suite.dir}/queue/cur/*/*")


DAMAGE = {"the magic": (0, b"X"), "the version": (4, b"\xff"), "the count of recipients": (12, b"\xff\xff"),
          "the envelope's size": (16, b"\xff" * 8), "the message's size": (24, b"\xff" * 6),
          "the check": (40, b"\0\0"), "a record's type": (64, b"\x63"),
          "a record's length": (65, b"\xff\xff\xff"), "an address": (70, b"\n"), "cut short": (None, 80),
          "empty": (None, 0), "longer": (None, -1)}


def damage(path, where, what):
    with open(path, "r+b") as f:
        if where is not None:
            f.seek(where)
            f.write(what)
        elif what >= 0:
            f.truncate(what)
        else:
            f.seek(0, 2)
            f.write(b"more")


def damaged(suite, mx, r):
    mx.answers = {"MAIL": b"451 later\r\n"}
    for _ in DAMAGE:
        submit(suite, "x@far.example")
    wait_for(lambda: all(w["attempts"] >= 1 and w["state"] == "deferred" for w in rows(suite)), 30)
    suite.ctl("stop")
    paths = dict(zip(DAMAGE, queue_files(suite)))
    for name, path in paths.items():
        damage(path, *DAMAGE[name])
    suite.ctl("start")
    mx.answers = {}
    listed = suite.ctl("queue", "list")
    subject = incoming(suite, "alice@example.org")
    wait_for(lambda: mailbox(suite, subject))
    empty(suite)
    for name, path in paths.items():
        base = os.path.basename(path)
        with open(suite.log) as f:
            logged = any(base[:20] in line and "moved to corrupt/" in line for line in f)
        r.check(f"damaged: {name}", logged and os.path.exists(f"{suite.dir}/queue/corrupt/{base}"),
                listed)


def odd_files(suite, mx):
    """What is not ours is left alone, and stops nothing."""
    suite.ctl("stop")
    q = f"{suite.dir}/queue"
    os.mkfifo(f"{q}/new/234567abcdefghijklmn.s")
    os.symlink("/etc/passwd", f"{q}/new/234567abcdefghijklmm.s")
    os.mkdir(f"{q}/new/234567abcdefghijklmo.s")
    for name in ("new/x", "new/\x1b[2J", "cur/file"):
        open(f"{q}/{name}", "w").close()
    suite.ctl("start")
    subject = incoming(suite, "alice@example.org")
    wait_for(lambda: mailbox(suite, subject))
    assert qmgr_pid(suite) and all(r["restarts"] == 0 for r in suite.status())
    assert os.path.exists(f"{q}/new/x")
    empty(suite)


def expansion_survives(suite, mx):
    """Killed after the alias is on record: those it led to get one copy each (J11)."""
    for i in range(4):
        mx.answers = {"RCPT": b"450 busy\r\n"}
        subject = incoming(suite, "team@example.org")
        wait_for(lambda: glob.glob(f"{suite.dir}/queue/journal/*/*"), every=0.005)
        if i % 2:
            wait_for(lambda: len(mailbox(suite, subject)) == 1, every=0.005)
        before = len(mx.rcpts)
        kill_qmgr(suite)
        mx.answers = {}
        suite.ctl("queue", "retry", "all")
        empty(suite)
        assert len(mailbox(suite, subject)) == 1, "alice"
        assert len(mailbox(suite, subject, "bob")) == 1, "bob"
        assert mx.rcpts[before:] == ["far@far.example"], mx.rcpts[before:]


def ids(suite, *filters):
    return {r["id"] for r in json.loads(suite.ctl("--json", "queue", "list", *filters))}


def told(suite, *args):
    return json.loads(suite.ctl("--json", "queue", *args))["count"]


def held(suite, mx):
    """Held is held, also for a successor; released is tried at once."""
    mx.answers = {"RCPT": b"450 busy\r\n"}
    first, second = submit(suite, "x@far.example"), submit(suite, "y@near.example")
    wait_for(lambda: len(rows(suite)) == 2 and all(r["state"] == "deferred" for r in rows(suite)))
    by = {r["recipients"][0]: r["id"] for r in rows(suite)}
    assert told(suite, "hold", "-n", "--domain", "far.example") == 1
    assert all(r["state"] != "hold" for r in rows(suite))
    wait_for(lambda: suite.ctl("queue", "hold", "--domain", "FAR.example") and
             [r for r in rows(suite) if r["state"] == "hold"])
    assert len(glob.glob(f"{suite.dir}/queue/hold/*")) == 1
    mx.answers = {}
    suite.ctl("queue", "flush")
    wait_for(lambda: ids(suite) == {by["x@far.example"]})
    table = suite.ctl("queue", "list")
    assert " hold " in table, table
    kill_qmgr(suite)
    suite.ctl("queue", "retry", "--all")
    wait_for(lambda: [r["state"] for r in rows(suite)] == ["hold"])
    time.sleep(1)
    assert ids(suite) == {by["x@far.example"]}
    shape = json.loads(suite.ctl("queue", "shape", "--json"))
    assert shape["total"] == 1 and shape["hold"] == 1, shape
    assert [(d["domain"], d["hold"]) for d in shape["destinations"]] == [("far.example", 1)], shape
    assert told(suite, "release", by["x@far.example"]) == 1
    empty(suite)
    for subject in (first, second):
        assert len([m for m in mx.messages if subject.encode() in m]) == 1, subject
    assert not glob.glob(f"{suite.dir}/queue/hold/*")


def held_while_active(suite, mx):
    """What is being delivered is held, or removed, when that has ended."""
    for verb in ("hold", "remove"):
        mx.slow = 2
        mx.answers = {"RCPT": b"450 busy\r\n"}
        submit(suite, "x@far.example")
        wait_for(lambda: [r for r in rows(suite) if r["state"] == "active"])
        out = json.loads(suite.ctl("--json", "queue", verb, "--all"))
        assert out["busy"] == 1 and out["count"] == 0, out
        mx.slow = 0
        wait_for(lambda: [r["state"] for r in rows(suite)] == (["hold"] if verb == "hold" else []))
        suite.ctl("queue", "remove", "--all")
        empty(suite)
    mx.answers = {}


def filters(suite, mx):
    mx.answers = {"RCPT": b"450 busy\r\n"}
    submit(suite, "a@far.example", "b@far.example")
    submit(suite, "a@near.example")
    incoming(suite, "forward@example.org", sender="")
    wait_for(lambda: len(rows(suite)) == 3 and all(r["state"] == "deferred" for r in rows(suite)))
    for args, n in ((["--sender", "alice@example.org"], 2), (["--sender", "*@EXAMPLE.org"], 2),
                    (["--sender", "<>"], 1), (["--recipient", "A@far.example"], 1),
                    (["--recipient", "*@far.example"], 2), (["--recipient", "*@far.exampl"], 0),
                    (["--domain", "near.example"], 1), (["--domain", "example"], 0),
                    (["--older", "1h"], 0), (["--newer", "1h"], 3), (["--all"], 3),
                    (["--sender", "alice@example.org", "--domain", "far.example"], 1),
                    (["--newer", "1h", "--domain", "far.example"], 2)):
        assert len(ids(suite, *args)) == n, (args, ids(suite, *args))
        assert told(suite, "remove", "-n", *args) == n, args
    three = sorted(ids(suite))
    assert told(suite, "remove", "-n", *three, "2" * 20) == 3
    for args, n in ((["--older", "1h", *three], 0), (["--newer", "1h", three[2], three[0], three[0]], 2),
                    (["--all", three[1]], 1), (["--sender", "<>", *three], 1),
                    (["--newer", "1h", "--sender", "alice@example.org", *three, "2" * 20], 2)):
        assert len(ids(suite, *args)) == n, (args, ids(suite, *args))
    p = suite.ctl("queue", "remove", "-n", three[0], "--sender", "nobody@example.org", check=False)
    assert p.returncode == 69, p
    for bad in (["remove"], ["hold"], ["retry"], ["release"], ["remove", "-n"], ["list", "--older", "soon"],
                ["list", "--older", "0s"], ["list", "--sender", "a*@b"], ["list", "--domain", "a@b"],
                ["list", "--recipient", "<>"], ["list", "--sender"], ["list", "--colour", "red"], ["nonsense"]):
        p = suite.ctl("queue", *bad, check=False)
        assert p.returncode == 64, (bad, p)
    assert told(suite, "remove", "--domain", "near.example") == 1
    assert told(suite, "remove", *three) == 2
    assert rows(suite) == []
    mx.answers = {}


def set_mtimes(suite, seconds):
    for path in glob.glob(f"{suite.dir}/queue/cur/*/*"):
        os.utime(path, (time.time() + seconds,) * 2)


def wrong_times(suite, mx):
    """Written by a clock ten years ahead, or behind: nothing stalls, nothing is given up."""
    for years in (10, -10):
        mx.answers = {"RCPT": b"450 busy\r\n"}
        subject = submit(suite, "x@far.example")
        wait_for(lambda: [r for r in rows(suite) if r["attempts"] >= 1])
        suite.ctl("stop")
        set_mtimes(suite, years * 365 * 86400)
        mx.answers = {}
        suite.ctl("start")
        empty(suite, 10)
        assert len([m for m in mx.messages if subject.encode() in m]) == 1
        assert not mailbox(suite, subject)


def orphans(suite, mx):
    """Journals without a message are removed at start; those with one stay."""
    mx.answers = {"RCPT": b"450 busy\r\n"}
    submit(suite, "x@far.example")
    row, = wait_for(lambda: [r for r in rows(suite) if r["attempts"] >= 1])
    suite.ctl("stop")
    before = set(glob.glob(f"{suite.dir}/queue/journal/*/*"))  # those of damaged messages, too
    real, = (j for j in before if j.endswith(row["id"]))
    for letter in "abc":
        name = f"{real}"[:-1] + letter
        if name != real and not os.path.exists(name):
            d = os.path.join(os.path.dirname(os.path.dirname(real)), name[-2:])
            os.makedirs(d, exist_ok=True)
            if os.geteuid() == 0:
                st = os.stat(real)
                os.chown(d, st.st_uid, st.st_gid)
            open(os.path.join(d, os.path.basename(name)), "w").close()
    suite.ctl("start")
    wait_for(lambda: set(glob.glob(f"{suite.dir}/queue/journal/*/*")) == before)
    mx.answers = {}
    suite.ctl("queue", "flush")
    empty(suite)


def warning():
    """One notice of delay; then the bounce."""
    dead, = free_ports(1)
    with Suite(queue="retry 1s\nretry-max 1s\nwarn-after 2s\nexpire 7s",
               blocks={"relay": [f"via 127.0.0.1 port {dead}"]}) as suite:
        suite.add("alice", "secret")
        subject = submit(suite, "x@far.example")
        first = email.message_from_bytes(wait_for(lambda: mailbox(suite, subject), 10)[0])
        assert "Delayed" in first["Subject"], first["Subject"]
        one = first.get_payload()[1].get_payload()[1]
        assert one["Action"] == "delayed" and one["Will-Retry-Until"] and one["Status"].startswith("4."), one
        kill_qmgr(suite)
        wait_for(lambda: len(mailbox(suite, subject)) == 2, 20)
        empty(suite)
        time.sleep(0.5)
        got = mailbox(suite, subject)
        assert len(got) == 2 and sum(b"Action: failed" in m for m in got) == 1, got


def classes():
    """Mail from <> and list mail are given up sooner."""
    dead, = free_ports(1)
    with Suite(queue="retry 1s\nretry-max 1s\nexpire 1h\nbounce-expire 2s\nlist-expire 2s",
               aliases="far: x@far.example\n",
               blocks={"relay": [f"via 127.0.0.1 port {dead}"]}) as suite:
        suite.add("alice", "secret")
        with smtplib.SMTP_SSL("127.0.0.1", suite.port["submissions"], context=TLS, timeout=20) as c:
            c.login("alice", "secret")
            for field in ("Precedence: bulk", "List-Id: <a.example.org>", "X-Person: yes"):
                c.sendmail("alice@example.org", ["x@far.example"],
                           f"From: alice@example.org\r\n{field}\r\nSubject: s\r\n\r\nbody\r\n")
        incoming(suite, "far@example.org", sender="")
        wait_for(lambda: len(suite.messages("alice")) == 2 and len(rows(suite)) == 1, 20)
        time.sleep(1)
        assert len(rows(suite)) == 1 and len(suite.messages("alice")) == 2
        assert not any(b"X-Person" in m for m in suite.messages("alice"))


def expiry(mx):
    dead, = free_ports(1)
    with Suite(queue="retry 1s\nretry-max 1s\nexpire 3s",
               blocks={"relay": [f"via 127.0.0.1 port {dead}"]}) as suite:
        suite.add("alice", "secret")
        start = time.time()
        subject = submit(suite, "x@far.example")
        wait_for(lambda: mailbox(suite, subject), 15)
        assert time.time() - start > 2.5
        empty(suite)
        time.sleep(0.5)
        got = mailbox(suite, subject)
        assert len(got) == 1
        assert b"Status: 4.4.7" in got[0] and b"delivery time expired" in got[0], got[0]


def second_name(suite, mx):
    """What is put off has two names for some seconds."""
    mx.answers = {"RCPT": b"450 busy\r\n"}
    q = f"{suite.dir}/queue"
    for _ in range(40):
        submit(suite, "x@far.example")
    wait_for(lambda: len(glob.glob(f"{q}/cur/*/*.u")) == 40)
    wait_for(lambda: not glob.glob(f"{q}/new/*.u"), 15)
    cur = glob.glob(f"{q}/cur/*/*.u")
    assert [os.stat(p).st_nlink for p in cur] == [1] * 40
    mx.answers = {}
    suite.ctl("queue", "retry", "all")
    empty(suite)
    assert not any(os.path.exists(p) for p in cur)


def two_names(suite, mx):
    """A power cut may leave both names of a move: new/ to cur/, to hold/. One goes, and the message is delivered once."""
    mx.answers = {"RCPT": b"450 busy\r\n"}
    moved, held = submit(suite, "x@far.example"), submit(suite, "y@near.example")
    wait_for(lambda: len(rows(suite)) == 2 and all(w["attempts"] and w["state"] == "deferred" for w in rows(suite)))
    suite.ctl("queue", "hold", "--domain", "near.example")
    wait_for(lambda: [w for w in rows(suite) if w["state"] == "hold"])
    suite.ctl("stop")
    q = f"{suite.dir}/queue"
    (path,), (rest,) = glob.glob(f"{q}/cur/*/*"), glob.glob(f"{q}/hold/*")
    for name in (path, rest):
        os.link(name, f"{q}/new/{os.path.basename(name)}")
    before = len(mx.messages)
    suite.ctl("start")
    wait_for(lambda: not os.path.exists(path) or not os.path.exists(f"{q}/new/{os.path.basename(path)}"))
    wait_for(lambda: sorted(w["state"] == "hold" for w in rows(suite)) == [False, True])
    assert os.path.exists(rest) and not os.path.exists(f"{q}/new/{os.path.basename(rest)}")
    mx.answers = {}
    suite.ctl("queue", "flush")
    wait_for(lambda: len(rows(suite)) == 1)
    suite.ctl("queue", "release", "--all")
    empty(suite)
    names = {os.path.basename(path), os.path.basename(rest)}
    assert not names & {os.path.basename(f) for f in queue_files(suite) + glob.glob(f"{q}/hold/*")}
    got = mx.messages[before:]
    assert len(got) == 2 and all(sum(s.encode() in m for m in got) == 1 for s in (moved, held)), got


def main():
    r = Report()
    mx = FakeMX()
    with Suite(queue="retry 1s\nretry-max 2s\nexpire 1h",
               blocks={"relay": [f"via 127.0.0.1 port {mx.port}", "command-time 3s", "data-time 3s"]},
               aliases="team: alice, bob, far@far.example\nforward: x@far.example\n") as suite:
        suite.add("alice", "secret")
        suite.add("bob", "secret")
        r.run("4xx, then taken", later_then_done, suite, mx)
        r.run("back-off up to retry-max", back_off, suite, mx)
        for name, answers, status in (
                ("RCPT", {"RCPT": b"550 5.1.1 no such user\r\n"}, "5.1.1"),
                ("RCPT without an enhanced code", {"RCPT": b"550 no\r\n"}, "5.0.0"),
                ("MAIL", {"MAIL": b"553 5.7.1 not you\r\n"}, "5.7.1"),
                ("DATA", {"DATA": b"554 5.6.0 no\r\n"}, "5.6.0"),
                ("the end", {".": b"552 5.3.4 too big\r\n"}, "5.3.4")):
            r.run(f"5xx to {name}: one bounce", refused, suite, mx, answers, status)
        for name, answers in (("at the banner", {"banner": None}), ("at EHLO", {"EHLO": None}),
                              ("at RCPT", {"RCPT": None}), ("at DATA", {"DATA": None}),
                              ("in the message", {"cut": b"1"}), ("at the end", {".": None})):
            r.run(f"dropped {name}", dropped, suite, mx, answers)
        for name, answers in (("garbage for a banner", {"banner": b"\x1b[2J\0\xff\r\n"}),
                              ("an endless line", {"banner": b"2" * 200000}),
                              ("endless lines", {"EHLO": b"250-x\r\n" * 50000}),
                              ("control characters", {"RCPT": b"550 5.1.1 \x1b]0;x\x07\r\r\n"}),
                              ("an odd code", {"RCPT": b"999 what\r\n"}),
                              ("a positive answer to nothing", {"DATA": b"250 ok\r\n"}),
                              ("354 to the end", {".": b"354 more\r\n"}),
                              ("codes that differ", {"RCPT": b"250-a\r\n550 b\r\n"})):
            r.run(f"hostile: {name}", hostile, suite, mx, answers)
        r.run("two recipients, one deferred", one_of_two_later, suite, mx)
        r.run("two ways, one deferred", local_and_far, suite, mx)
        r.run("stats", statistics, suite, mx)
        r.run("the journal cannot be written", no_journal_for_a_while, suite, mx)
        r.run("the null sender gets no bounce", no_bounce_of_a_bounce, suite, mx)
        r.run("queue list, show, retry, remove, mailq", commands, suite, mx)
        r.run("kill, stop, start; tmp/ is cleared", restarts, suite, mx)
        r.run("damaged files, while others flow", damaged, suite, mx, r)
        r.run("files that are not ours", odd_files, suite, mx)
        r.run("killed after an expansion", expansion_survives, suite, mx)
        r.run("hold, release, shape; dry runs", held, suite, mx)
        r.run("hold and remove what is being delivered", held_while_active, suite, mx)
        r.run("filters", filters, suite, mx)
        r.run("times of a wrong clock", wrong_times, suite, mx)
        r.run("orphaned journals", orphans, suite, mx)
        r.run("a second name for some seconds", second_name, suite, mx)
        r.run("both names of a move", two_names, suite, mx)
        if r.failed:
            print(suite.tail(40))
    r.run("expiry: one bounce", expiry, mx)
    r.run("a notice of delay, once", warning)
    r.run("expiry by class", classes)
    r.end()


if __name__ == "__main__":
    main()
