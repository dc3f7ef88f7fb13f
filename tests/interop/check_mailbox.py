#!/usr/bin/env python3
"""bulkhead mailbox: Maildirs that Dovecot and Courier wrote come over with UIDVALIDITY, UIDs, flags, keywords, dates and
subscriptions, a second import adds nothing, one that was killed is repeated; export to a Maildir on which Dovecot finds the
same again; export to mbox and back, byte for byte; check and rebuild.

Needs root. Ends with "N passed, N failed"."""
import hashlib
import imaplib
import os
import pty
import re
import shutil
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "bench"))
import imap_peers  # noqa: E402
from harness import BIN, Report, Suite  # noqa: E402

REPORT = Report()
KEYWORDS = ["$Forwarded", "Work", "NonJunk"]


def mail(i):
    bodies = ["plain\r\n", "From here a line\r\n>From there\r\n>>From far\r\n", "no newline at the end", "\r\n\r\nFrom x\r\n\r\n",
              "x" * 3000 + "\r\n", "From a@b Wed Jun 30 21:49:08 1993\r\n\r\nFrom a@b Wed Jun 30 21:49:08 1993\r\n"]
    head = "Status: mine\r\nX-UID: 77\r\n" if i % 5 == 0 else ""
    return (f"From: a{i}@example.org\r\nSubject: s{i}\r\n{head}Date: Fri, 21 Nov 2025 09:55:06 +0000\r\n\r\n"
            + bodies[i % len(bodies)]).encode()


def fill(m, folders, keywords=True):
    """Messages with all kinds of flags; some expunged, so that UIDs have holes."""
    for folder in folders:
        if folder != "INBOX":
            assert m.create(folder)[0] == "OK"
            m.subscribe(folder)
        for i in range(30):
            flags = ["\\Seen"] * (i % 2) + ["\\Flagged"] * (i % 3 == 0) + ["\\Answered"] * (i % 7 == 0)
            typ, data = m.append(folder, f"({' '.join(flags)})", imaplib.Time2Internaldate(1700000000 + i), mail(i))
            assert typ == "OK", data
        m.select(folder)
        for i in range(3, 30, 4):
            if keywords:
                assert m.store(str(i), "+FLAGS", f"({KEYWORDS[i % 3]})")[0] == "OK"
        m.store("2,9,28:29", "+FLAGS", "\\Deleted")
        m.expunge()


def known(m, folders, dates=True):
    """All that a client knows."""
    out = {}
    for name, folder in folders.items():
        assert m.select(folder, readonly=True)[0] == "OK", folder
        validity = m.response("UIDVALIDITY")[1][0]
        typ, data = m.uid("fetch", "1:*", "(UID FLAGS INTERNALDATE BODY.PEEK[])")
        rows = {}
        for item in data:
            if isinstance(item, tuple):
                text = item[0].decode()
                # Courier says FLAGS before the body, or behind it.
                flags = sorted(set(re.search(r"FLAGS \(([^)]*)\)", text).group(1).split()) - {"\\Recent"})
                date = imaplib.Internaldate2tuple(item[0])
                uid = int(re.search(r"UID (\d+)", text).group(1))
                rows[uid] = (flags, time.mktime(date) if dates else 0,
                             hashlib.sha256(item[1].replace(b"\r\n", b"\n")).hexdigest())
        out[name] = (validity, rows)
    typ, data = m.lsub()
    out["subscribed"] = sorted({x.decode().split()[-1].strip('"').removeprefix("INBOX.") for x in data if x} - {"INBOX"})
    return out


def login(port, user, password):
    m = imaplib.IMAP4("127.0.0.1", port)
    m.login(user, password)
    return m


def account(suite, name):
    suite.add(name, "secret")
    row = next(x.split() for x in suite.ctl("account", "list").splitlines() if x.split()[0] == name)
    return int(row[1])


def ours(suite, name, folders, dates=True):
    m = login(suite.port["imap"], name, "secret")
    got = known(m, folders, dates)
    m.logout()
    return got


