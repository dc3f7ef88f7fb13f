"""Starts a cell by itself, as the launcher and a front would: the channel on descriptor 3, the Maildir as
working directory, and one client handed over through the channel."""
import array
import os
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import unittest

MAGIC, VERSION = 0x48424B4C, 1
KIND_U64, KIND_STR, KIND_BOOL = 2, 3, 4
CELL_CLIENT = 60
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BIN = os.path.abspath(os.environ.get("BULKHEAD_BIN", os.path.join(ROOT, "build", "bin")))


def text(s):
    raw = s if isinstance(s, bytes) else s.encode()
    return struct.pack("<BI", KIND_STR, len(raw)) + raw


def frame(kind, fields, fds=1):
    return struct.pack("<IBBHI", MAGIC, VERSION, fds, kind, len(fields)) + fields


class Cell:
    """A running cell and the client's end of its connection."""

    def __init__(self, program, maildir=None, tag="a0", unread=b"", user="test@example.org", uid=None):
        self.own = maildir is None
        self.maildir = maildir or tempfile.mkdtemp(prefix="bh-cell-")
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.sock, client = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        keep = theirs.fileno()

        def on_3():
            os.dup2(keep, 3)
            os.set_inheritable(3, True)

        self.log = tempfile.TemporaryFile()
        self.process = subprocess.Popen(
            [os.path.join(BIN, program), user], cwd=self.maildir, close_fds=False,
            preexec_fn=on_3, stderr=self.log, user=uid,
            # The leak checker wants /proc, which a confined process has not.
            env={"ASAN_OPTIONS": "detect_leaks=0"})
        theirs.close()
        fields = text(user) + text("192.0.2.1") + struct.pack("<BB", KIND_BOOL, 0)
        fields += text(tag) + text(unread) + struct.pack("<BQ", KIND_U64, 256 << 20)
        ours.settimeout(20)
        ours.recv(65536)  # CELL_READY: it is confined
        rights = array.array("i", [client.fileno()])
        ours.sendmsg([frame(CELL_CLIENT, fields)], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
        client.close()
        ours.close()
        self.sock.settimeout(20)
        self.file = self.sock.makefile("rb")

    def close(self):
        self.file.close()
        self.sock.close()
        try:
            status = self.process.wait(20)
        finally:
            self.process.kill()
        self.log.seek(0)
        self.said = self.log.read().decode()
        self.log.close()
        if self.own:
            shutil.rmtree(self.maildir, ignore_errors=True)
        return status


def main(program):
    """Run the tests of the calling script; ends with the line "N passed, N failed"."""
    if not os.path.exists(os.path.join(BIN, program)):
        sys.exit(program + " is not built")
    result = unittest.TextTestRunner(verbosity=1).run(
        unittest.defaultTestLoader.loadTestsFromModule(sys.modules["__main__"]))
    bad = len(result.failures) + len(result.errors)
    print("%d passed, %d failed" % (result.testsRun - bad, bad))
    sys.exit(bad > 0)
