"""smtpd, submitd and sendmail(1): conversations with the real binaries.

What an attacker or a careless client sends, in raw bytes. Letters and numbers in names are those of
the catalogue of failures.
"""
import base64
import os
import re
import signal
import smtplib
import socket
import ssl
import subprocess
import sys
import threading
import time

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from fake_mx import FakeMX  # noqa: E402
from harness import BIN, Report, Suite, wait_for  # noqa: E402

TLS = ssl.create_default_context()
TLS.check_hostname = False
TLS.verify_mode = ssl.CERT_NONE


class Chat:
    def __init__(self, port, early=b"", tls=False):
        self.s = socket.create_connection(("127.0.0.1", port), timeout=20)
        if early:
            self.s.sendall(early)
        if tls:
            self.s = TLS.wrap_socket(self.s)
        self.rest = b""

    def put(self, data):
        try:
            self.s.sendall(data)
        except OSError:
            pass  # it has hung up: what it said is read next

    def line(self):
        while b"\n" not in self.rest:
            try:
                got = self.s.recv(65536)
            except ConnectionError:
                got = b""
            if not got:
                return b""
            self.rest += got
        line, self.rest = self.rest.split(b"\n", 1)
        return line + b"\n"

    def reply(self, want=None):
        lines = [self.line()]
        while lines[-1][3:4] == b"-":
            lines.append(self.line())
        text = b"".join(lines).decode("ascii")
        if want is not None and not text.startswith(want):
            raise AssertionError(f"wanted {want}, got {text!r}")
        return text

    def say(self, line, want=None):
        self.put(line.encode() + b"\r\n")
        return self.reply(want)

    def closed(self):
        if self.line() != b"":
            raise AssertionError("it goes on talking")
        self.s.close()

    def starttls(self):
        self.say("STARTTLS", "220")
        self.s = TLS.wrap_socket(self.s)


def hello(port, verb="EHLO", **kw):
    c = Chat(port, **kw)
    c.reply("220")
    c.say(verb + " client.example", "250")
    return c


def envelope(c):
    c.say("MAIL FROM:<a@example.com>", "250")
    c.say("RCPT TO:<user@example.org>", "250")


def queued(suite):
    with open(suite.log, errors="replace") as f:
        return sum("(queue active)" in line for line in f)


SEQUENCES = [b"\n.\n", b"\r.\r", b"\r.\n", b"\n.\r", b"\n.\r\n", b"\r\n.\n", b"\r.\r\n", b"\r\n.\r",
             b"\r\n\0.\r\n", b"\r\n.\0\r\n", b"\r\n.\r\r\n", b"\r\r\n.\r\r\n", b"\r\n..\n",
             b"a\rb\r\n", b"a\nb\r\n"]


def smuggle(suite, seq, verb):
    """A1, A2, A3: one message or none, never two."""
    before = queued(suite)
    c = hello(suite.port["smtp"], verb)
    envelope(c)
    c.say("DATA", "354")
    c.put(b"Subject: x\r\n\r\nX" + seq + b"MAIL FROM:<evil@x>\r\nRCPT TO:<user@example.org>\r\n"
          b"DATA\r\nSubject: evil\r\n\r\nevil\r\n.\r\n")
    if b"\0" in seq:
        c.reply("250")
        wait_for(lambda: queued(suite) == before + 1)
    else:
        c.reply("550 5.5.2")
        c.closed()
        assert queued(suite) == before


def early_talker(suite):
    """A9."""
    # Before the greeting: the bytes are there when the session looks, or the EHLO that ends the
    # group is refused for what follows it.
    c = Chat(suite.port["smtp"], early=b"EHLO x\r\nMAIL FROM:<a@b>\r\n")
    text = c.reply()
    if text.startswith("220"):
        text = c.reply()
    assert text.startswith("554 5.5.0"), text
    c.closed()
    c = hello(suite.port["smtp"])
    envelope(c)
    c.put(b"DATA\r\nSubject: x\r\n\r\nx\r\n.\r\n")
    c.reply("554 5.5.0")
    c.closed()
    c = hello(suite.port["smtp"], "HELO")
    c.put(b"MAIL FROM:<a@b>\r\nRCPT TO:<user@example.org>\r\n")
    c.reply("250")
    c.reply("554 5.5.0")
    c.closed()


