#!/usr/bin/env python3
"""TLS connections a second: STARTTLS beside Postfix, IMAPS beside Dovecot, by turns in one run; ECDSA P-256 and RSA-2048, full
handshakes and resumed ones; and the processor time of each server for a thousand. The client (tls_source) uses the same two
cores. Dovecot as Debian has it (a login process for each connection) and, second, with login processes that are used again.

BENCH_ROUNDS says how often (5), BENCH_SECONDS how long each (2), BENCH_CLIENTS how many at once (16)."""
import os
import socket
import statistics
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, ".."))
import mta  # noqa: E402
from harness import BIN, Suite, make_certificate, wait_for  # noqa: E402
from mta import Cgroup  # noqa: E402

ROUNDS = int(os.environ.get("BENCH_ROUNDS", "5"))
SECONDS = os.environ.get("BENCH_SECONDS", "2")
CLIENTS = os.environ.get("BENCH_CLIENTS", "16")
SOURCE = os.path.join(os.path.dirname(BIN), "tls_source")
DOVECOT = """base_dir = {d}/run
state_dir = {d}/state
log_path = {d}/log
protocols = imap
ssl = required
ssl_cert = <{d}/cert.pem
ssl_key = <{d}/key.pem
listen = 127.0.0.1
mail_max_userip_connections = 1000
passdb {{
  driver = passwd-file
  args = {d}/users
}}
userdb {{
  driver = static
  args = uid=65534 gid=65534 home={d}
}}
service imap-login {{
  {mode}
  inet_listener imap {{
    port = 0
  }}
  inet_listener imaps {{
    port = {p}
  }}
}}
service stats {{
  unix_listener stats-writer {{
    mode = 0666
  }}
}}
"""


class Ours:
    name = "Bulkhead"

    def __init__(self, kind):
        many = ["sessions 1000", "sessions-per-address 1000"]
        self.suite = Suite(cert_kind=kind, blocks={"smtpd": many, "imapd": many})
        self.cgroup = Cgroup("tls-ours-" + kind)
        self.cgroup.run(lambda: self.suite.ctl("start"))
        self.port = {"smtp": self.suite.port["smtp"], "imap": self.suite.port["imaps"]}

    def stop(self):
        self.suite.stop()


class Postfix(mta.Postfix):
    name = "Postfix"

    def __init__(self, kind):
        super().__init__("postfix-tls")
        make_certificate(self.dir, ["mx.example.org"], kind)
        self.postfix_files(self.dir, f"""smtpd_tls_cert_file = {self.dir}/cert.pem
smtpd_tls_key_file = {self.dir}/key.pem
smtpd_tls_security_level = may
smtpd_client_connection_count_limit = 1000
smtpd_client_connection_rate_limit = 0
""")
        os.mkdir(self.dir + "/spool")
        self.cgroup = Cgroup("tls-postfix-" + kind)
        self.cgroup.run(lambda: self.postfix("start"))
        wait_for(self.answers, 20)
        self.smtp = self.port
        self.port = {"smtp": self.smtp}

    def stop(self):
        subprocess.run(["postfix", "-c", self.etc, "stop"], capture_output=True)
        self.remove()


class Dovecot(mta.Private):
    name, mode = "Dovecot", "process_limit = 500"

    def __init__(self, kind):
        super().__init__("dovecot-tls")
        make_certificate(self.dir, ["mx.example.org"], kind)
        self.write("users", "box:{PLAIN}secret\n")
        conf = self.write("dovecot.conf", DOVECOT.format(d=self.dir, p=self.port, mode=self.mode))
        self.cgroup = Cgroup(f"tls-{self.name.lower().replace(' ', '-')}-{kind}")
        self.cgroup.run(lambda: subprocess.run(["dovecot", "-c", conf], check=True, stdin=subprocess.DEVNULL,
                                                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
        self.conf, self.port = conf, {"imap": self.port}

        def there():
            with socket.socket() as s:
                return s.connect_ex(("127.0.0.1", self.port["imap"])) == 0
        wait_for(there, 20)

    def stop(self):
        subprocess.run(["doveadm", "-c", self.conf, "stop"], capture_output=True)
        self.remove()


class Reused(Dovecot):
    name, mode = "Dovecot reused", "service_count = 0\n  process_min_avail = 2\n  client_limit = 1000"


def measure(system, protocol, way):
    """Connections a second, milliseconds of the server's processor for each, part that was resumed."""
    before = system.cgroup.cpu()
    p = subprocess.run([SOURCE, str(system.port[protocol]), protocol, CLIENTS, SECONDS, way], capture_output=True, text=True, timeout=60)
    n, resumed, failed, us = map(int, p.stdout.split())
    if failed > n / 100 or n == 0:
        raise RuntimeError(f"{system.name} {protocol} {way}: {n} done, {failed} failed")
    return n / (us / 1e6), (system.cgroup.cpu() - before) * 1000 / n, resumed / n


def main():
    passed = failed = 0
    print(f"{'':<24} {'way':<7} {'system':<15} {'a second':>9} {'CPU ms':>7} {'resumed':>8} {'ratio':>6}")
    for kind, title in (("ec", "ECDSA P-256"), ("rsa", "RSA-2048")):
        systems = [Ours(kind), Postfix(kind), Dovecot(kind), Reused(kind)]
        try:
            for protocol, label in (("smtp", "STARTTLS"), ("imap", "IMAPS")):
                mine = [s for s in systems if protocol in s.port]
                for s in mine:
                    measure(s, protocol, "full")  # warm
                for way in ("full", "resume"):
                    got = {s.name: [] for s in mine}
                    for _ in range(ROUNDS):
                        for s in mine:
                            got[s.name].append(measure(s, protocol, way))
                    middle = {k: [statistics.median(x) for x in zip(*v)] for k, v in got.items()}
                    for name, (rate, cpu, resumed) in middle.items():
                        ratio = middle["Bulkhead"][0] / rate
                        shown = "" if name == "Bulkhead" else f"{ratio:6.2f}"
                        print(f"{title + ', ' + label:<24} {way:<7} {name:<15} {rate:>9.0f} {cpu:>7.2f} {resumed:>7.0%} {shown}", flush=True)
                        if name in ("Postfix", "Dovecot"):
                            passed, failed = passed + (ratio >= 1), failed + (ratio < 1)
        finally:
            for s in systems:
                s.stop()
    print(f"{passed} passed, {failed} failed")
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
