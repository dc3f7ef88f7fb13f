#!/usr/bin/env python3
"""Real clients of imapd and pop3d over TLS: mbsync and offlineimap with flags, new messages and deletions both ways;
fetchmail, getmail and mpop, which take all and delete it; imapflow, and Python's imaplib and poplib, with flags and
deletions both ways. Each with an account of its own.

Needs root. Ends with "N passed, N failed"."""
import email
import hashlib
import imaplib
import json
import os
import poplib
import re
import shutil
import ssl
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from harness import ROOT, Report, Suite, wait_for  # noqa: E402

REPORT = Report()
HOST = "127.0.0.1"
IMAPFLOW = "1.0.188"
LETTERS = {"S": "\\Seen", "F": "\\Flagged", "R": "\\Answered", "D": "\\Draft", "T": "\\Deleted"}
TLS = ssl._create_unverified_context()


def mail(subject):
    return (f"From: a@example.org\r\nTo: b@example.org\r\nSubject: {subject}\r\nMessage-ID: <{subject}@x>\r\n"
            f"Date: Fri, 21 Nov 2025 09:55:06 +0000\r\n\r\nbody of {subject}\r\n.dot\r\n").encode()


def run(args, env=None, codes=(0,)):
    p = subprocess.run(args, capture_output=True, text=True, timeout=90, errors="replace",
                       env=dict(os.environ, **(env or {})))
    assert p.returncode in codes, f"{args}: {p.returncode}: {(p.stdout + p.stderr)[-1500:]}"
    return p.stdout + p.stderr


class Account:
    def __init__(self, suite, name):
        self.suite, self.name = suite, name
        suite.add(name, "secret")
        self.dir = tempfile.mkdtemp(prefix="bulkhead-client-")
        self.local = os.path.join(self.dir, "mail")

    def imap(self):
        m = imaplib.IMAP4_SSL(HOST, self.suite.port["imaps"], ssl_context=TLS)
        m.login(self.name, "secret")
        m.select()
        return m

    def fill(self, n):
        m = self.imap()
        for i in range(n):
            typ, data = m.append("INBOX", ("\\Seen", "(\\Seen \\Flagged)", "(\\Answered)", None)[i % 4], None, mail(f"s{i}"))
            assert typ == "OK", data
        m.logout()

    def on_server(self):
        """{subject: flags}"""
        m, out = self.imap(), {}
        typ, data = m.fetch("1:*", "(FLAGS BODY.PEEK[HEADER.FIELDS (SUBJECT)])") if m.select()[1][0] != b"0" else ("OK", [])
        assert typ == "OK", data
        for item in data:
            if isinstance(item, tuple):
                flags = set(re.search(r"FLAGS \(([^)]*)\)", item[0].decode()).group(1).split()) - {"\\Recent"}
                out[re.search(rb"Subject: (\S+)", item[1]).group(1).decode()] = flags
        m.logout()
        return out

    def locally(self, folder):
        """{subject: (flags, path)}"""
        out = {}
        for sub in ("new", "cur"):
            d = os.path.join(folder, sub)
            for name in os.listdir(d) if os.path.isdir(d) else []:
                path = os.path.join(d, name)
                with open(path, "rb") as f:
                    subject = email.message_from_binary_file(f)["Subject"]
                info = name.rpartition(":2,")[2] if ":2," in name else ""
                out[subject] = ({LETTERS[x] for x in info if x in LETTERS}, path)
        return out

    def same(self, folder):
        local = {s: flags for s, (flags, _) in self.locally(folder).items()}
        server = self.on_server()
        assert local == server, f"{local} is not {server}"
        return local


def both_ways(account, folder, sync):
    account.fill(12)
    sync()
    assert len(account.same(folder)) == 12
    here = account.locally(folder)
    # Here: one flagged, one removed, one new. There: one seen, one removed, one new.
    flags, path = here["s3"]
    base = os.path.basename(path).partition(":2,")[0]
    os.rename(path, os.path.join(folder, "cur", base + ":2,F"))
    os.unlink(here["s5"][1])
    with open(os.path.join(folder, "cur", "1763712000.n1.here:2,S"), "wb") as f:
        f.write(mail("from-here").replace(b"\r\n", b"\n"))
    m = account.imap()
    for subject, store in (("s7", "\\Seen"), ("s9", "\\Deleted")):
        number = m.search(None, "SUBJECT", subject)[1][0].split()[0]
        assert m.store(number, "+FLAGS", store)[0] == "OK"
    m.expunge()
    m.append("INBOX", "\\Flagged", None, mail("from-there"))
    m.logout()
    sync()
    sync()
    got = account.same(folder)
    assert set(got) == {f"s{i}" for i in range(12) if i not in (5, 9)} | {"from-here", "from-there"}, got
    assert got["s3"] == {"\\Flagged"} and got["s7"] == {"\\Seen"} and got["from-there"] == {"\\Flagged"}, got


