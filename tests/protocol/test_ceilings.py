#!/usr/bin/env python3
"""Ceilings of whole programs: cells of one user, and files that qmgr keeps open for what is in delivery. Ends with
"N passed, N failed"."""
import array
import json
import os
import select
import shutil
import signal
import smtplib
import socket
import struct
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from harness import BIN, Report, Suite, wait_for  # noqa: E402

MAGIC, VERSION = 0x48424B4C, 1
DOOR_OPEN, CELL_START, CELL_READY = 1, 56, 63
CELL_POP3D = 1
CELLS_PER_USER_MAX, FILES_KEPT = 200, 500
ROOT = os.geteuid() == 0  # others have but one user, and may not see what a program has open
USERS = 64330, 64331  # ordinary users without names


def send(s, kind, fields, fd):
    s.sendmsg([struct.pack("<IBBHI", MAGIC, VERSION, 1, kind, len(fields)) + fields],
              [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]))])


class Launcher:
    """The program as master starts it, with a door for authd, who is played here."""

    def __init__(self):
        self.mail = tempfile.mkdtemp(prefix="bulkhead-test-")
        os.chmod(self.mail, 0o755)
        self.log = tempfile.TemporaryFile()
        self.control, control = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        door, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        mail = os.open(self.mail, os.O_RDONLY | os.O_DIRECTORY)
        self.pid = os.fork()
        if self.pid == 0:
            given = [os.dup(fd) for fd in (control.fileno(), theirs.fileno(), mail)]
            high = [os.dup2(fd, 100 + i) for i, fd in enumerate(given)]
            for i, fd in enumerate(high):
                os.dup2(fd, 3 + i)
                os.set_inheritable(3 + i, True)
            os.dup2(self.log.fileno(), 2)
            program = os.path.join(BIN, "launcher")
            os.execve(program, [program], {"LISTEN_FDS": "3", "LISTEN_FDNAMES": "control:from.authd:dir.mail",
                                           "LISTEN_PID": str(os.getpid())})
        os.close(mail)
        control.close()
        theirs.close()
        self.authd, channel = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        send(door, DOOR_OPEN, b"", channel.fileno())
        channel.close()
        self.door = door

    def ask(self, uid):
        """A cell of this user: its channel."""
        request = struct.pack("<III128s256s48s", CELL_POP3D, uid, uid, b"test", b"example.org/u%d" % uid, b"0 0")
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        send(self.authd, CELL_START, b"\x03" + struct.pack("<I", len(request)) + request, theirs.fileno())
        theirs.close()
        ours.settimeout(60)
        return ours

    def stop(self):
        for s in (self.authd, self.door, self.control):
            s.close()
        os.kill(self.pid, signal.SIGTERM)
        os.waitpid(self.pid, 0)
        self.log.close()
        shutil.rmtree(self.mail, ignore_errors=True)


def stands(channel):
    """Whether a cell is there, and says so; else nobody holds the channel's other end."""
    got = channel.recv(65536)
    assert not got or struct.unpack("<IBBHI", got[:12])[3] == CELL_READY, got
    return bool(got)


def cells_of_one_user():
    """The last one stands, the next is refused, another user's is not, and in the place of one that has gone there is
    room."""
    launcher = Launcher()
    try:
        cells = [launcher.ask(USERS[0]) for _ in range(CELLS_PER_USER_MAX)]
        assert all(stands(c) for c in cells)
        assert not stands(launcher.ask(USERS[0]))
        assert stands(launcher.ask(USERS[1]))
        assert select.select(cells, [], [], 0)[0] == []  # none has gone
        cells.pop().close()
        wait_for(lambda: stands(launcher.ask(USERS[0])))
    finally:
        launcher.stop()


def files_kept(suite):
    """More messages than files are kept for, while nobody delivers: all are taken, the file of the last one within is
    open, that of the next one is not; then all are delivered."""
    local, = [r["pid"] for r in suite.status() if r["program"] == "local"]
    qmgr, = [r["pid"] for r in suite.status() if r["program"] == "qmgr"]

    def opened():
        ids = set()
        for fd in os.listdir(f"/proc/{qmgr}/fd"):
            try:
                path = os.readlink(f"/proc/{qmgr}/fd/{fd}")
            except OSError:
                continue
            if "/queue/" in path and "." in os.path.basename(path):
                ids.add(os.path.basename(path).split(".")[0])
        return ids

    count = FILES_KEPT + 20
    os.kill(local, signal.SIGSTOP)
    try:
        for first in range(0, count, 52):
            with smtplib.SMTP("127.0.0.1", suite.port["smtp"], timeout=60) as c:
                for i in range(first, min(first + 52, count)):
                    c.sendmail("s@client.example", ["alice@example.org"], f"Subject: kept-{i}.\r\n\r\nx\r\n")
        ids = sorted(r["id"] for r in json.loads(suite.ctl("--json", "queue", "list")))
        assert len(ids) == count, len(ids)
        if ROOT:
            wait_for(lambda: opened() <= set(ids[:FILES_KEPT]))
            handed_over = FILES_KEPT - len(opened())  # to lanes that local has not opened yet
            assert ids[FILES_KEPT - 1] in opened() and handed_over < 100, handed_over
    finally:
        os.kill(local, signal.SIGCONT)
    wait_for(lambda: len(suite.messages("alice")) >= count, 60, 0.2)
    subjects = sorted(m.split(b"kept-")[1].split(b".")[0] for m in suite.messages("alice"))
    assert subjects == sorted(b"%d" % i for i in range(count)), "not each of them once"
    if ROOT:
        wait_for(lambda: not opened())


def main():
    r = Report()
    if ROOT:
        r.run("cells of one user", cells_of_one_user)
    with Suite() as suite:
        suite.add("alice", "secret")
        r.run("files kept for what is in delivery", files_kept, suite)
        if r.failed:
            print(suite.tail(40))
    r.end()


if __name__ == "__main__":
    main()