def given_to(source, uid, work):
    """A copy that the account's user can read."""
    there = tempfile.mkdtemp(prefix="tree-", dir=work)
    os.chmod(there, 0o711)
    subprocess.run(["cp", "-a", source, there + "/Maildir"], check=True)
    subprocess.run(["chown", "-R", f"{uid}:{uid}", there + "/Maildir"], check=True)
    return there + "/Maildir"


def from_peer(suite, work, kind, prefix, keywords):
    peer = kind(1)
    try:
        d = peer.maildir(0)
        for sub in ("cur", "new", "tmp"):
            os.makedirs(f"{d}/{sub}", exist_ok=True)
        subprocess.run(["chown", "-R", f"{imap_peers.UID}:{imap_peers.UID}", os.path.dirname(d)], check=True)
        m = login(peer.port, "bench0", "x")
        theirs = {"INBOX": "INBOX", "Work": prefix + "Work", "Deep": prefix + "Work.Deep"}
        fill(m, theirs.values(), keywords)
        before = known(m, theirs)
        m.logout()
        time.sleep(0.5)
        name = "from" + kind.name.lower()
        uid = account(suite, name)
        source = given_to(d, uid, work)
    finally:
        peer.stop()
    said = suite.ctl("mailbox", "import", name, source)
    assert said == "78 messages taken in, 0 were there already\n", said
    mine = {"INBOX": "INBOX", "Work": "Work", "Deep": "Work.Deep"}
    after = ours(suite, name, mine)
    assert before == after, differ(before, after)
    said = suite.ctl("mailbox", "import", name, source)
    assert said == "0 messages taken in, 78 were there already\n", said
    assert ours(suite, name, mine) == after
    # The next message is beyond all that were there.
    m = login(suite.port["imap"], name, "secret")
    typ, data = m.append("INBOX", None, None, mail(99))
    assert int(re.search(rb"APPENDUID \d+ (\d+)", data[0]).group(1)) > max(before["INBOX"][1])
    m.logout()
    return name, mine


def differ(a, b):
    for k in a:
        if a[k] != b.get(k):
            if isinstance(a[k], tuple):
                rows = [(u, a[k][1].get(u), b[k][1].get(u)) for u in sorted(set(a[k][1]) | set(b[k][1]))
                        if a[k][1].get(u) != b[k][1].get(u)]
                return f"{k}: {a[k][0]} {b[k][0]} {rows[:3]}"
            return f"{k}: {a[k]} {b.get(k)}"
    return "the same"


def export_to_dovecot(suite, work, name, folders):
    before = ours(suite, name, folders)
    target = os.path.join(work, "export")
    suite.ctl("mailbox", "export", name, target)
    said = suite.ctl("mailbox", "export", name, target)
    assert "0 messages, 79 were there already" in said, said
    peer = imap_peers.Dovecot(1)
    try:
        shutil.rmtree(os.path.dirname(peer.maildir(0)), ignore_errors=True)
        os.makedirs(os.path.dirname(peer.maildir(0)))
        subprocess.run(["cp", "-a", target, peer.maildir(0)], check=True)
        subprocess.run(["chown", "-R", f"{imap_peers.UID}:{imap_peers.UID}", os.path.dirname(peer.maildir(0))], check=True)
        m = login(peer.port, "bench0", "x")
        after = known(m, folders)
        m.logout()
    finally:
        peer.stop()
    assert before == after, differ(before, after)


def there_and_back(suite, work, name, folders, option, tag):
    """Exported, and imported by another account."""
    before = ours(suite, name, folders)
    target = os.path.join(work, "out" + tag)
    suite.ctl("mailbox", "export", *option, name, target)
    other = "back" + tag
    uid = account(suite, other)
    if option:
        for folder in folders.values():
            there = os.path.join(work, f"{tag}-{folder}")
            shutil.copy(os.path.join(target, folder), there)
            os.chown(there, uid, uid)
            said = suite.ctl("mailbox", "import", "-f", folder, other, there)
            assert " taken in, 0 were" in said, said
            said = suite.ctl("mailbox", "import", "-f", folder, other, there)
            assert said.startswith("0 messages taken in"), said
        before["subscribed"] = []
    else:
        suite.ctl("mailbox", "import", other, given_to(target, uid, work))
    after = ours(suite, other, folders)
    assert before == after, differ(before, after)
    for folder in folders.values():
        # The files are the same to the last byte, not only what IMAP says of them.
        sub = "" if folder == "INBOX" else "." + folder
        files = []
        for who in (name, other):
            d = os.path.join(suite.maildir(who), sub)
            files.append(sorted(open(os.path.join(d, s, f), "rb").read() for s in ("new", "cur") for f in os.listdir(f"{d}/{s}")))
        assert files[0] == files[1], folder