def mbsync(a):
    os.makedirs(a.local)
    rc = os.path.join(a.dir, "rc")
    with open(rc, "w") as f:
        f.write(f"IMAPStore far\nHost localhost\nPort {a.suite.port['imaps']}\nUser {a.name}\nPass secret\nSSLType IMAPS\n"
                f"CertificateFile {a.suite.dir}/cert.pem\n\nMaildirStore near\nPath {a.local}/\nInbox {a.local}/INBOX\n\n"
                "Channel c\nFar :far:\nNear :near:\nPatterns INBOX\nCreate Both\nExpunge Both\nSync All\n"
                f"SyncState {a.dir}/state/\n")
    os.mkdir(os.path.join(a.dir, "state"))
    both_ways(a, os.path.join(a.local, "INBOX"), lambda: run(["mbsync", "-c", rc, "-a"], {"HOME": a.dir}))


def offlineimap(a):
    rc = os.path.join(a.dir, "rc")
    with open(os.path.join(a.suite.dir, "cert.pem")) as f:
        print_ = hashlib.sha1(ssl.PEM_cert_to_DER_cert(f.read())).hexdigest()
    with open(rc, "w") as f:
        f.write(f"[general]\naccounts = a\nmetadata = {a.dir}/meta\nui = quiet\n[Account a]\nlocalrepository = l\n"
                f"remoterepository = r\n[Repository l]\ntype = Maildir\nlocalfolders = {a.local}\n[Repository r]\ntype = IMAP\n"
                f"remotehost = {HOST}\nremoteport = {a.suite.port['imaps']}\nremoteuser = {a.name}\nremotepass = secret\n"
                f"ssl = yes\ncert_fingerprint = {print_}\n")
    both_ways(a, os.path.join(a.local, "INBOX"), lambda: run(["offlineimap", "-o", "-c", rc], {"HOME": a.dir}))


def taken(a, folder, n=8):
    got = a.locally(folder)
    assert len(got) == n, sorted(got)
    for subject, (_, path) in got.items():
        with open(path, "rb") as f:
            text = f.read().replace(b"\r\n", b"\n")
        want = mail(subject).replace(b"\r\n", b"\n")
        assert text.endswith(want.split(b"\n\n", 1)[1].rstrip(b"\n") + b"\n"), text
    assert a.on_server() == {}, a.on_server()


def maildir(path):
    for sub in ("cur", "new", "tmp"):
        os.makedirs(os.path.join(path, sub))


def fetchmail(a, protocol, port):
    a.fill(8)
    maildir(a.local)
    rc, mda = os.path.join(a.dir, "rc"), os.path.join(a.dir, "mda")
    with open(mda, "w") as f:
        f.write(f"#!/bin/sh\nexec cat > $(mktemp {a.local}/new/XXXXXXXX)\n")
    os.chmod(mda, 0o755)
    with open(rc, "w") as f:
        f.write(f"poll {HOST} protocol {protocol} port {a.suite.port[port]} auth password user {a.name} password secret "
                f"ssl no sslcertck no keep fetchall mda \"{mda}\"\n")
    os.chmod(rc, 0o700)
    run(["fetchmail", "-f", rc, "-i", f"{a.dir}/ids", "--pidfile", f"{a.dir}/pid", "--nodetach"],
        {"HOME": a.dir, "FETCHMAILHOME": a.dir})
    taken(a, a.local)


def getmail(a, kind, port):
    a.fill(8)
    maildir(a.local)
    os.mkdir(os.path.join(a.dir, "g"), 0o700)
    with open(os.path.join(a.dir, "g", "getmailrc"), "w") as f:
        f.write(f"[retriever]\ntype = Simple{kind}SSLRetriever\nserver = {HOST}\nport = {a.suite.port[port]}\n"
                f"username = {a.name}\npassword = secret\n[destination]\ntype = Maildir\npath = {a.local}/\n"
                "[options]\ndelete = true\ndelivered_to = false\nreceived = false\n")
    # It puts no mail into a Maildir as root.
    subprocess.run(["chown", "-R", "nobody", a.dir], check=True)
    run(["runuser", "-u", "nobody", "--", "getmail", f"--getmaildir={a.dir}/g"], {"HOME": a.dir})
    taken(a, a.local)


