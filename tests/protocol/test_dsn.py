#!/usr/bin/env python3
"""Delivery status notifications (RFC 3461, RFC 3464) through the whole suite: who asks for what, what the next
host hears, and every field of every report. Other hosts are a scripted server that offers DSN or not. Ends with
"N passed, N failed"."""
import email
import email.policy
import email.utils
import itertools
import json
import os
import signal
import smtplib
import ssl
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from fake_mx import FakeMX  # noqa: E402
from harness import BIN, Report, Suite, wait_for  # noqa: E402

TLS = ssl.create_default_context()
TLS.check_hostname = False
TLS.verify_mode = ssl.CERT_NONE
NUMBER = iter(range(1000000))
WORDS = ("SUCCESS", "FAILURE", "DELAY")
WISHES = [None, "NEVER"] + [",".join(c) for n in (1, 2, 3) for c in itertools.combinations(WORDS, n)]
WITH_DSN = b"250-fake.example\r\n250-8BITMIME\r\n250 DSN\r\n"
HOSTNAME = "mx.example.org"


def login(suite):
    c = smtplib.SMTP_SSL("127.0.0.1", suite.port["submissions"], context=TLS, timeout=20)
    c.login("alice", "secret")
    return c


def send(c, rcpts, sender="alice@example.org", mail=(), body=b"body\r\n", ret=None, head=b""):
    """rcpts: (address, NOTIFY or None, ORCPT or None). The message's ENVID, by which its reports are known."""
    envid = f"id-{next(NUMBER)}."
    code, text = c.mail(sender, [f"ENVID={envid}"] + ([f"RET={ret}"] if ret else []) + list(mail))
    assert code == 250, text
    for address, notify, orcpt in rcpts:
        code, text = c.rcpt(address, ([f"NOTIFY={notify}"] if notify else []) +
                            ([f"ORCPT={orcpt}"] if orcpt else []))
        assert code == 250, text
    code, text = c.data(head + b"From: alice@example.org\r\nSubject: " + envid.encode() + b"\r\n\r\n" + body)
    assert code == 250, text
    return envid


def rows(suite):
    return json.loads(suite.ctl("--json", "queue", "list"))


def empty(suite, seconds=20):
    wait_for(lambda: not rows(suite), seconds, 0.1)


def reports(suite, envid, who="alice"):
    return [email.message_from_bytes(m, policy=email.policy.default) for m in suite.messages(who)
            if b"Original-Envelope-Id: " + envid.encode() in m]


def parse(report, sender="alice@example.org"):
    """The envelope's fields, each recipient's fields, and the third part; all that every report has is checked."""
    assert report["Return-Path"] == "<>" and report["Auto-Submitted"] == "auto-replied", report
    assert report["From"] == f"Mail Delivery System <MAILER-DAEMON@{HOSTNAME}>" \
        and report["To"].addresses[0].addr_spec == sender, report
    assert report["Message-ID"].endswith(f"@{HOSTNAME}>") and email.utils.parsedate_to_datetime(report["Date"])
    assert report.get_content_type() == "multipart/report" and report.get_param("report-type") == "delivery-status"
    text, status, returned = report.get_payload()
    assert text.get_content_type() == "text/plain" and status.get_content_type() == "message/delivery-status"
    words = text.get_content()
    assert words.isascii() and all(c.isprintable() or c in "\r\n" for c in words), words
    fields, *per = [dict(p.items()) for p in status.get_payload()]
    assert fields["Reporting-MTA"] == f"dns; {HOSTNAME}" and email.utils.parsedate_to_datetime(fields["Arrival-Date"])
    assert set(fields) <= {"Reporting-MTA", "Arrival-Date", "Received-From-MTA", "Original-Envelope-Id"}, fields
    return fields, [p for p in per if p], returned, words


def only(suite, envid):
    got = wait_for(lambda: reports(suite, envid))
    assert len(got) == 1, [g.as_string() for g in got]
    return parse(got[0])


def same(got, want):
    for field, value in want.items():
        if value is None:
            assert field not in got, (field, got)
        else:
            assert got.get(field) == value, (field, value, got)