def on_terminal(suite, *args):
    """What bulkhead mailbox writes to one."""
    pid, fd = pty.fork()
    if pid == 0:
        os.execv(os.path.join(BIN, "bulkhead"), ["bulkhead", "-f", suite.conf, "mailbox", *args])
    shown = b""
    try:
        while more := os.read(fd, 65536):
            shown += more
    except OSError:
        pass
    os.close(fd)
    assert os.waitpid(pid, 0)[1] == 0, shown
    return shown


def foreign_mbox(suite, work):
    """As UW IMAP and mutt leave it; mboxo, too."""
    uid = account(suite, "unix")
    text = ("From a@b Wed Jun 30 21:49:08 1993\nFrom: a@b\nX-IMAP: 1234567890 0000000044 Work Play\nStatus: RO\nX-Status: AF\n"
            "X-Keywords: Work\nX-UID: 41\nSubject: one\n\n>From here\n>>From there\n\n"
            "From c@d Wed Jun 30 21:49:09 EST 1993\nSubject: two\nContent-Length: 7\nX-UID: 44\n\nFrom no date\n\n\n"
            "From c@d Wed Jun 30 21:49:09 EST 1993\nSubject: two\nX-UID: 45\n\nFrom no date\n\n\n")
    path = os.path.join(work, "unix.mbox")
    with open(path, "w") as f:
        f.write(text)
    os.chown(path, uid, uid)
    assert suite.ctl("mailbox", "import", "unix", path).startswith("3 messages taken in")
    assert suite.ctl("mailbox", "import", "unix", path) == "0 messages taken in, 3 were there already\n"
    validity, rows = ours(suite, "unix", {"INBOX": "INBOX"})["INBOX"]
    assert validity == b"1234567890" and sorted(rows) == [41, 44, 45], (validity, rows)
    assert rows[41][0] == ["Work", "\\Answered", "\\Flagged", "\\Seen"] and rows[44][0] == [], rows
    m = login(suite.port["imap"], "unix", "secret")
    m.select()
    one = m.fetch("1", "(BODY.PEEK[])")[1][0][1]
    assert one == b"From: a@b\r\nSubject: one\r\n\r\nFrom here\r\n>From there\r\n", one
    assert suite.ctl("mailbox", "import", "-o", "-f", "Old", "unix", path).startswith("3 messages taken in")
    m.select("Old")
    one = m.fetch("1", "(BODY.PEEK[])")[1][0][1]
    assert one.endswith(b"\r\n\r\nFrom here\r\n>>From there\r\n"), one
    m.logout()
    shown = on_terminal(suite, "import", "-f", "Bar", "unix", path)
    assert b"] 0 of 0 KiB" in shown and b"[" + b"#" * 40 + b"]" in shown and b"3 messages taken in" in shown, shown
    with open(path, "w") as f:
        f.write("no mbox\n")
    p = suite.ctl("mailbox", "import", "unix", path, check=False)
    assert p.returncode == 75 and "no mbox" in p.stderr, p