def mpop(a):
    a.fill(8)
    maildir(a.local)
    rc = os.path.join(a.dir, "rc")
    with open(rc, "w") as f:
        f.write(f"account default\nhost {HOST}\nport {a.suite.port['pop3s']}\ntls on\ntls_starttls off\ntls_certcheck off\n"
                f"auth user\nuser {a.name}\npassword secret\nkeep off\ndelivery maildir {a.local}\nreceived_header off\n"
                f"uidls_file {a.dir}/uidls\n")
    os.chmod(rc, 0o600)
    run(["mpop", "-C", rc], {"HOME": a.dir})
    taken(a, a.local)


MODULES = os.path.join(ROOT, "build", "npm", "node_modules")


def imapflow_is_there():
    """It is in no package of Debian: where npm's registry cannot be reached it is left out, and said so."""
    if not os.path.isdir(os.path.join(MODULES, "imapflow")):
        try:
            run(["npm", "install", "--no-save", "--prefix", os.path.dirname(MODULES), "imapflow@" + IMAPFLOW])
        except (AssertionError, subprocess.TimeoutExpired) as e:
            print(f"     imapflow is not tried: npm cannot fetch it: {str(e)[-300:]}", flush=True)
            return False
    return True


class Flow:
    """imapflow, in a process of node."""

    def __init__(self, a):
        self.p = subprocess.Popen(["node", os.path.join(ROOT, "tests", "interop", "imapflow.js"), HOST,
                                   str(a.suite.port["imaps"]), a.name], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                  text=True, env=dict(os.environ, NODE_PATH=MODULES))

    def __call__(self, *command):
        self.p.stdin.write(json.dumps(command) + "\n")
        self.p.stdin.flush()
        got = json.loads(self.p.stdout.readline())
        assert "error" not in got, (command, got)
        return got.get("ok")

    def event(self, what):
        """What it was told, until this comes."""
        seen = []

        def look():
            seen.extend(self("events"))
            return next((e for e in seen if e[0] == what), None)
        return wait_for(look)


def imapflow(a):
    flow = Flow(a)
    began = flow("connect")
    assert {"UTF8=ACCEPT", "CONDSTORE", "QRESYNC"} <= set(began["enabled"]), began
    assert flow("open", "INBOX") == 0
    # There: kept, read back whole, flagged, moved, removed.
    uids = [flow("append", "INBOX", mail(f"f{i}").decode(), ["\\Seen"] if i % 2 else []) for i in range(8)]
    assert len(set(uids)) == 8
    flow("noop")
    rows = {row[1]: row for row in flow("fetch", "1:*")}
    assert sorted(rows) == [f"f{i}" for i in range(8)] and rows["f3"][2] == ["\\Seen"], rows
    assert rows["f0"][3:] == ["text/plain", len(mail("f0"))]
    assert flow("source", uids[2]) == mail("f2").decode()
    assert flow("search", {"subject": "f5"}) == [uids[5]] and flow("search", {"seen": False}) == uids[::2]
    assert flow("flag", str(uids[0]), ["\\Flagged", "$Forwarded"]) and flow("unflag", str(uids[1]), ["\\Seen"])
    assert flow("create", "\u00dcbersee") and len(flow("move", str(uids[4]), "\u00dcbersee")) == 1
    assert flow("remove", str(uids[6]))
    assert flow("status", "\u00dcbersee") == [1, 1]
    assert ["\u00dcbersee", ""] in flow("list"), flow("list")
    want = {"f0": {"\\Flagged", "$Forwarded"}, "f1": set(), "f2": set(), "f3": {"\\Seen"}, "f5": {"\\Seen"}, "f7": {"\\Seen"}}
    assert a.on_server() == want, a.on_server()
    # Here, while it idles: the same told to it.
    flow("events")
    flow("idle")
    m = a.imap()
    m.append("INBOX", None, None, mail("new"))
    assert flow.event("exists")[1] == 7
    m.noop()
    m.uid("STORE", str(uids[2]), "+FLAGS", "(\\Answered)")
    told = flow.event("flags")
    assert "\\Answered" in told[2], told
    m.uid("STORE", str(uids[5]), "+FLAGS.SILENT", "(\\Deleted)")
    m.expunge()
    assert flow.event("expunge")[1] in (uids[5], 5)
    m.logout()
    flow("noop")
    rows = {row[1]: set(row[2]) - {"\\Recent"} for row in flow("fetch", "1:*")}
    assert rows == a.on_server(), rows
    flow("quit")
    assert flow.p.wait(20) == 0


def pop(a):
    p = poplib.POP3_SSL(HOST, a.suite.port["pop3s"], context=TLS)
    p.user(a.name)
    p.pass_("secret")
    return p


def uidl(a):
    p = pop(a)
    out = [line.split()[1] for line in p.uidl()[1]]
    p.quit()
    return out


