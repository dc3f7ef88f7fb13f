#!/usr/bin/env python3
"""Conversations with pop3d-cell: the binary itself, confined, in a Maildir of its own."""
import os
import poplib
import shutil
import sys
import tempfile
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from cell_harness import Cell, main  # noqa: E402

MAIL = b"Subject: x\r\n\r\nHello\r\n.dot\r\n..\r\nend\r\n"


class Pop(poplib.POP3):
    def __init__(self, cell):
        self.sock, self.file, self._debugging, self._tls_established = cell.sock, cell.file, 0, False
        self.host = ""
        self.welcome = self._getresp()


class Pop3(unittest.TestCase):
    def setUp(self):
        self.dir = tempfile.mkdtemp(prefix="bh-pop3-")
        self.cells = []

    def tearDown(self):
        for c in self.cells:
            c.close()
        shutil.rmtree(self.dir, ignore_errors=True)

    def plant(self, path, data=MAIL):
        full = os.path.join(self.dir, path)
        os.makedirs(os.path.dirname(full), exist_ok=True)
        with open(full, "wb") as f:
            f.write(data)

    def cell(self, **how):
        c = Cell("pop3d-cell", maildir=self.dir, tag="", **how)
        self.cells.append(c)
        return c

    def end(self, c):
        self.cells.remove(c)
        self.assertEqual(c.close(), 0)

    def test_whole_session(self):
        for i in (1, 2, 3):
            self.plant("new/%d.M%d.h" % (i, i))
        self.plant("cur/4.lf.h:2,S", MAIL.replace(b"\r\n", b"\n"))
        c = self.cell()
        p = Pop(c)
        self.assertEqual(p.welcome, b"+OK Logged in, 4 messages, %d octets." % (4 * len(MAIL)))
        self.assertEqual(p.stat(), (4, 4 * len(MAIL)))
        self.assertEqual(p.list()[1][0], b"1 %d" % len(MAIL))
        self.assertEqual(p.list(2), b"+OK 2 %d" % len(MAIL))
        for i in (1, 4):
            self.assertEqual(b"\r\n".join(p.retr(i)[1]) + b"\r\n", MAIL)
        self.assertEqual(p.top(1, 0)[1], [b"Subject: x", b""])
        self.assertEqual(p.top(1, 2)[1], [b"Subject: x", b"", b"Hello", b".dot"])
        self.assertEqual(p.uidl()[1], [b"1 1.M1.h", b"2 2.M2.h", b"3 3.M3.h", b"4 4.lf.h"])
        self.assertEqual(set(p.capa()), {"TOP", "UIDL", "RESP-CODES", "PIPELINING"})
        p.dele(2)
        with self.assertRaises(poplib.error_proto):
            p.retr(2)
        self.assertEqual(p.stat()[0], 3)
        p.rset()
        p.dele(1)
        self.assertEqual(p._shortcmd("QUIT"), b"+OK Logging out.")
        self.end(c)
        self.assertIn("pop3(test@example.org): Disconnected: Logged out top=2/", c.said)
        self.assertIn("del=1/4", c.said)
        c = self.cell()
        p = Pop(c)
        self.assertEqual(p.uidl()[1], [b"1 2.M2.h", b"2 3.M3.h", b"3 4.lf.h"])

    def test_what_is_read_is_seen(self):
        """At the end, whatever that is; and many are removed at once."""
        for i in range(1, 2101):
            self.plant("cur/%d.m%d.h:2," % (i, i), b"x: y\r\n\r\n")
        for end in ("quit", "close"):
            c = self.cell()
            p = Pop(c)
            p.retr(1 if end == "quit" else 2)
            p.dele(3)
            p.retr(4)
            if end == "quit":
                p.quit()
            self.end(c)
        seen = sorted(x.split(".")[1] for x in os.listdir(self.dir + "/cur") if x.endswith(":2,S"))
        self.assertEqual(seen, ["m1", "m2", "m4", "m5"])
        c = self.cell()
        p = Pop(c)
        n = p.stat()[0]
        self.assertEqual(n, 2099)
        for i in range(1, n + 1):
            p.dele(i)
        p.quit()
        self.end(c)
        self.assertEqual(os.listdir(self.dir + "/cur"), [])

    def test_no_quit_deletes_nothing(self):
        self.plant("new/1.a.h")
        c = self.cell()
        p = Pop(c)
        p.dele(1)
        self.end(c)
        self.assertEqual(Pop(self.cell()).stat()[0], 1)

    def test_second_session_is_refused(self):
        self.plant("new/1.a.h")
        a = self.cell()
        Pop(a)
        b = self.cell()
        self.assertTrue(b.file.readline().startswith(b"-ERR [IN-USE]"))
        self.end(b)
        self.end(a)
        self.assertEqual(Pop(self.cell()).stat()[0], 1)

    def test_bad_input(self):
        self.plant("new/1.a.h", b"no end")
        c = self.cell(unread=b"NOOP\r\nST")
        c.file.readline()
        self.assertEqual(c.file.readline(), b"+OK\r\n")
        c.sock.sendall(b"AT\r\n")
        self.assertEqual(c.file.readline(), b"+OK 1 6\r\n")
        for line in (b"RETR", b"RETR 0", b"RETR 2", b"RETR -1", b"RETR 99999999999999999999", b"TOP 1",
                     b"TOP 1 -1", b"TOP x 1", b"DELE 1 1", b"LIST x", b"UIDL 2", b"STAT 1", b"\0", b"",
                     b"x" * 255, b"x" * 256, b"x" * 5000):
            c.sock.sendall(line + b"\r\n")
            self.assertTrue(c.file.readline().startswith(b"-ERR"), line)
            c.sock.sendall(b"NOOP\r\n")
            self.assertEqual(c.file.readline(), b"+OK\r\n", line)
        c.sock.sendall(b"RETR 1\r\n")
        self.assertEqual([c.file.readline() for _ in range(3)], [b"+OK 6 octets\r\n", b"no end\r\n", b".\r\n"])
        for word in (b"STAT", b"LIST", b"RETR 1", b"TOP 1 0", b"UIDL", b"RSET", b"CAPA"):
            for k in range(len(word)):
                c.sock.sendall(word[:k] + b"\r\nNOOP\r\n")
                while c.file.readline() not in (b".\r\n",) and word[:k] in (b"LIST", b"UIDL", b"CAPA"):
                    pass
                self.assertEqual(c.file.readline(), b"+OK\r\n")

    def test_line_ceiling(self):
        c = self.cell()
        c.file.readline()
        for n, want in ((255, b"+OK\r\n"), (256, b"-ERR Malformed command.\r\n"), (65536, b"-ERR Malformed command.\r\n")):
            c.sock.sendall(b"NOOP".ljust(n) + b"\r\nNOOP\r\n")
            self.assertEqual(c.file.readline(), want, n)
            self.assertEqual(c.file.readline(), b"+OK\r\n", n)

    def test_twenty_bad_commands(self):
        c = self.cell()
        c.file.readline()
        for _ in range(20):
            c.sock.sendall(b"X\r\n")
            c.file.readline()
        self.assertIn(b"Too many", c.file.readline())
        self.assertEqual(c.file.readline(), b"")

    def test_large_message_with_dots_everywhere(self):
        big = b"A: b\r\n\r\n" + b".\r\n..\r\n.x\r\n" * 200000
        self.plant("new/1.a.h", big)
        p = Pop(self.cell())
        self.assertEqual(b"\r\n".join(p.retr(1)[1]) + b"\r\n", big)

    def test_a_client_that_goes_in_a_pipeline(self):
        """RFC 1939 6: nothing is removed of which the client cannot have had what it asked for."""
        for before in (b"RETR 1\r\n", b"TOP 1 9999999\r\n"):
            self.plant("cur/1.a.h:2,", b"A: b\r\n" + b"\r\n" * 3000000)
            c = self.cell()
            c.file.readline()
            c.sock.settimeout(20)
            c.sock.sendall(before + b"DELE 1\r\nQUIT\r\n")
            c.file.read(1)
            self.end(c)
            self.assertEqual(len(os.listdir(os.path.join(self.dir, "cur"))), 1, c.said)
            shutil.rmtree(os.path.join(self.dir, "cur"))

    def test_a_message_that_cannot_be_read(self):
        """One of them is not all of them."""
        for path in ("cur", "cur/1.a.h:2,", "cur/2.a.h:2,"):
            if path != "cur":
                self.plant(path)
            else:
                os.makedirs(os.path.join(self.dir, path))
            os.chown(os.path.join(self.dir, path), 65534, 65534)
        os.chown(self.dir, 65534, 65534)
        os.chmod(os.path.join(self.dir, "cur/1.a.h:2,"), 0)
        p = Pop(self.cell(uid=65534))
        self.assertEqual(p.stat(), (2, len(MAIL)))
        with self.assertRaises(poplib.error_proto):
            p.retr(1)
        self.assertEqual(b"\r\n".join(p.retr(2)[1]) + b"\r\n", MAIL)

    def test_uidl_of_odd_names(self):
        self.plant("new/1." + "x" * 80)
        self.plant("new/2.\u00e4")
        rows = Pop(self.cell()).uidl()[1]
        for row in rows:
            uid = row.split(b" ")[1]
            self.assertTrue(1 <= len(uid) <= 70 and all(0x21 <= b <= 0x7e for b in uid), row)


if __name__ == "__main__":
    main("pop3d-cell")
