"""qmgr and relay at the limit of sessions."""
import os
import socket
import subprocess
import sys
import threading
import time

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from harness import BIN, Report, Suite, free_ports, wait_for  # noqa: E402

HOSTS = 120


class SlowToPart:
    """An SMTP server at all of 127.0.0.0/8 that takes everything at once, and does not answer QUIT."""

    def __init__(self, port):
        self.got = 0
        self.s = socket.socket()
        self.s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.s.bind(("0.0.0.0", port))
        self.s.listen(100)
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        while True:
            c, _ = self.s.accept()
            threading.Thread(target=self.talk, args=(c,), daemon=True).start()

    def talk(self, c):
        f = c.makefile("rwb")

        def say(text):
            f.write(text + b"\r\n")
            f.flush()

        try:
            say(b"220 sink")
            while (line := f.readline()) and line[:4].upper() != b"QUIT":
                if line[:4].upper() == b"DATA":
                    say(b"354 go")
                    while f.readline() not in (b".\r\n", b""):
                        pass
                    self.got += 1
                say(b"250 ok")
            time.sleep(10)
        except OSError:
            pass


def one_to_each(s, hosts):
    """Each session that is saying goodbye has a place of relay for 2 s: the others wait for one, and none of them
    is taken for one that kills its process."""
    to = [f"a@[127.0.1.{n}]" for n in range(1, HOSTS + 1)]
    subprocess.run([os.path.join(BIN, "sendmail"), "-C", s.conf, "-f", "root@example.org", *to],
                   input=b"Subject: x\n\nx\n", check=True)
    wait_for(lambda: hosts.got == HOSTS, 30)
    assert "process died" not in s.tail(500), s.tail(50)


def main():
    r = Report()
    port = free_ports(1)[0]
    hosts = SlowToPart(port)
    with Suite(relay_port=port, queue=" relay-sessions 5") as s:
        r.run("many hosts that are slow to part: no message is put off", one_to_each, s, hosts)
    r.end()


if __name__ == "__main__":
    main()