def uidl_for_ever(a):
    """The same after flags, a move to cur/, the loss of the index, a folder and back, and a restart."""
    a.fill(12)
    first = uidl(a)
    assert len(set(first)) == 12
    m = a.imap()
    m.store("1:6", "+FLAGS", "(\\Flagged \\Seen $x)")
    m.store("1:3", "-FLAGS", "(\\Seen)")
    m.logout()
    assert uidl(a) == first
    d = a.suite.maildir(a.name)
    os.unlink(os.path.join(d, "bulkhead.index"))
    assert uidl(a) == first
    a.suite.ctl("stop")
    a.suite.ctl("start")
    assert uidl(a) == first
    os.unlink(os.path.join(d, "bulkhead-uid"))
    assert uidl(a) == first
    m = a.imap()
    m.append("INBOX", None, None, mail("later"))
    m.store("5", "+FLAGS", "(\\Deleted)")
    m.expunge()
    m.logout()
    assert uidl(a)[:-1] == first[:4] + first[5:]


def pop3_in_use(a):
    a.fill(3)
    one = pop(a)
    try:
        two = pop(a)
        two.stat()
        raise AssertionError("a second session was let in")
    except poplib.error_proto as e:
        assert "[IN-USE]" in str(e), e
    # IMAP goes on beside it, and what it removes POP3 says.
    m = a.imap()
    m.store("2", "+FLAGS", "(\\Deleted)")
    m.expunge()
    m.logout()
    try:
        one.retr(2)
        raise AssertionError("a message that is not there")
    except poplib.error_proto as e:
        assert "removed" in str(e), e
    one.dele(1)
    one.dele(2)
    one.quit()
    assert set(a.on_server()) == {"s2"}, a.on_server()
    assert len(uidl(a)) == 1


def python_both_ways(a):
    """imaplib and poplib: each sees what the other did."""
    a.fill(6)
    p, m = pop(a), a.imap()
    assert p.stat()[0] == 6
    p.retr(4)  # s3, which had no flags
    m.noop()
    m.store("1", "FLAGS", "(\\Deleted)")
    p.dele(5)
    p.quit()
    m.noop()
    assert m.search(None, "DELETED")[1] == [b"1"]
    assert m.expunge()[0] == "OK"
    m.logout()
    assert set(a.on_server()) == {"s1", "s2", "s3", "s5"}, a.on_server()
    assert "\\Seen" in a.on_server()["s3"]
    assert len(uidl(a)) == 4


def python_poplib(a):
    a.fill(8)
    p = poplib.POP3_SSL(HOST, a.suite.port["pop3s"], context=TLS)
    p.user(a.name)
    p.pass_("secret")
    assert p.stat()[0] == 8
    ids = dict(line.split() for line in p.uidl()[1])
    assert b"\r\n".join(p.retr(1)[1]) + b"\r\n" == mail("s0")
    p.dele(2)
    p.quit()
    p = poplib.POP3_SSL(HOST, a.suite.port["pop3s"], context=TLS)
    p.user(a.name)
    p.pass_("secret")
    assert [line.split()[1] for line in p.uidl()[1]] == [v for k, v in ids.items() if k != b"2"]
    p.quit()
    assert "s1" not in a.on_server()


def python_imaplib(a):
    a.fill(8)
    m = a.imap()
    assert m.sort("REVERSE DATE", "UTF-8", "ALL")[1] == [b"1 2 3 4 5 6 7 8"]
    assert m.thread("REFERENCES", "UTF-8", "ALL")[1][0].count(b"(") == 8
    assert m.create("Sub")[0] == "OK" and m.copy("1:3", "Sub")[0] == "OK"
    assert m.getquotaroot("INBOX")[0] == "OK"
    assert m.select("Sub")[1] == [b"3"]
    m.close()
    m.logout()


def main():
    only = sys.argv[1:]
    with Suite(hostname="localhost") as suite:
        for name, fn, *args in (("mbsync", mbsync), ("offlineimap", offlineimap), ("imapflow", imapflow), ("imaplib", python_imaplib),
                                ("imaplib-poplib", python_both_ways), ("uidl", uidl_for_ever), ("pop3-in-use", pop3_in_use),
                                ("poplib", python_poplib), ("mpop", mpop), ("fetchmail-imap", fetchmail, "imap", "imaps"),
                                ("fetchmail-pop3", fetchmail, "pop3", "pop3s"), ("getmail-imap", getmail, "IMAP", "imaps"),
                                ("getmail-pop3", getmail, "POP3", "pop3s")):
            if (only and name not in only) or (name == "imapflow" and not imapflow_is_there()):
                continue
            account = Account(suite, name.replace("-", ""))
            REPORT.run(name, fn, account, *args)
            shutil.rmtree(account.dir, ignore_errors=True)
    REPORT.end()


if __name__ == "__main__":
    main()