def killed(suite, work):
    """Killed after a while, again and again, and repeated: all is there once."""
    uid = account(suite, "killed")
    tree = os.path.join(work, "big")
    os.makedirs(tree + "/new")
    os.makedirs(tree + "/cur")
    with open(tree + "/dovecot-uidlist", "w") as f:
        f.write("3 V1500000000 N9000\n")
        for i in range(4000):
            with open(f"{tree}/cur/{1700000000 + i}.M{i}.host:2,S", "wb") as g:
                g.write(mail(i))
            f.write(f"{2 * i + 1} :{1700000000 + i}.M{i}.host\n")
    subprocess.run(["chown", "-R", f"{uid}:{uid}", tree], check=True)
    ended = 0
    for ms in (20, 60, 100, 140, 180, 250, 320):
        p = subprocess.Popen([os.path.join(BIN, "bulkhead"), "-f", suite.conf, "mailbox", "import", "killed", tree],
                             stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
        time.sleep(ms / 1000)
        ended += p.poll() is not None
        try:
            os.killpg(p.pid, 9)
        except ProcessLookupError:
            pass
        p.wait()
    suite.ctl("mailbox", "import", "killed", tree)
    validity, rows = ours(suite, "killed", {"INBOX": "INBOX"})["INBOX"]
    assert validity == b"1500000000" and sorted(rows) == list(range(1, 8000, 2)), (validity, len(rows))
    assert not os.listdir(suite.maildir("killed") + "/new")
    assert ended < 7, "every import was through before it was killed"


def check_and_rebuild(suite, name, folders):
    before = ours(suite, name, folders)
    said = suite.ctl("mailbox", "check", name)
    assert "3 folders, 79 messages, 0 problems" in said, said
    d = suite.maildir(name)
    with open(d + "/bulkhead.index", "r+b") as f:
        f.seek(300)
        f.write(b"damage")
    suite.ctl("mailbox", "rebuild", name)
    assert ours(suite, name, folders) == before
    cur = os.path.join(d, "cur")
    with open(os.path.join(cur, sorted(os.listdir(cur))[0]), "ab") as f:
        f.write(b"more")
    p = suite.ctl("mailbox", "check", name, check=False)
    assert p.returncode == 1 and "another size" in p.stdout, p.stdout


def not_as_root(suite, work):
    """What the account's user may not read is not read for it; a link out of the source is not followed."""
    uid = account(suite, "plain")
    secret = os.path.join(work, "secret")
    os.makedirs(secret + "/cur")
    os.chmod(secret, 0o700)
    p = suite.ctl("mailbox", "import", "plain", secret, check=False)
    assert p.returncode == 66 and "cannot open" in p.stderr, p
    tree = os.path.join(work, "links")
    os.makedirs(tree + "/cur")
    os.makedirs(tree + "/new")
    os.symlink("/etc/passwd", tree + "/cur/1700000000.M1.host:2,S")
    os.symlink("/etc/passwd", tree + "/dovecot-uidlist")
    os.symlink("/etc", tree + "/.Etc")
    subprocess.run(["chown", "-hR", f"{uid}:{uid}", tree], check=True)
    said = suite.ctl("mailbox", "import", "plain", tree)
    assert said.startswith("0 messages"), said


def main():
    if os.geteuid() != 0:
        sys.exit("needs root")
    work = tempfile.mkdtemp(prefix="bulkhead-mailbox-")
    os.chmod(work, 0o711)
    try:
        with Suite(tls=False) as suite:
            name, folders = "fromdovecot", {"INBOX": "INBOX", "Work": "Work", "Deep": "Work.Deep"}
            REPORT.run("a tree of Dovecot", from_peer, suite, work, imap_peers.Dovecot, "", True)
            REPORT.run("a tree of Courier", from_peer, suite, work, imap_peers.Courier, "INBOX.", True)
            REPORT.run("export, and Dovecot goes on", export_to_dovecot, suite, work, name, folders)
            REPORT.run("to a Maildir and back", there_and_back, suite, work, name, folders, (), "maildir")
            REPORT.run("to mbox and back", there_and_back, suite, work, name, folders, ("-m",), "mbox")
            REPORT.run("mbox files of others", foreign_mbox, suite, work)
            REPORT.run("killed, and repeated", killed, suite, work)
            REPORT.run("check and rebuild", check_and_rebuild, suite, name, folders)
            REPORT.run("never as root", not_as_root, suite, work)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    REPORT.end()


main()
