#!/usr/bin/env python3
"""Names from a real server (nsd) through dnsd and relay to another instance: MX, implicit MX, null
MX, CNAME, large answers over TCP, names that do not exist, and names nobody answers for."""
import os
import shutil
import smtplib
import ssl
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from harness import Report, Suite, free_ports, wait_for  # noqa: E402

ZONES = {
    "b.example": "@ MX 10 mx\nmx A 127.0.0.1\n",
    "c.example": "@ A 127.0.0.1\n",  # implicit MX
    "alias.example": "@ MX 10 other\nother CNAME mx.b.example.\n",
    "null.example": "@ MX 0 .\n",
    "empty.example": "@ TXT nothing\n",
    "mxonly.example": "@ MX 10 nowhere\n",
    # About 4 KiB: more than any UDP answer. The first one is real.
    "big.example": "@ MX 0 mx\nmx A 127.0.0.1\n" + "".join(
        f"@ MX {i} host-{i}-with-a-rather-long-name-so-that-it-needs-room\n"
        for i in range(1, 80)),
    # A dead host first, then a live one.
    "backup.example": "@ MX 10 dead\n@ MX 20 mx\ndead A 127.0.0.99\nmx A 127.0.0.1\n",
}


class Nsd:
    def __init__(self):
        self.dir = tempfile.mkdtemp(prefix="bulkhead-nsd-")
        os.chmod(self.dir, 0o755)
        self.port = free_ports(1)[0]
        zones = ""
        for name, records in ZONES.items():
            path = os.path.join(self.dir, name + ".zone")
            with open(path, "w") as f:
                f.write(f"$ORIGIN {name}.\n$TTL 60\n@ SOA ns hostmaster 1 60 60 60 60\n@ NS ns\n"
                        f"ns A 127.0.0.1\n{records}")
            zones += f"zone:\n  name: {name}\n  zonefile: {path}\n"
        conf = os.path.join(self.dir, "nsd.conf")
        with open(conf, "w") as f:
            f.write(f"server:\n  ip-address: 127.0.0.1@{self.port}\n  username: \"\"\n"
                    f"  zonesdir: {self.dir}\n  database: \"\"\n  pidfile: {self.dir}/pid\n"
                    f"  xfrdfile: {self.dir}/xfrd\n  zonelistfile: {self.dir}/list\n"
                    f"  xfrdir: {self.dir}\n  chroot: \"\"\n"
                    f"remote-control:\n  control-enable: no\n{zones}")
        self.process = subprocess.Popen(["nsd", "-d", "-c", conf], stdout=subprocess.DEVNULL,
                                        stderr=subprocess.DEVNULL)
        time.sleep(0.5)
        assert self.process.poll() is None, "nsd did not start"

    def stop(self):
        self.process.terminate()
        self.process.wait()
        shutil.rmtree(self.dir, ignore_errors=True)


def submit(suite, to, subject):
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with smtplib.SMTP("127.0.0.1", suite.port["submission"], timeout=20) as s:
        s.starttls(context=context)
        s.login("alice@example.org", "secret")
        s.sendmail("alice@example.org", [to], f"From: alice@example.org\r\nTo: {to}\r\n"
                   f"Subject: {subject}\r\n\r\n.dots\r\n..too\r\n")


def arrives(suite, name, subject):
    return lambda: [m for m in suite.messages(name) if subject.encode() in m]


def main():
    report = Report()
    if not shutil.which("nsd"):
        print("nsd is not installed")
        sys.exit(1)
    nsd = Nsd()
    b = Suite(hostname="mx.b.example",
              domains=["b.example", "c.example", "alias.example", "big.example", "backup.example"])
    a = Suite(resolver=nsd.port, relay_port=b.port["smtp"])
    try:
        a.start()
        b.start()
        a.add("alice@example.org", "secret")
        for domain in b.domains:
            b.add("bob@" + domain, "secret")

        def delivered(domain):
            subject = "to " + domain
            submit(a, "bob@" + domain, subject)
            message = wait_for(arrives(b, "bob@" + domain, subject))[0]
            body = message.replace(b"\r\n", b"\n").split(b"\n\n", 1)[1]
            assert body == b".dots\n..too\n", body
            assert b"TLSv1.3" in message, message

        def bounced(domain, status):
            submit(a, "bob@" + domain, "to " + domain)
            dsn = wait_for(arrives(a, "alice@example.org", "bob@" + domain))[0]
            assert status.encode() in dsn, dsn

        def deferred(domain):
            submit(a, "bob@" + domain, "to " + domain)
            wait_for(lambda: [line for line in a.tail(200).splitlines()
                              if "bob@" + domain in line and "deferred" in line and "4.4.3" in line],
                     30)

        for domain in b.domains:
            report.run("delivered to " + domain, delivered, domain)
        report.run("null MX bounces at once", bounced, "null.example", "5.1.10")
        report.run("a domain that does not exist bounces", bounced, "sub.b.example", "5.1.2")
        report.run("a domain without addresses bounces", bounced, "empty.example", "5.4.4")
        report.run("an MX without an address bounces", bounced, "mxonly.example", "5.4.4")
        report.run("a refusal is not an answer", deferred, "elsewhere.example")
        nsd.process.terminate()
        nsd.process.wait()
        report.run("a dead resolver defers", deferred, "unheard-of.example")
        if report.failed:
            sys.stderr.write(a.tail() + b.tail())
    finally:
        a.stop()
        b.stop()
        nsd.stop()
    report.end()


if __name__ == "__main__":
    main()
