"""qmgr killed in the middle of a message: what is done is not done again."""
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from harness import BIN, Report, Suite, free_ports, wait_for  # noqa: E402


class Sink:
    """An SMTP server that takes everything; a silent one takes connections and says nothing."""

    def __init__(self, address, port, silent=False):
        self.got, self.silent, self.held = 0, silent, []
        self.s = socket.socket()
        self.s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.s.bind((address, port))
        self.s.listen(20)
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        while True:
            c, _ = self.s.accept()
            self.held.append(c)
            if not self.silent:
                threading.Thread(target=self.talk, args=(c,), daemon=True).start()

    def talk(self, c):
        f = c.makefile("rwb")

        def say(text):
            f.write(text.encode() + b"\r\n")
            f.flush()

        say("220 sink")
        while line := f.readline():
            verb = line[:4].upper()
            if verb == b"DATA":
                say("354 go")
                while f.readline() not in (b".\r\n", b""):
                    pass
                self.got += 1
            say("221 bye" if verb == b"QUIT" else "250 ok")
            if verb == b"QUIT":
                break
        c.close()


def pid_of(s, role):
    return next(r["pid"] for r in s.status() if r["program"] == role)


def no_second_delivery(s, fast, how):
    before = fast.got
    subprocess.run([os.path.join(BIN, "sendmail"), "-C", s.conf, "-f", "root@example.org",
                    "a@[127.0.0.1]", "b@[127.0.0.2]"], input=b"Subject: x\n\nx\n", check=True)
    wait_for(lambda: fast.got == before + 1)
    time.sleep(0.3)
    old = pid_of(s, "qmgr")
    os.kill(old, how)
    wait_for(lambda: pid_of(s, "qmgr") not in (0, old))
    time.sleep(2.5)
    if fast.got != before + 1:
        raise AssertionError(f"delivered {fast.got - before} times\n{s.tail(20)}")


def names(s, ident):
    return [os.path.join(d, n) for d, _, files in os.walk(f"{s.dir}/queue") for n in files
            if n.startswith(ident + ".")]


def two_at_once(s):
    """master is killed, and starts anew while the qmgr of before has not ended: a message that has two names for a
    moment keeps one."""
    subprocess.run([os.path.join(BIN, "sendmail"), "-C", s.conf, "-f", "root@example.org", "a@[127.0.0.3]"],
                   input=b"Subject: y\n\ny\n", check=True)

    def late():
        return [r["id"] for r in json.loads(s.ctl("--json", "queue", "list")) if "127.0.0.3" in r["reason"]]

    wait_for(late)
    ident = late()[0]
    old = pid_of(s, "qmgr")
    slow = subprocess.Popen(["strace", "-qq", "-o", "/dev/null", "-p", str(old), "-e", "trace=fsync",
                             "-e", "inject=fsync:delay_enter=2000000"])  # a disk that takes 2 s to sync
    time.sleep(0.3)
    before = names(s, ident)
    os.kill(pid_of(s, "master"), signal.SIGKILL)
    time.sleep(0.5)
    wait_for(lambda: any(r["program"] == "qmgr" and r["pid"] not in (0, old) for r in s.status()))
    slow.wait(20)
    wait_for(lambda: not os.path.exists(f"/proc/{old}"))
    wait_for(lambda: (rows := s.status()) and all(r["state"] == "ready" for r in rows))
    assert len(before) == 2 and len(names(s, ident)) == 1, (before, names(s, ident), s.tail(30))


def main():
    r = Report()
    port = free_ports(1)[0]
    fast = Sink("127.0.0.1", port)
    Sink("127.0.0.2", port, silent=True)
    with Suite(relay_port=port) as s:
        r.run("killed: the recipient that was done gets no second message", no_second_delivery, s,
              fast, signal.SIGKILL)
        r.run("stopped: nor does it", no_second_delivery, s, fast, signal.SIGTERM)
        r.run("master killed: two of them are never at the queue", two_at_once, s)
    r.end()


if __name__ == "__main__":
    main()
