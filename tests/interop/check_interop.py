#!/usr/bin/env python3
"""Two instances of the suite, Postfix, a real DNS server and real clients, on loopback.

    swaks -> submitd of A -> relay by MX -> smtpd of B, and Postfix; Postfix -> smtpd of A;
    curl, s-nail and mutt read over IMAP and POP3, plain and TLS.

Needs root (Postfix, users of their own). Ends with "N passed, N failed".
"""
import os
import re
import shutil
import signal
import smtplib
import ssl
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from harness import PREFIX, Report, Suite, free_ports, wait_for  # noqa: E402

A, B, POST = "127.0.0.2", "127.0.0.3", "127.0.0.4"
REPORT = Report()


def run(args, input=None, timeout=60):
    p = subprocess.run(args, input=input, capture_output=True, text=True, timeout=timeout,
                       errors="replace")
    return p.returncode, p.stdout + p.stderr


class Nsd:
    """Serves bulk.test, peer.test and post.test, each with MX and A records."""

    def __init__(self):
        self.dir = tempfile.mkdtemp(prefix="bulkhead-nsd-")
        os.chmod(self.dir, 0o755)
        self.port, = free_ports(1)
        conf = (f"server:\n  ip-address: 127.0.0.1\n  port: {self.port}\n  username: \"\"\n"
                f"  zonesdir: {self.dir}\n  database: \"\"\n  pidfile: {self.dir}/pid\n"
                f"  xfrdfile: {self.dir}/xfrd\n  xfrdir: {self.dir}\n  zonelistfile: {self.dir}/zl\n"
                f"remote-control:\n  control-enable: no\n")
        for zone, ip in (("bulk.test", A), ("peer.test", B), ("post.test", POST)):
            with open(f"{self.dir}/{zone}", "w") as f:
                f.write(f"$ORIGIN {zone}.\n$TTL 60\n@ SOA ns hostmaster 1 60 60 60 60\n@ NS ns\n"
                        f"ns A 127.0.0.1\n@ MX 10 mx\nmx A {ip}\n"
                        "null MX 0 .\nimplicit A %s\n" % ip +
                        f"dead MX 5 gone\ndead MX 10 mx\ngone A 127.0.0.9\n")
            conf += f"zone:\n  name: {zone}\n  zonefile: {zone}\n"
        with open(f"{self.dir}/nsd.conf", "w") as f:
            f.write(conf)
        self.process = subprocess.Popen(["nsd", "-d", "-c", f"{self.dir}/nsd.conf"],
                                        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        time.sleep(0.7)
        assert self.process.poll() is None, self.process.stderr.read()

    def stop(self):
        self.process.terminate()
        self.process.wait(10)
        shutil.rmtree(self.dir, ignore_errors=True)


class Postfix:
    """A private Postfix: receives post.test into a Maildir, sends everything else to A's port."""

    def __init__(self, port):
        self.dir = tempfile.mkdtemp(prefix="bulkhead-postfix-")
        os.chmod(self.dir, 0o755)
        for sub in ("etc", "spool", "data", "mail"):
            os.mkdir(f"{self.dir}/{sub}")
        shutil.chown(f"{self.dir}/data", "postfix")
        shutil.chown(f"{self.dir}/mail", "nobody", "nogroup")
        etc = f"{self.dir}/etc"
        with open(f"{etc}/main.cf", "w") as f:
            f.write(f"compatibility_level = 3.6\nmyhostname = mx.post.test\nmydestination =\n"
                    f"inet_interfaces = loopback-only\ninet_protocols = ipv4\nqueue_directory = {self.dir}/spool\n"
                    f"data_directory = {self.dir}/data\n"
                    "virtual_mailbox_domains = post.test\nvirtual_mailbox_base = %s/mail\n"
                    "virtual_mailbox_maps = inline:{carol@post.test=carol/}\n"
                    "virtual_uid_maps = static:65534\nvirtual_gid_maps = static:65534\n"
                    "transport_maps = inline:{bulk.test=smtp:[%s]:%d}\n"
                    "smtp_dns_support_level = disabled\nsmtp_host_lookup = native\nmynetworks = 127.0.0.0/8\n"
                    "smtp_tls_security_level = may\nalias_maps =\nalias_database =\n"
                    % (self.dir, A, port))
        text = open("/usr/share/postfix/master.cf.dist").read() \
            if os.path.exists("/usr/share/postfix/master.cf.dist") else open("/etc/postfix/master.cf").read()
        text = re.sub(r"(?m)^smtp\s+inet.*$", f"{POST}:{port} inet n - n - - smtpd", text)
        text = re.sub(r"(?m)^(\S+\s+(?:unix|fifo|inet)\s+\S+\s+\S+\s+)y", r"\1n", text)
        with open(f"{etc}/master.cf", "w") as f:
            f.write(text)
        with open(f"{etc}/main.cf", "a") as f:
            f.write(f"maillog_file = {self.dir}/log\nmaillog_file_prefixes = {self.dir}\n")
        code, out = run(["postfix", "-c", etc, "start"])
        assert code == 0, out + self.log()
        self.etc = etc

    def log(self):
        try:
            return open(f"{self.dir}/log", errors="replace").read()
        except OSError:
            return ""

    def messages(self):
        out = []
        for sub in ("new", "cur"):
            d = f"{self.dir}/mail/carol/{sub}"
            for name in os.listdir(d) if os.path.isdir(d) else []:
                out.append(open(os.path.join(d, name), errors="replace").read())
        return out

    def send(self, sender, rcpt, subject):
        return run(["sendmail", "-C", self.etc, "-f", sender, rcpt],
                   f"From: {sender}\nTo: {rcpt}\nSubject: {subject}\n\nfrom Postfix\n")

    def stop(self):
        run(["postfix", "-c", self.etc, "stop"])
        shutil.rmtree(self.dir, ignore_errors=True)


def arrives(suite, account, text, seconds=20):
    try:
        return wait_for(lambda: [m for m in suite.messages(account) if text.encode() in m], seconds)
    except AssertionError:
        return []


def swaks(suite, port, tls, sender, rcpt, subject):
    return run(["swaks", "--server", f"{suite.address}:{port}", tls, "--auth", "PLAIN", "--auth-user", "alice",
                "--auth-password", "secret", "--from", sender, "--to", rcpt, "--h-Subject", subject,
                "--body", "hello over TLS"])


def submission(a, b, postfix):
    for port, tls in (("submission", "--tls"), ("submissions", "--tls-on-connect")):
        for rcpt, where in (("bob@peer.test", "second instance"), ("carol@post.test", "Postfix")):
            subject = f"{port} to {rcpt}"
            code, out = swaks(a, a.port[port], tls, "alice@bulk.test", rcpt, subject)
            REPORT.check(f"swaks submits on {port} with AUTH over TLS", code == 0, out[-400:])
            if where == "Postfix":
                try:
                    got = wait_for(lambda: [m for m in postfix.messages() if subject in m], 20)
                except AssertionError:
                    got = []
            else:
                got = arrives(b, "bob", subject)
            REPORT.check(f"relayed by MX to {where}", got, postfix.log()[-600:] + a.tail(5))
    code, out = swaks(a, a.port["submission"], "--tls", "mallory@bulk.test", "bob@peer.test", "forged")
    REPORT.check("another sender than the login is refused", code != 0 and "553" in out, out[-300:])


def answers(a, b, postfix):
    """Both answer: B's user submits to A's, Postfix sends to A."""
    code, out = run(["swaks", "--server", f"{B}:{b.port['submission']}", "--tls", "--auth", "PLAIN",
                     "--auth-user", "bob", "--auth-password", "secret2", "--from", "bob@peer.test",
                     "--to", "alice@bulk.test", "--h-Subject", "answer of B"])
    REPORT.check("B's user submits an answer", code == 0, out[-400:])
    REPORT.check("B answers A", arrives(a, "alice", "answer of B"), b.tail(10))
    code, out = postfix.send("carol@post.test", "alice@bulk.test", "answer of Postfix")
    REPORT.check("Postfix takes the answer", code == 0, out)
    got = arrives(a, "alice", "answer of Postfix")
    REPORT.check("Postfix sends to A", got, postfix.log()[-800:])
    REPORT.check("Postfix came over TLS", got and b"ESMTPS" in got[0], got[:1])
    code, out = swaks(a, a.port["submission"], "--tls", "alice@bulk.test", "nobody@post.test", "to nobody")
    REPORT.check("unknown at Postfix: bounce to alice",
                 arrives(a, "alice", "Action: failed"), a.tail(5))
    code, out = swaks(a, a.port["submission"], "--tls", "alice@bulk.test", "x@null.post.test", "null mx")
    REPORT.check("null MX: bounce 5.1.10", arrives(a, "alice", "5.1.10"), a.tail(5))
    code, out = swaks(a, a.port["submission"], "--tls", "alice@bulk.test", "bob@implicit.peer.test", "im")
    REPORT.check("implicit MX is tried (refused there: not its domain)",
                 arrives(a, "alice", "bob@implicit.peer.test"), a.tail(5))
    code, out = swaks(a, a.port["submission"], "--tls", "alice@bulk.test", "bob@dead.peer.test", "second host")
    REPORT.check("first MX refuses connections: the second is tried",
                 arrives(a, "alice", "bob@dead.peer.test"), a.tail(5))


def reports(a, postfix):
    """RFC 3461 both ways: each passes on what was asked, and the last one reports."""
    with smtplib.SMTP_SSL(A, a.port["submissions"], context=ssl._create_unverified_context(), timeout=20) as c:
        c.login("alice", "secret")
        c.mail("alice@bulk.test", ["RET=HDRS", "ENVID=to-Postfix+2B1"])
        c.rcpt("carol@post.test", ["NOTIFY=SUCCESS,FAILURE", "ORCPT=rfc822;Carol+2Bx@post.test"])
        code, out = c.data(b"From: alice@bulk.test\r\nSubject: report, Postfix\r\n\r\nx\r\n")
        REPORT.check("DSN to Postfix: accepted", code == 250, out)
    got = arrives(a, "alice", "Original-Envelope-Id: to-Postfix+1")
    REPORT.check("Postfix reports: delivered, to the address that was asked for",
                 len(got) == 1 and b"Action: delivered" in got[0] and b"Reporting-MTA: dns; mx.post.test" in got[0]
                 and b"Original-Recipient: rfc822;Carol+x@post.test" in got[0], f"{got} {postfix.log()[-600:]}")
    for rcpt, conditions, action in (("alice@bulk.test", "success", "delivered"),
                                     ("alice@bulk.test", "failure", None), ("nobody@bulk.test", "never", None)):
        envid = f"from Postfix {conditions}"
        code, out = run(["sendmail", "-C", postfix.etc, "-f", "carol@post.test", "-N", conditions, "-V",
                         envid, rcpt],
                        f"From: carol@post.test\nTo: {rcpt}\nSubject: {envid}\n\nx\n")
        REPORT.check(f"DSN of Postfix: {conditions}", code == 0, out)
        if action is None:
            continue
        try:
            got = wait_for(lambda: [m for m in postfix.messages() if f"Original-Envelope-Id: {envid}" in m], 20)
        except AssertionError:
            got = []
        REPORT.check("Postfix reads our report", len(got) == 1 and f"Action: {action}" in got[0] and
                     "Reporting-MTA: dns; mx.bulk.test" in got[0] and
                     "Original-Recipient: rfc822; alice@bulk.test" in got[0] and
                     "Received-From-MTA: dns; mx.post.test" in got[0], f"{got} {postfix.messages()[-1:]} {a.tail(8)}")
    arrives(a, "alice", "from Postfix failure")
    time.sleep(1)
    REPORT.check("and gets none that it did not ask for",
                 not [m for m in postfix.messages() if "Original-Envelope-Id: from Postfix failure" in m])


def curl_reads(a):
    for scheme, port, extra in (("imap", "imap", ["--ssl-reqd"]), ("imaps", "imaps", []),
                                ("pop3", "pop3", ["--ssl-reqd"]), ("pop3s", "pop3s", []),
                                ("imap", "imap", []), ("pop3", "pop3", [])):
        path = "/INBOX;MAILINDEX=1" if scheme.startswith("imap") else "/1"
        code, out = run(["curl", "-sk", *extra, "--user", "alice:secret",
                         f"{scheme}://{A}:{a.port[port]}{path}"])
        REPORT.check(f"curl reads over {scheme}{' with STARTTLS' if extra else ''}",
                     code == 0 and "Delivered-To: alice@bulk.test" in out, f"{code} {out[-300:]}")
    code, out = run(["curl", "-sk", "--user", "alice:wrong", f"imaps://{A}:{a.port['imaps']}/INBOX"])
    REPORT.check("a wrong password is refused", code == 67, f"{code} {out}")


def snail_reads(a):
    for url in (f"imaps://alice:secret@{A}:{a.port['imaps']}/INBOX",
                f"pop3s://alice:secret@{A}:{a.port['pop3s']}"):
        env = ["-n", "-Sv15-compat", "-Stls-verify=ignore", "-Sheadline=%s", "-R", "-f", url]
        code, out = run(["s-nail", *env], input="from *\nprint 1\nxit\n", timeout=40)
        REPORT.check(f"s-nail reads over {url.split(':')[0]}",
                     "answer of B" in out, out[-500:])


def mutt_reads(a):
    home = tempfile.mkdtemp(prefix="bulkhead-mutt-")
    rc, saved = f"{home}/muttrc", f"{home}/saved"
    with open(rc, "w") as f:
        f.write(f"set folder=imaps://{A}:{a.port['imaps']}/\nset imap_user=alice\nset imap_pass=secret\n"
                "set ssl_verify_host=no\nset ssl_verify_dates=no\nset certificate_file=%s/c\n"
                "set quit=yes\nset copy=no\nset confirmcreate=no\nset confirmappend=no\n"
                "set sleep_time=0\nset wait_key=no\nset ssl_force_tls=yes\nset delete=yes\n" % home)
    chain = open(f"{a.dir}/cert.pem").read()
    with open(f"{home}/c", "w") as f:
        f.write(chain)
    command = (f"mutt -n -F {rc} -f imaps://{A}:{a.port['imaps']}/INBOX "
               f"-e 'push <tag-pattern>~A<enter><tag-prefix><copy-message>{saved}<enter><exit>'")
    env = dict(os.environ, TERM="xterm", HOME=home)
    try:
        p = subprocess.run(["script", "-qec", command, "/dev/null"], env=env, capture_output=True,
                           timeout=40, stdin=subprocess.DEVNULL)
        out = p.stdout.decode(errors="replace")
    except subprocess.TimeoutExpired as e:
        out = f"timeout: {(e.stdout or b'')[-800:]}"
    text = open(saved, errors="replace").read() if os.path.exists(saved) else ""
    REPORT.check("mutt copies all messages over IMAP with TLS",
                 "answer of B" in text and "answer of Postfix" in text, out[-600:])
    shutil.rmtree(home, ignore_errors=True)


def users(a):
    """One user ID a program, as ps tells."""
    code, out = run(["ps", "-eo", "pid,user:32,args"])
    seen = {}
    for line in out.splitlines():
        m = re.match(r"\s*(\d+)\s+(\S+)\s+(?:\S*/)?([a-z0-9]+) (?:-p \S+ )?-f " + re.escape(a.conf), line)
        if m:
            seen.setdefault(m.group(3), set()).add(m.group(2))
    print(f"     {'program':10} user")
    for program, names in sorted(seen.items()):
        print(f"     {program:10} {' '.join(sorted(names))}")
    want = {r: {PREFIX + r} for r in ("authd", "keyd", "tlsd", "dnsd", "qmgr", "local", "relay", "submitd", "smtpd",
                                      "pop3d", "imapd")}
    ok = all(seen.get(r) == u for r, u in want.items())
    REPORT.check("ps: each program under a user of its own", ok, str(seen))
    REPORT.check("ps: only master and launcher are root",
                 {p for p, u in seen.items() if "root" in u} == {"master", "launcher"}, str(seen))


def main():
    if os.geteuid() != 0:
        print("check-interop needs root: it starts Postfix")
        return REPORT.end()
    nsd = Nsd()
    port, = free_ports(1)
    common = {"resolver": nsd.port, "relay_port": port, "queue": "retry 2s\nretry-max 4s"}
    a = Suite("mx.bulk.test", ["bulk.test"], address=A, ports={"smtp": port}, **common)
    b = Suite("mx.peer.test", ["peer.test"], address=B, ports={"smtp": port}, cert_kind="rsa", **common)
    postfix = None
    try:
        a.start()
        b.start()
        a.add("alice", "secret")
        b.add("bob", "secret2")
        postfix = Postfix(port)
        REPORT.run("submission", submission, a, b, postfix)
        REPORT.run("answers", answers, a, b, postfix)
        REPORT.run("reports", reports, a, postfix)
        REPORT.run("curl", curl_reads, a)
        REPORT.run("s-nail", snail_reads, a)
        REPORT.run("mutt", mutt_reads, a)
        REPORT.run("users", users, a)
        if REPORT.failed:
            print(a.tail(60))
    finally:
        if postfix:
            postfix.stop()
        a.stop()
        b.stop()
        nsd.stop()
    REPORT.end()


main()