def starttls_injection(suite, data):
    """B1, B2."""
    c = hello(suite.port["smtp"])
    c.put(data)
    c.reply("554 5.5.0")
    c.closed()


def starttls_byte_by_byte(suite):
    c = hello(suite.port["smtp"])
    for byte in b"STARTTLS\r\n":
        c.put(bytes([byte]))
        time.sleep(0.002)
    c.reply("220")
    c.s = TLS.wrap_socket(c.s)
    c.say("NOOP", "250")
    c.say("MAIL FROM:<a@b>", "503")  # B4: the EHLO is forgotten
    assert "STARTTLS" not in c.say("EHLO again", "250")
    c.say("QUIT", "221")


def starttls_in_parallel(suite):
    bad = []

    def one(i):
        try:
            c = hello(suite.port["smtp"])
            if i % 2:
                c.put(b"STARTTLS\r\nRSET\r\n")
                c.reply("554")
            else:
                c.starttls()
                c.say("EHLO x", "250")
                c.say("QUIT", "221")
        except Exception as e:  # noqa: BLE001
            bad.append(e)

    threads = [threading.Thread(target=one, args=(i,)) for i in range(20)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not bad, bad


def handshake_garbage(suite):
    c = hello(suite.port["smtp"])
    c.say("STARTTLS", "220")
    c.put(b"RSET\r\nMAIL FROM:<a@b>\r\n" * 20)
    data = c.line()  # a TLS alert, or nothing
    assert b"250" not in data, data
    hello(suite.port["smtp"]).say("QUIT", "221")


def cut_tls(suite):
    """B13: a cut without close_notify is no end of a message."""
    before = queued(suite)
    c = hello(suite.port["smtp"])
    c.starttls()
    c.say("EHLO x", "250")
    envelope(c)
    c.say("DATA", "354")
    c.put(b"Subject: half\r\n\r\nhalf")
    os.close(c.s.detach())
    time.sleep(0.3)
    assert queued(suite) == before


PROBES = [("spam@example.com", "relay@example.net"), ("spam", "relay@example.net"),
          ("", "relay@example.net"), ("spam@mx.example.org", "relay@example.net"),
          ("spam@[127.0.0.1]", "relay@example.net"),
          ("spam@example.org", "relay%example.net@mx.example.org"),
          ("spam@example.org", "relay%example.net@[127.0.0.1]"),
          ("spam@example.org", "relay%example.net@example.org"),
          ("spam@example.org", '"relay@example.net"'), ("spam@example.org", '"relay%example.net"'),
          ("spam@example.org", "relay@example.net@mx.example.org"),
          ("spam@example.org", '"relay@example.net"@mx.example.org'),
          ("spam@example.org", '"relay@example.net"@example.org'),
          ("spam@example.org", "relay@example.net@[127.0.0.1]"),
          ("spam@example.org", "@mx.example.org:relay@example.net"),
          ("spam@example.org", "@[127.0.0.1]:relay@example.net"),
          ("spam@example.org", "example.net!relay"),
          ("spam@example.org", "example.net!relay@mx.example.org"),
          ("spam@example.org", "example.net!relay@[127.0.0.1]"),
          ("spam@example.org", "relay%example.net"),
          ("user@example.org", "example.net!relay@example.org")]


def relay_probe(suite, sender, recipient):
    """H2."""
    c = hello(suite.port["smtp"])
    if c.say(f"MAIL FROM:<{sender}>").startswith("250"):
        c.say(f"RCPT TO:<{recipient}>", "55")
        c.say("DATA", "554")
    c.say("QUIT", "221")


def addresses(suite):
    """D1, D2, H1, G15, C13."""
    c = hello(suite.port["smtp"])
    for bad in (";sleep 9;", "$(id)", "`id`@", "@", ".", "!", "a!b!c", ".!@x.", "a..b@d",
                "\xfc@d", "a@b\\n"):
        c.put(b"MAIL FROM:<" + bad.encode("utf-8") + b">\r\n")
        c.reply("55")
    c.say("MAIL FROM:<a@b>", "250")
    for bad in ('""@d', "u+" + "a" * 1500 + "@example.org", "${run{/bin/id}}@example.org",
                '"a$(touch${IFS}/tmp/p)"@example.org'):
        c.say(f"RCPT TO:<{bad}>", "55")


def limits(suite):
    c = hello(suite.port["smtp"])
    c.say("NOOP " + "a" * 2043, "250")
    c.say("NOOP " + "a" * 2044, "500 5.5.2")
    c.say("EHLO " + "a" * 11000, "500 5.5.2")
    c.say("MAIL FROM:<a@b> SIZE=99999999999", "552 5.3.4")
    c.say("MAIL FROM:<a@b> BODY=BINARYMIME", "501")
    c.put(b"x" * 300000)  # A15
    c.reply("500")
    c.closed()
    c = hello(suite.port["smtp"])
    for _ in range(20):
        c.say("", "500")
    c.put(b"\r\n")
    c.reply("500")
    c.reply("421")
    c.closed()


def http(suite):
    """B14."""
    c = Chat(suite.port["smtp"])
    c.reply("220")
    c.put(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    c.reply("500")


def log_is_clean(suite):
    """H18: whatever was said, a line of the log is printable ASCII."""
    c = Chat(suite.port["smtp"])
    c.reply("220")
    c.put(b"EHLO x\x1b[2J\xff\r\n")
    c.reply("501")
    c.say("QUIT", "221")
    with open(suite.log, "rb") as f:
        assert re.fullmatch(rb"[\x20-\x7e\n]*", f.read())
    assert "helo=<x\\x1B[2J\\xFF>" in suite.tail(20), suite.tail(20)


def plain(*parts):
    return "AUTH PLAIN " + base64.b64encode("\0".join(parts).encode()).decode()


def submission(suite):
    c = hello(suite.port["submission"])
    c.say(plain("", "user", "secret"), "538 5.7.11")
    c.say("MAIL FROM:<user@example.org>", "530 5.7.0")
    c.starttls()
    assert "AUTH PLAIN" in c.say("EHLO x", "250")
    c.say("AUTH LOGIN", "504")  # F5
    c.say(plain("other", "user", "secret"), "535")  # F1
    c.say(plain("", "user", "secret"), "235")
    c.say("MAIL FROM:<other@example.org>", "553 5.7.1")  # F13
    c.say("MAIL FROM:<>", "553 5.7.1")
    for sender, answer in (("other@example.org", "550 5.7.1"), ("user@example.org", "250")):
        c.say("MAIL FROM:<user@example.org>", "250")
        c.say("RCPT TO:<user@example.org>", "250")
        c.say("DATA", "354")
        c.put(f"From: {sender}\r\n\r\nx\r\n".encode())
        c.say(".", answer)
    c.say("QUIT", "221")


def auth_failures(suite):
    c = hello(suite.port["submissions"], tls=True)
    for _ in range(3):
        c.say(plain("", "user", "Mistake-1"), "535 5.7.8")
    c.say(plain("", "user", "secret"), "421")
    c.closed()
    with open(suite.log) as f:
        text = f.read()
    assert re.search(r"warning: \[127\.0\.0\.1\]: SASL PLAIN authentication failed", text)
    for secret in ("Mistake-1", plain("", "user", "Mistake-1")[11:]):
        assert secret not in text, "the password is in the log"


def sendmail(suite, *args, input=b"", uid=None):
    command = [os.path.join(BIN, "sendmail"), *args]
    if uid is not None:
        command = ["setpriv", f"--reuid={uid}", "--clear-groups", *command]
    return subprocess.run(command, input=input, capture_output=True, timeout=20,
                          env=dict(os.environ, BULKHEAD_SUBMIT=suite.run + "/submit"))


def sendmail_command(suite):
    before = queued(suite)
    p = sendmail(suite, "-t", input=b"To: user\nBcc: user@example.org\nSubject: x\n\nhello\n.\nno\n")
    assert p.returncode == 0, p
    p = sendmail(suite, "nobody", input=b"x\n")
    assert p.returncode == 67, p
    wait_for(lambda: queued(suite) == before + 1)
    p = sendmail(suite, "-bs", input=b"QUIT\r\n")
    assert p.returncode == 0 and b"221 2.0.0" in p.stdout, p
    assert sendmail(suite, "-bp").returncode == 0
    p = sendmail(suite, "-C", suite.conf, "-bi")
    assert p.returncode == 0, p
    if os.geteuid() == 0:
        p = sendmail(suite, "-f", "ceo@example.com", "user", input=b"x\n", uid=65534)
        assert p.returncode == 77, p
        p = sendmail(suite, "-f", "nobody@example.org", "user", input=b"x\n", uid=65534)
        assert p.returncode == 0, p


def rcpt_code(suite, rcpt):
    with smtplib.SMTP("127.0.0.1", suite.port["smtp"], timeout=20) as c:
        c.ehlo("client.example")
        c.mail("a@client.example")
        return c.rcpt(rcpt)[0]


def known_page(suite, program):
    """How the program holds the page of known recipients: what its descriptors may do, and its mappings."""
    pid = next(r["pid"] for r in suite.status() if r["program"] == program)
    modes = []
    try:
        for fd in os.listdir(f"/proc/{pid}/fd"):
            if "memfd:known" in os.readlink(f"/proc/{pid}/fd/{fd}"):
                with open(f"/proc/{pid}/fdinfo/{fd}") as f:
                    flags = int(re.search(r"flags:\s*(\d+)", f.read())[1], 8)
                modes.append(("read", "write", "both")[flags & 3])
        with open(f"/proc/{pid}/maps") as f:
            modes += [line.split()[1] for line in f if "memfd:known" in line]
    except OSError:
        return None
    return modes


def known_recipients(suite):
    """What authd has said is on a page that smtpd can read: as long as it is true, and no longer."""
    suite.add("passing", "secret")
    for name in ("passing@example.org", "Passing+tag@EXAMPLE.org", "passing@example.org"):
        assert rcpt_code(suite, name) == 250, name
    suite.ctl("account", "remove", "passing")
    for name in ("passing@example.org", "passing+tag@example.org"):
        assert rcpt_code(suite, name) == 550, name
    with open(suite.dir + "/aliases", "w") as f:
        f.write("short: user\n")
    suite.ctl("reload")
    wait_for(lambda: rcpt_code(suite, "short@example.org") == 250)
    with open(suite.dir + "/aliases", "w") as f:
        f.write("")
    suite.ctl("reload")
    wait_for(lambda: rcpt_code(suite, "short@example.org") == 550)
    for program, access in (("smtpd", ["read"]), ("submitd", ["read"]), ("local", ["read"]), ("authd", ["both", "rw-s"])):
        wait_for(lambda: known_page(suite, program) == access)  # the reload has replaced it a moment ago
    os.kill(next(r["pid"] for r in suite.status() if r["program"] == "authd"), 9)
    wait_for(lambda: rcpt_code(suite, "user@example.org") == 250)


def deliver(suite, rcpt, n):
    with smtplib.SMTP("127.0.0.1", suite.port["smtp"], timeout=20) as c:
        for i in range(n):
            c.sendmail("a@client.example", [rcpt], f"Subject: {i}\r\n\r\nbody\r\n")


def moved_account(suite):
    """local keeps whose an address is, and whose cell that is, from message to message: until that is another's."""
    suite.add("moving", "secret")
    deliver(suite, "moving@example.org", 3)
    wait_for(lambda: len(suite.messages("moving")) == 3)
    suite.ctl("account", "remove", "moving")
    elsewhere = os.path.join(suite.dir, "mail", "elsewhere")
    suite.ctl("account", "add", "moving", "-d", elsewhere, input="secret\n")
    deliver(suite, "moving@example.org", 2)
    wait_for(lambda: os.path.isdir(elsewhere + "/new") and len(os.listdir(elsewhere + "/new")) == 2)
    assert len(suite.messages("moving")) == 3
    listener = next(r["pid"] for r in suite.status() if r["program"] == "local")
    with open(f"/proc/{listener}/task/{listener}/children") as f:
        processes = [int(p) for p in f.read().split()] + [listener]
    for p in processes:
        os.kill(p, signal.SIGSTOP)
    deliver(suite, "moving@example.org", 1)
    suite.ctl("account", "remove", "moving")
    for p in processes:
        os.kill(p, signal.SIGCONT)
    wait_for(lambda: re.search("to=<moving@example.org>.* dsn=5.1.1, status=bounced", suite.tail(100)))


def relays_for(suite, mx, address, relays):
    """A client with this address, and mail for another domain: taken and sent on, or refused."""
    before = len(mx.messages)
    with smtplib.SMTP("127.0.0.1", suite.port["smtp"], timeout=20, source_address=(address, 0)) as c:
        c.ehlo("client.example")
        assert c.mail("a@client.example")[0] == 250
        code, text = c.rcpt("far@far.example")
        assert (code == 250) == relays, (code, text)
        if relays:
            assert c.data(b"Subject: x\r\n\r\nbody\r\n")[0] == 250
            wait_for(lambda: len(mx.messages) > before)


def main():
    r = Report()
    mx = FakeMX()
    with Suite(blocks={"smtpd": ["relay-from 127.0.0.2 10.0.0.0/8"], "relay": [f"via 127.0.0.1 port {mx.port}"]}) as suite:
        r.run("relay-from: a client of the network", relays_for, suite, mx, "127.0.0.2", True)
        r.run("relay-from: another one", relays_for, suite, mx, "127.0.0.1", False)
    with Suite() as suite:
        suite.add("user", "secret")
        suite.add("other", "secret")
        for seq in SEQUENCES:
            for verb in ("EHLO", "HELO"):
                r.run(f"smuggling {verb} {seq!r}", smuggle, suite, seq, verb)
        r.run("talking out of turn", early_talker, suite)
        for data in (b"STARTTLS\r\nRSET\r\n", b"starttls\r\nX", b"StartTLS \r\nEHLO x\r\n"):
            r.run(f"STARTTLS with more behind it {data!r}", starttls_injection, suite, data)
        r.run("STARTTLS byte by byte", starttls_byte_by_byte, suite)
        r.run("STARTTLS in parallel", starttls_in_parallel, suite)
        r.run("garbage for a handshake", handshake_garbage, suite)
        r.run("TLS cut within a message", cut_tls, suite)
        for sender, recipient in PROBES:
            r.run(f"relay probe <{sender}> <{recipient}>", relay_probe, suite, sender, recipient)
        r.run("addresses that are none", addresses, suite)
        r.run("limits", limits, suite)
        r.run("known recipients", known_recipients, suite)
        r.run("an account that moves", moved_account, suite)
        r.run("an HTTP client", http, suite)
        r.run("the log stays clean", log_is_clean, suite)
        r.run("submission", submission, suite)
        r.run("three wrong passwords", auth_failures, suite)
        r.run("sendmail", sendmail_command, suite)
    r.end()


if __name__ == "__main__":
    main()