def offered(suite, mx):
    for port in ("smtp", "submission"):
        with smtplib.SMTP("127.0.0.1", suite.port[port], timeout=20) as c:
            c.ehlo("client.example")
            assert c.has_extn("dsn"), port
            for bad in ("RET=BODY", "RET=FULL RET=FULL", "ENVID=a+00b", "ENVID=" + "e" * 101, "ENVID=+G1"):
                if port == "smtp":
                    assert c.docmd(f"MAIL FROM:<x@client.example> {bad}")[0] == 501, bad
    with smtplib.SMTP("127.0.0.1", suite.port["smtp"], timeout=20) as c:
        c.ehlo("client.example")
        assert c.docmd("MAIL FROM:<x@client.example> RET=FULL ENVID=" + "e" * 100)[0] == 250
        for bad in ("NOTIFY=NEVER,DELAY", "NOTIFY=", "ORCPT=;", "ORCPT=rfc822;a+0D+0Ab",
                    "ORCPT=rfc822;" + "o" * 494, "ORCPT=rfc822;a ORCPT=rfc822;a"):
            assert c.docmd(f"RCPT TO:<bob@example.org> {bad}")[0] == 501, bad
        assert c.docmd("RCPT TO:<bob@example.org> NOTIFY=SUCCESS,FAILURE,DELAY ORCPT=rfc822;" + "o" * 493)[0] == 250


def matrix(suite, mx, send_one, action, wanted, default, check):
    """One message for each set of wishes; then each has its report, or none."""
    with login(suite) as c:
        sent = [(w, send_one(c, w)) for w in WISHES]
    empty(suite)
    expected = [w for w in WISHES if (wanted in w.split(",") if w else default)]
    wait_for(lambda: sum(len(reports(suite, e)) for _, e in sent) >= len(expected))
    for wish, envid in sent:
        got = reports(suite, envid)
        assert len(got) == (wish in expected), (wish, len(got))
        if got:
            fields, per, returned, words = parse(got[0])
            assert len(per) == 1 and per[0]["Action"] == action, per
            same(fields, {"Original-Envelope-Id": envid})
            assert fields["Received-From-MTA"].endswith(" ([127.0.0.1])"), fields
            assert returned.get_content_type() == "text/rfc822-headers"
            assert f"Subject: {envid}" in returned.get_payload(), returned
            check(per[0], words)


def delivered(suite, mx):
    def check(per, words):
        same(per, {"Original-Recipient": "rfc822; Bob+x@example.org", "Final-Recipient": "rfc822; bob@example.org",
                   "Status": "2.0.0", "Remote-MTA": None, "Diagnostic-Code": None, "Will-Retry-Until": None})
        assert "maildir" not in words, words

    matrix(suite, mx, lambda c, w: send(c, [("bob@example.org", w, "rfc822;Bob+2Bx@example.org")]),
           "delivered", "SUCCESS", False, check)


def relayed(suite, mx):
    mx.answers = {}

    def check(per, words):
        same(per, {"Original-Recipient": None, "Final-Recipient": "rfc822; x@far.example", "Status": "2.0.0",
                   "Remote-MTA": "dns; [127.0.0.1]", "Diagnostic-Code": "smtp; 250 kept"})

    mx.verbs.clear()
    matrix(suite, mx, lambda c, w: send(c, [("x@far.example", w, None)]), "relayed", "SUCCESS", False, check)
    assert not [v for v in mx.verbs if "NOTIFY" in v or "ENVID" in v or "ORCPT" in v], mx.verbs


def failed(suite, mx):
    mx.answers = {"RCPT": b"550-5.1.1 no\r\n550 5.1.1 such user\r\n"}

    def check(per, words):
        same(per, {"Original-Recipient": "x-odd; a b", "Final-Recipient": "rfc822; gone@far.example",
                   "Status": "5.1.1", "Remote-MTA": "dns; [127.0.0.1]"})
        assert per["Diagnostic-Code"].startswith("smtp; 550 5.1.1 no") and "such user" in words, per
        assert email.utils.parsedate_to_datetime(per["Last-Attempt-Date"])

    matrix(suite, mx, lambda c, w: send(c, [("gone@far.example", w, "x-odd;a+20b")]), "failed", "FAILURE", True, check)
    mx.answers = {}


def pairs(mx):
    """Each MAIL that was said, and what the same connection said next."""
    return [p for talk in mx.talks for p in zip(talk, talk[1:]) if p[0].startswith("MAIL")]


