#!/usr/bin/env python3
"""The quota of the configuration, from end to end: mail for a full account waits (4.2.2) or is returned (5.2.2), APPEND and
COPY are refused with [OVERQUOTA], the limits stand in maildirsize, and mail flows again when there is room."""
import imaplib
import os
import smtplib
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from harness import Report, Suite, wait_for  # noqa: E402

REPORT = Report()
BIG = "From: a@example.org\r\nSubject: big\r\n\r\n" + ("x" * 70 + "\r\n") * 640  # some 45 KiB


def send(suite, subject, text="text\r\n"):
    with smtplib.SMTP("127.0.0.1", suite.port["smtp"]) as s:
        s.sendmail("sender@example.org", ["full@example.org"], f"From: sender@example.org\r\nSubject: {subject}\r\n\r\n{text}")


def imap(suite, name="full"):
    m = imaplib.IMAP4("127.0.0.1", suite.port["imap"])
    m.login(name, "secret")
    m.select()
    return m


def subjects(suite, name="full"):
    return [next((line for line in x.splitlines() if line.startswith(b"Subject:")), b"") for x in suite.messages(name)]


def by_imap(suite):
    m = imap(suite)
    typ, data = m.getquotaroot("INBOX")
    assert typ == "OK" and b"STORAGE" in data[1][0] and b"128" in data[1][0] and b"MESSAGE" in data[1][0], data
    for _ in range(2):
        assert m.append("INBOX", None, None, BIG.encode())[0] == "OK"
    typ, data = m.append("INBOX", None, None, BIG.encode())
    assert typ == "NO" and b"[OVERQUOTA]" in data[0], data
    typ, data = m.copy("1:*", "INBOX")
    assert typ == "NO" and b"[OVERQUOTA]" in data[0], data
    with open(os.path.join(suite.maildir("full"), "maildirsize")) as f:
        assert f.readline() == "131072S,4C\n"
    m.logout()


def make_room(suite):
    m = imap(suite)
    m.store("1:*", "+FLAGS", "\\Deleted")
    m.expunge()
    m.logout()


def waits(suite):
    send(suite, "waits", BIG)
    wait_for(lambda: "4.2.2" in suite.tail(200), 20)
    assert b"Subject: waits" not in subjects(suite)
    make_room(suite)
    suite.ctl("queue", "flush")
    wait_for(lambda: b"Subject: waits" in subjects(suite), 20)


def count_counts(suite):
    make_room(suite)
    for i in range(5):
        send(suite, f"n{i}")
    wait_for(lambda: len(suite.messages("full")) == 4, 20)
    time.sleep(0.5)
    assert len(suite.messages("full")) == 4


def is_returned(suite):
    m = imap(suite)
    for _ in range(2):
        assert m.append("INBOX", None, None, BIG.encode())[0] == "OK"
    m.logout()
    send(suite, "returned", BIG)
    wait_for(lambda: any(b"5.2.2" in x for x in suite.messages("sender")), 20)
    assert b"Subject: returned" not in subjects(suite)


def used(suite, name):
    """What maildirsize says in all, and what lies on the disk."""
    with open(os.path.join(suite.maildir(name), "maildirsize")) as f:
        said = [sum(x) for x in zip(*[map(int, line.split()) for line in f.readlines()[1:]])]
    there = [os.path.getsize(os.path.join(d, f)) for d, _, files in os.walk(suite.maildir(name))
             if os.path.basename(d) in ("cur", "new") for f in files]
    return said, [sum(there), len(there)]


def overquota(answer):
    assert answer[0] == "NO" and b"[OVERQUOTA]" in answer[1][0], answer


def fill_to_edge(suite, m, n):
    """n messages that take all bytes there are."""
    head = b"From: a@example.org\r\n\r\n"
    for i in range(n):
        size = 131072 * (i + 1) // n - 131072 * i // n
        assert m.append("INBOX", None, None, head + b"x" * (size - len(head) - 2) + b"\r\n")[0] == "OK"
    assert used(suite, "edge") == ([131072, n], [131072, n]), used(suite, "edge")


def moves_at_the_edge(suite):
    """All room is taken, to the last byte or to the last message: what stays in the account may go where it likes."""
    for n in (3, 4):
        m = imap(suite, "edge")
        fill_to_edge(suite, m, n)
        before = used(suite, "edge")
        m.create("Other")
        overquota(m.copy("1", "Other"))
        overquota(m.copy("1:*", "INBOX"))
        overquota(m.append("Other", None, None, b"x"))
        assert used(suite, "edge")[0] == before[0], used(suite, "edge")
        assert m._simple_command("MOVE", "1", "Other")[0] == "OK"
        assert m._simple_command("MOVE", "1:*", "Other")[0] == "OK"
        assert m.select("INBOX")[1] == [b"0"] and m.select("Other")[1] == [b"%d" % n]
        assert m._simple_command("MOVE", "1:*", "INBOX")[0] == "OK"
        assert m.select("INBOX")[1] == [b"%d" % n]
        assert m._simple_command("RENAME", "INBOX", "Old")[0] == "OK"
        assert m.select("INBOX")[1] == [b"0"] and m.select("Old")[1] == [b"%d" % n]
        overquota(m.copy("1", "INBOX"))
        overquota(m.append("INBOX", None, None, b"x"))
        assert used(suite, "edge") == before, used(suite, "edge")
        # Room for one, and for its last byte.
        m.store("1", "+FLAGS", "\\Deleted")
        m.expunge()
        assert used(suite, "edge")[0] == used(suite, "edge")[1] != before[0], used(suite, "edge")
        room = 131072 - used(suite, "edge")[0][0]
        overquota(m.append("INBOX", None, None, b"x" * (room + 1)))
        assert m.append("INBOX", None, None, b"x" * room)[0] == "OK"
        overquota(m.append("INBOX", None, None, b"x"))
        assert used(suite, "edge")[0] == used(suite, "edge")[1] == before[0], used(suite, "edge")
        for folder in ("Old", "INBOX"):
            m.select(folder)
            m.store("1:*", "+FLAGS", "\\Deleted")
            m.expunge()
        for folder in ("Old", "Other"):
            assert m.delete(folder)[0] == "OK"
        assert used(suite, "edge")[1] == [0, 0]
        m.logout()


def main():
    limits = "accounts {{ quota 128K; quota-messages 4; quota-wait {} }}\n"
    for wait, tests in (("yes", (by_imap, waits, count_counts, moves_at_the_edge)), ("no", (is_returned,))):
        with Suite(tls=False, extra=limits.format(wait)) as suite:
            for name in ("full", "sender", "edge"):
                suite.add(name, "secret")
            for t in tests:
                REPORT.run(t.__name__.replace("_", " "), t, suite)
    REPORT.end()


main()
