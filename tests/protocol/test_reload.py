#!/usr/bin/env python3
"""bulkhead reload: open sessions go on; domains, aliases, ports and certificates take effect; a bad
configuration changes nothing. Ends with "N passed, N failed"."""
import imaplib
import os
import smtplib
import socket
import ssl
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from fake_dns import FakeDNS  # noqa: E402
from fake_mx import FakeMX  # noqa: E402
from harness import Report, Suite, free_ports, make_certificate, wait_for  # noqa: E402


def edit(path, old, new):
    with open(path) as f:
        text = f.read()
    assert old in text, old
    with open(path, "w") as f:
        f.write(text.replace(old, new, 1))


def rcpt(suite, to, port=None):
    with smtplib.SMTP("127.0.0.1", port or suite.port["smtp"], timeout=20) as c:
        c.ehlo("client.example")
        c.mail("s@client.example")
        return c.rcpt(to)[0]


def certificate(port):
    return ssl.get_server_certificate(("127.0.0.1", port), timeout=20)


def sessions_go_on(suite):
    c = smtplib.SMTP("127.0.0.1", suite.port["smtp"], timeout=20)
    c.ehlo("client.example")
    c.mail("s@client.example")
    c.rcpt("alice@example.org")
    imap = imaplib.IMAP4("127.0.0.1", suite.port["imap"])
    imap.starttls()
    imap.login("alice", "secret")
    assert imap.select()[0] == "OK"
    suite.ctl("reload")
    suite.ctl("reload")
    assert c.data("Subject: over-a-reload.\r\n\r\nx\r\n")[0] == 250
    c.mail("s@client.example")
    assert c.rcpt("alice@example.org")[0] == 250
    c.quit()
    wait_for(lambda: any(b"over-a-reload." in m for m in suite.messages("alice")))
    wait_for(lambda: int(imap.select()[1][0]) == 1)
    assert imap.fetch("1", "(FLAGS)")[0] == "OK"
    imap.logout()


def domain(suite):
    assert rcpt(suite, "alice@new.example") == 550
    edit(suite.conf, "domain example.org", "domain example.org new.example")
    suite.ctl("reload")
    suite.add("carol@new.example", "secret")
    wait_for(lambda: rcpt(suite, "carol@new.example") == 250)


def alias(suite):
    with open(suite.dir + "/aliases", "w") as f:
        f.write("fresh: alice\n")
    suite.ctl("reload")
    wait_for(lambda: rcpt(suite, "fresh@example.org") == 250)
    with smtplib.SMTP("127.0.0.1", suite.port["smtp"], timeout=20) as c:
        c.sendmail("s@client.example", ["fresh@example.org"], "Subject: by-the-alias.\r\n\r\nx\r\n")
    wait_for(lambda: any(b"by-the-alias." in m for m in suite.messages("alice")))


def listen(suite):
    port, = free_ports(1)
    edit(suite.conf, "smtpd {\n", f"smtpd {{\n  listen 127.0.0.1 port {port}\n")
    suite.ctl("reload")
    assert wait_for(lambda: rcpt(suite, "alice@example.org", port) == 250)
    assert rcpt(suite, "alice@example.org") == 250
    edit(suite.conf, f"  listen 127.0.0.1 port {port}\n", "")
    suite.ctl("reload")

    def gone():
        try:
            socket.create_connection(("127.0.0.1", port), timeout=2).close()
            return False
        except OSError:
            return True
    wait_for(gone)


def new_certificate(suite):
    before = certificate(suite.port["imaps"])
    make_certificate(suite.dir, [suite.hostname])
    assert certificate(suite.port["imaps"]) == before
    suite.ctl("reload")

    def changed(port):
        try:
            return certificate(port) != before
        except OSError:
            return False
    wait_for(lambda: changed(suite.port["imaps"]))
    wait_for(lambda: changed(suite.port["submissions"]))
    assert certificate(suite.port["pop3s"]) == certificate(suite.port["imaps"])


class Handshake:
    """One that stops in the middle of its first message."""

    def __init__(self, port):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        self.tcp = socket.create_connection(("127.0.0.1", port), timeout=20)
        self.came, self.goes = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.came, self.goes)
        self.step()
        self.rest = self.goes.read()
        self.tcp.sendall(self.rest[:100])

    def step(self):
        try:
            self.tls.do_handshake()
            return True
        except ssl.SSLWantReadError:
            return False

    def finish(self):
        """The certificate."""
        self.tcp.sendall(self.rest[100:])
        while not self.step():
            data = self.tcp.recv(9999)
            assert data, "cut off"
            self.came.write(data)
        self.tcp.sendall(self.goes.read())
        with self.tcp:
            assert self.tcp.recv(99), "no greeting"
        return self.tls.getpeercert(True)


