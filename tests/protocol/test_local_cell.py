#!/usr/bin/env python3
"""local-cell: the binary itself, confined, in a Maildir of its own; the test plays local."""
import array
import os
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from queuefile import check_of  # noqa: E402
from cell_harness import BIN, KIND_BOOL, KIND_STR, KIND_U64, frame, main, text  # noqa: E402

FAILED, CELL_DELIVER, CELL_DELIVERED = 2, 61, 62
KIND_U32 = 1
ERR_DAMAGED = 6
HEAD = b"Return-Path: <a@far.example>\r\nDelivered-To: bob@example.org\r\n"


def asked(name, size, check, again=False):
    fields = text(name) + struct.pack("<BI", KIND_U32, 0)
    for number in (1700000000 * 10**6, 0, size, check):
        fields += struct.pack("<BQ", KIND_U64, number)
    return frame(CELL_DELIVER, fields + struct.pack("<BB", KIND_BOOL, again) + text(HEAD))


class LocalCell(unittest.TestCase):
    def setUp(self):
        self.dir = tempfile.mkdtemp(prefix="bh-local-")
        self.ours, self.theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.ours.settimeout(30)

    def tearDown(self):
        self.ours.close()
        if self.theirs:
            self.theirs.close()
        shutil.rmtree(self.dir, ignore_errors=True)

    def ask(self, name, body, size=None, again=False, check=None):
        with tempfile.TemporaryFile() as f:
            f.write(body)
            f.flush()
            rights = array.array("i", [f.fileno()])
            self.ours.sendmsg([asked(name, len(body) if size is None else size,
                                     check_of(body) if check is None else check, again)],
                              [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])

    def begin(self, *before):
        """What was asked lies there when it begins."""
        keep = self.theirs.fileno()

        def on_3():
            os.dup2(keep, 3)
            os.set_inheritable(3, True)
        self.cell = subprocess.Popen([*before, os.path.join(BIN, "local-cell"), "bob@example.org"], cwd=self.dir, close_fds=False,
                                     preexec_fn=on_3, stderr=subprocess.DEVNULL, env={"ASAN_OPTIONS": "detect_leaks=0"})
        self.theirs.close()
        self.theirs = None

    def answer(self):
        """The file's name, or None when it failed."""
        got = self.ours.recv(65536)
        kind, = struct.unpack_from("<H", got, 6)
        self.assertIn(kind, (FAILED, CELL_DELIVERED))
        if kind == FAILED:
            field, self.class_ = struct.unpack_from("<BI", got, 12)
            return None
        field, n = struct.unpack_from("<BI", got, 12)
        self.assertEqual(field, KIND_STR)
        return got[17:17 + n].decode()

    def end(self):
        self.ours.close()
        self.assertEqual(self.cell.wait(30), 0)

    def files(self, sub):
        return sorted(os.listdir(f"{self.dir}/{sub}"))

    def test_several_at_once_in_order(self):
        for i in range(12):
            self.ask(f"q{i}", b"Subject: %d\r\n\r\nx\r\n" % i)
        self.begin()
        names = [self.answer() for _ in range(12)]
        for i, name in enumerate(names):
            with open(f"{self.dir}/new/{name}", "rb") as f:
                self.assertEqual(f.read(), HEAD + b"Subject: %d\r\n\r\nx\r\n" % i)
        self.assertEqual(self.files("new"), sorted(names))
        self.assertEqual(self.files("tmp"), [])
        self.end()

    def test_one_that_fails_between_others(self):
        self.ask("q1", b"one\r\n")
        self.ask("q2", b"two\r\n", size=500)
        self.ask("q3", b"three\r\n")
        self.begin()
        one, two, three = self.answer(), self.answer(), self.answer()
        self.assertIsNone(two)
        self.assertEqual(self.files("new"), sorted([one, three]))
        self.assertEqual(self.files("tmp"), [])
        self.end()

    def test_one_that_does_not_fit_its_check(self):
        """A flipped bit, at each end of a piece that is read at once, and in a message of none."""
        for n, body in enumerate((b"x" * 131072, b"x" * 40000, b"one\r\n", b"")):
            at = {0: 131071, 1: 0, 2: 3}.get(n)
            bad = body[:at] + bytes([body[at] ^ 1]) + body[at + 1:] if body else b""
            self.ask(f"q{n}", bad, check=check_of(body) if body else 1)
            self.ask(f"w{n}", body)
        self.begin()
        for n in range(4):
            self.assertIsNone(self.answer())
            self.assertEqual(self.class_, ERR_DAMAGED)
            self.assertTrue(self.answer())
        self.assertEqual(len(self.files("new")), 4)
        self.assertEqual(self.files("tmp"), [])
        self.end()

    def test_the_same_twice_is_one(self):
        self.ask("q1", b"one\r\n")
        self.ask("q1", b"one\r\n", again=True)
        self.ask("q1", b"one\r\n")
        self.begin()
        names = [self.answer() for _ in range(3)]
        self.assertEqual(self.files("new") * 3, names)
        self.end()

    def test_what_another_try_has_left(self):
        """A file in tmp/ under the name that it would have."""
        self.ask("q1", b"one\r\n")
        self.begin()
        base = self.answer().split(",")[0]
        os.unlink(f"{self.dir}/new/{self.files('new')[0]}")
        with open(f"{self.dir}/tmp/{base}", "w") as f:
            f.write("half")
        self.ask("q1", b"one\r\n")
        self.assertEqual([self.answer()], self.files("new"))
        self.assertEqual(self.files("tmp"), [base])
        self.end()

    def test_names_that_could_not_be_synced(self):
        """Two files, then the directory: neither is called delivered, and both are taken away; the next is. The call is made
        another that a confined process may make."""
        for sub in ("tmp", "new", "cur"):
            os.mkdir(f"{self.dir}/{sub}")
        self.ask("q1", b"one\r\n")
        self.ask("q2", b"two\r\n")
        self.begin("strace", "-o", "/dev/null", "-e", "trace=fsync", "-e", "inject=fsync:error=EIO:syscall=getpid:when=3")
        self.assertEqual([self.answer(), self.answer()], [None, None])
        self.assertEqual(self.files("new") + self.files("tmp"), [])
        self.ask("q1", b"one\r\n")
        self.assertEqual([self.answer()], self.files("new"))
        self.end()

    def test_a_broken_rule_ends_it(self):
        self.ask("q1", b"one\r\n")
        self.ours.send(b"junk")
        self.begin()
        self.assertEqual([self.answer()], self.files("new"))
        self.assertEqual(self.ours.recv(10), b"")
        self.end()


main("local-cell")