def passed_on(suite, mx):
    """To a host that offers DSN: what came, as it came, and no report of our own but of failure."""
    mx.answers = {"EHLO": WITH_DSN}
    mx.hang_up()
    mx.talks.clear()
    sent = []
    with login(suite) as c:
        for wish in WISHES:
            for ret in (None, "FULL", "HDRS"):
                sent.append((wish, ret, send(c, [("x@far.example", wish, "rfc822;X+2B%1@Far.example")], ret=ret)))
    empty(suite)
    for wish, ret, envid in sent:
        pair = [p for p in pairs(mx) if f"ENVID={envid}" in p[0]]
        assert len(pair) == 1 and (f" RET={ret}" in pair[0][0]) == bool(ret) and ("RET=" in pair[0][0]) == bool(ret), pair
        rcpt = pair[0][1]
        want = "RCPT TO:<x@far.example>" + (f" NOTIFY={wish}" if wish else "") + " ORCPT=rfc822;X+2B%1@Far.example"
        assert rcpt == want, (rcpt, want)
        assert not reports(suite, envid), wish
    with login(suite) as c:
        c.sendmail("alice@example.org", ["x@far.example"], "Subject: plain\r\n\r\nx\r\n")
    empty(suite)
    plain = [p for p in pairs(mx) if p[1] == "RCPT TO:<x@far.example>"]
    assert len(plain) == 1 and plain[0][0].startswith("MAIL FROM:<alice@example.org>"), mx.talks
    mx.answers["RCPT"] = b"550 5.1.1 no\r\n"
    with login(suite) as c:
        envid = send(c, [("x@far.example", "SUCCESS,FAILURE", None)])
    assert only(suite, envid)[1][0]["Action"] == "failed"
    mx.answers = {}
    mx.hang_up()


def whole_message(suite, mx):
    mx.answers = {"RCPT": b"550 no\r\n"}
    body = b"caf\xc3\xa9\r\n..dots\r\n" + b"x" * 900 + b"\r\n"
    with login(suite) as c:
        full = send(c, [("x@far.example", None, None)], ret="FULL", body=body, mail=["BODY=8BITMIME"])
        hdrs = send(c, [("x@far.example", None, None)], ret="HDRS", body=body)
        large = send(c, [("x@far.example", None, None)], ret="FULL", body=b"line\r\n" * 11000)
        good = send(c, [("bob@example.org", "SUCCESS", None)], ret="FULL")
    *_, returned, words = only(suite, full)
    assert returned.get_content_type() == "message/rfc822"
    raw = next(m for m in suite.messages("alice") if b"Original-Envelope-Id: " + full.encode() in m)
    assert body in raw and b"Content-Transfer-Encoding: 8bit" in raw, raw[-2000:]
    for envid in (hdrs, large, good):
        *_, returned, words = only(suite, envid)
        assert returned.get_content_type() == "text/rfc822-headers", envid
        assert ("too large to be returned" in words) == (envid == large), words
    mx.answers = {}


def several(suite, mx):
    """One message, every outcome at once: one report of each kind, about whom it concerns."""
    mx.answers = {"RCPT no1@far.example": b"550 5.1.1 no\r\n", "RCPT no2@far.example": b"554 5.7.1 never\r\n",
                  "RCPT no3@far.example": b"550 5.1.1 no\r\n"}
    with login(suite) as c:
        envid = send(c, [("bob@example.org", "SUCCESS", None), ("yes@far.example", "SUCCESS,FAILURE", None),
                         ("quiet@far.example", None, None), ("no1@far.example", "FAILURE", None),
                         ("no2@far.example", None, None), ("no3@far.example", "SUCCESS,DELAY", None)])
    got = wait_for(lambda: (r := reports(suite, envid)) and len(r) >= 2 and r)
    kinds = {tuple(sorted((p["Final-Recipient"], p["Action"], p["Status"]) for p in parse(g)[1])) for g in got}
    assert len(got) == 2 and kinds == {
        (("rfc822; bob@example.org", "delivered", "2.0.0"), ("rfc822; yes@far.example", "relayed", "2.0.0")),
        (("rfc822; no1@far.example", "failed", "5.1.1"), ("rfc822; no2@far.example", "failed", "5.7.1"))}, kinds
    mx.answers = {}