def keyds(suite):
    def argv(pid):
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as f:
                return f.read().decode().split("\0")
        except OSError:
            return [""]
    return [p for p in os.listdir("/proc") if p.isdigit() and argv(p)[0].endswith("/keyd") and suite.conf in argv(p)]


def a_key_renewed_in_the_middle(suite):
    """Who has been told of a certificate gets signatures of its key, also when there is a new one meanwhile."""
    wait_for(lambda: len(keyds(suite)) == 1)
    before = certificate(suite.port["imaps"])
    begun = [Handshake(suite.port[p]) for p in ("imaps", "pop3s", "submissions")]
    new_certificate(suite)
    assert len(keyds(suite)) == 2, "the old one waits for them"
    for h in begun:
        assert ssl.DER_cert_to_PEM_cert(h.finish()) == before
    wait_for(lambda: len(keyds(suite)) == 1)
    assert certificate(suite.port["imaps"]) != before


def nothing_changes(suite, old, new, said):
    with open(suite.conf) as f:
        good = f.read()
    before = [(r["program"], r["pid"]) for r in suite.status()]
    edit(suite.conf, old, new)
    p = suite.ctl("reload", check=False)
    assert p.returncode == 78 and said in p.stderr + suite.tail(), p
    with open(suite.conf, "w") as f:
        f.write(good)
    assert [(r["program"], r["pid"]) for r in suite.status()] == before
    assert rcpt(suite, "alice@example.org") == 250


class NoSuchName(FakeDNS):
    """But for far.example."""

    def answer(self, query):
        if b"\3far" in query:
            return super().answer(query)
        return query[:2] + b"\x81\x83" + query[4:6] + bytes(6) + query[12:query.index(b"\0", 12) + 5]


def no_smarthost_any_more():
    """What waits for it then goes its own way; its name is no domain of anybody."""
    old, new, dns = FakeMX(), FakeMX(), NoSuchName(lambda domain: "127.0.0.1")
    old.slow = 1
    with Suite(queue="retry 1s\nretry-max 1s", resolver=dns.port,
               blocks={"relay": [f"via 127.0.0.1 port {old.port}"]}) as suite:
        suite.add("alice", "secret")
        with smtplib.SMTP("127.0.0.1", suite.port["submission"], timeout=20) as c:
            c.starttls(context=ssl._create_unverified_context())
            c.login("alice", "secret")
            for i in range(20):
                c.sendmail("alice@example.org", [f"u{i}@far.example"], "Subject: x\r\n\r\nx\r\n")
        edit(suite.conf, f"via 127.0.0.1 port {old.port}", f"port {new.port}")
        suite.ctl("reload")
        wait_for(lambda: len(old.messages) + len(new.messages) >= 20, 30)
        assert new.messages and "status=bounced" not in suite.tail(1000), suite.tail()
    for server in (old, new, dns):
        server.stop()


def main():
    r = Report()
    with Suite() as suite, socket.create_server(("127.0.0.1", 0)) as taken:
        suite.add("alice", "secret")
        r.run("sessions go on", sessions_go_on, suite)
        r.run("a new domain", domain, suite)
        r.run("a new alias", alias, suite)
        r.run("a new port, and away again", listen, suite)
        r.run("a new certificate", new_certificate, suite)
        r.run("a key renewed in the middle of handshakes", a_key_renewed_in_the_middle, suite)
        for name, old, new, said in (
                ("an unknown word", "hostname ", "hostnam ", "unknown word"),
                ("another queue directory", "/queue\n", "/queue2\n", "only with stop and start"),
                ("a program less", "pop3d {", "relay { }\nimapd {", "only with stop and start"),
                ("a port that is taken", "smtpd {\n",
                 f"smtpd {{\n listen 127.0.0.1 port {taken.getsockname()[1]}\n", "Address already in use"),
                ("a port that is ours already", "smtpd {\n",
                 f"smtpd {{\n listen 127.0.0.1 port {suite.port['imap']}\n", "is listened at twice")):
            r.run(f"bad: {name}", nothing_changes, suite, old, new, said)
        r.check("a reload is no restart", all(x["restarts"] == 0 for x in suite.status()),
                str(suite.status()))
        if r.failed:
            print(suite.tail(40))
    r.run("no smarthost any more", no_smarthost_any_more)
    r.end()


if __name__ == "__main__":
    main()