def aliases(suite, mx):
    with login(suite) as c:
        one = send(c, [("single@example.org", "SUCCESS", "rfc822;Single@example.org")])
        many = send(c, [("several@example.org", "SUCCESS,FAILURE", None)])
        quiet = send(c, [("several@example.org", "FAILURE", None)])
    per, = only(suite, one)[1]
    same(per, {"Original-Recipient": "rfc822; Single@example.org", "Final-Recipient": "rfc822; bob@example.org",
               "Action": "delivered"})
    per, = only(suite, many)[1]
    same(per, {"Final-Recipient": "rfc822; several@example.org", "Action": "expanded", "Status": "2.0.0"})
    empty(suite)
    assert not reports(suite, quiet)
    mx.answers = {"EHLO": WITH_DSN}
    mx.hang_up()
    mx.verbs.clear()
    with login(suite) as c:
        many = send(c, [("several@example.org", "SUCCESS,DELAY", "rfc822;team@x")])
        one = send(c, [("away@example.org", "SUCCESS", "rfc822;me@x")])
    assert only(suite, many)[1][0]["Action"] == "expanded"
    empty(suite)
    assert "RCPT TO:<far@far.example> NOTIFY=DELAY ORCPT=rfc822;team@x" in mx.verbs, mx.verbs
    assert "RCPT TO:<away@far.example> NOTIFY=SUCCESS ORCPT=rfc822;me@x" in mx.verbs, mx.verbs
    assert not reports(suite, one)
    mx.answers = {}
    mx.hang_up()


def from_nobody(suite, mx):
    """<> hears of nothing, whatever is asked."""
    mx.answers = {"RCPT": b"550 no\r\n"}
    before = len(suite.messages("alice"))
    with smtplib.SMTP("127.0.0.1", suite.port["smtp"], timeout=20) as c:
        c.ehlo("client.example")
        for rcpt in ("bob@example.org", "away@example.org", "several@example.org"):
            send(c, [(rcpt, "SUCCESS,FAILURE,DELAY", None)], sender="")
    empty(suite)
    time.sleep(0.3)
    assert len(suite.messages("alice")) == before
    mx.answers = {}


def double_bounce(suite, mx):
    """A bounce that fails goes to the postmaster, once."""
    mx.answers = {"RCPT": b"550 5.1.1 nobody\r\n"}
    before = len(suite.messages("carol"))
    with smtplib.SMTP("127.0.0.1", suite.port["smtp"], timeout=20) as c:
        c.ehlo("client.example")
        send(c, [("away@example.org", None, None)], sender="forged@far.example")
        send(c, [("bob@example.org", "SUCCESS", None)], sender="forged@far.example")  # that report fails silently
    empty(suite)
    got = wait_for(lambda: suite.messages("carol")[before:])
    time.sleep(0.3)
    got = suite.messages("carol")[before:]
    assert len(got) == 1, got
    fields, per, returned, words = parse(email.message_from_bytes(got[0], policy=email.policy.default),
                                         "postmaster@example.org")
    same(per[0], {"Final-Recipient": "rfc822; forged@far.example", "Action": "failed", "Status": "5.1.1"})
    inner = returned.get_payload(0)
    assert inner["To"].addresses[0].addr_spec == "forged@far.example" and inner["Auto-Submitted"] == "auto-replied", inner
    assert "Final-Recipient: rfc822; away@far.example" in inner.as_string()
    assert "dropped without notice" in suite.tail(50) and "since the start)" in suite.tail(50), suite.tail(20)
    mx.answers = {}


def by_sendmail(suite, mx):
    def run(*args):
        return subprocess.run([os.path.join(BIN, "sendmail"), "-C", suite.conf, "-f", "alice@example.org", *args],
                              input="Subject: by sendmail\n\nx\n", text=True, capture_output=True, timeout=30)

    mx.answers = {"EHLO": WITH_DSN}
    mx.hang_up()
    mx.verbs.clear()
    p = run("-N", "success, delay", "-R", "hdrs", "-V", "an id + more", "bob@example.org", "x@far.example")
    assert p.returncode == 0, p.stderr
    fields, per, returned, words = only(suite, "an id + more")
    same(per[0], {"Original-Recipient": "rfc822; bob@example.org", "Action": "delivered"})
    same(fields, {"Received-From-MTA": None, "Original-Envelope-Id": "an id + more"})
    empty(suite)
    assert "MAIL FROM:<alice@example.org> RET=HDRS ENVID=an+20id+20+2B+20more" in mx.verbs, mx.verbs
    assert "RCPT TO:<x@far.example> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;x@far.example" in mx.verbs, mx.verbs
    for bad in (("-N", "never,delay"), ("-N", ""), ("-R", "all"), ("-V", "x" * 101), ("-V", "a\tb")):
        assert run(*bad, "bob@example.org").returncode == 64, bad
    assert run("-N", "never", "bob@example.org").returncode == 0
    mx.answers = {}


def killed(suite, mx):
    """qmgr is killed when one recipient has the message and another has not: one report, no second copy."""
    mx.slow = 2
    with login(suite) as c:
        envid = send(c, [("bob@example.org", "SUCCESS", None), ("x@far.example", "SUCCESS", None)])
    wait_for(lambda: [m for m in suite.messages("bob") if envid.encode() in m])
    old = next(p["pid"] for p in suite.status() if p["program"] == "qmgr")
    os.kill(old, signal.SIGKILL)
    wait_for(lambda: any(p["program"] == "qmgr" and p["pid"] not in (0, old) for p in suite.status()), 10)
    mx.slow = 0
    empty(suite)
    per = only(suite, envid)[1]
    assert sorted(p["Action"] for p in per) == ["delivered", "relayed"], per
    assert len([m for m in suite.messages("bob") if envid.encode() in m]) == 1


def delayed(mx):
    """Who may be told of a delay is, once; list mail only when it asks."""
    mx.answers = {"RCPT": b"450 4.2.1 busy\r\n"}
    with Suite(queue="retry 1s\nretry-max 1s\nwarn-after 2s\nexpire 1h",
               blocks={"relay": [f"via 127.0.0.1 port {mx.port}"]}) as suite:
        suite.add("alice", "secret")
        with login(suite) as c:
            sent = [(w, "", send(c, [("x@far.example", w, None)])) for w in WISHES]
            sent += [(w, "bulk", send(c, [("x@far.example", w, None)], head=b"Precedence: bulk\r\n"))
                     for w in (None, "DELAY")]
        expected = {e for w, bulk, e in sent if (not bulk if w is None else "DELAY" in w.split(","))}
        wait_for(lambda: sum(len(reports(suite, e)) for e in expected) >= len(expected), 20)
        time.sleep(2.2)  # two more attempts
        for wish, bulk, envid in sent:
            got = reports(suite, envid)
            assert len(got) == (envid in expected), (wish, len(got))
            for g in got:
                fields, per, returned, words = parse(g)
                same(per[0], {"Final-Recipient": "rfc822; x@far.example", "Action": "delayed", "Status": "4.2.1",
                              "Remote-MTA": "dns; [127.0.0.1]", "Diagnostic-Code": "smtp; 450 4.2.1 busy"})
                until = email.utils.parsedate_to_datetime(per[0]["Will-Retry-Until"]).timestamp()
                assert bulk or 3000 < until - time.time() < 3700, per
                assert returned.get_content_type() == "text/rfc822-headers"
    mx.answers = {}


def main():
    r = Report()
    mx = FakeMX()
    with Suite(queue="retry 1s\nretry-max 2s\nexpire 1h",
               blocks={"relay": [f"via 127.0.0.1 port {mx.port}"]},
               aliases="single: bob\nseveral: bob, far@far.example\naway: away@far.example\n"
                       "postmaster: carol\n") as suite:
        for name in ("alice", "bob", "carol"):
            suite.add(name, "secret")
        for name, test in (("offered; what is malformed is 501", offered),
                           ("every NOTIFY, delivered here", delivered),
                           ("every NOTIFY, relayed to a host without DSN", relayed),
                           ("every NOTIFY, refused there", failed),
                           ("every NOTIFY and RET, passed on to a host with DSN", passed_on),
                           ("RET=FULL", whole_message),
                           ("several recipients, every outcome", several),
                           ("aliases of one and of several", aliases),
                           ("mail from <>", from_nobody),
                           ("a bounce that fails", double_bounce),
                           ("sendmail -N -R -V", by_sendmail),
                           ("qmgr is killed in between", killed)):
            r.run(name, test, suite, mx)
        if r.failed:
            print(suite.tail(60))
    r.run("every NOTIFY, delayed", delayed, mx)
    mx.stop()
    r.end()


if __name__ == "__main__":
    main()
