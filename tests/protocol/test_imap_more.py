#!/usr/bin/env python3
"""QUOTA, OBJECTID, PREVIEW, BINARY, MULTIAPPEND, APPENDLIMIT and COMPRESS=DEFLATE with imapd-cell."""
import base64
import hashlib
import os
import re
import sys
import unittest
import zlib

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from cell_harness import main  # noqa: E402
import test_imap_cell  # noqa: E402


class Base(test_imap_cell.Base):
    def ask(self, c, line):
        """The untagged lines of a command that works."""
        got = self.send(c, b"q " + line)
        self.assertIn(b"q OK", got[-1], line)
        return got[:-1]

    def no(self, c, line, what=b""):
        self.assertIn(b"q NO " + what, self.send(c, b"q " + line)[-1])

    def selected(self):
        c = self.raw()
        self.ask(c, b"SELECT INBOX")
        return c


class Quota(Base):
    def test_none(self):
        c = self.raw()
        self.assertEqual(self.ask(c, b"GETQUOTAROOT INBOX"), [b"* QUOTAROOT INBOX\r\n"])
        self.no(c, b'GETQUOTA ""', b"[NONEXISTENT]")
        self.no(c, b"GETQUOTAROOT Nowhere", b"[NONEXISTENT]")
        self.assertIn(b"q BAD", self.send(c, b"q GETQUOTA")[-1])

    def test_file_without_limits(self):
        for limits in b"", b"0S,0C\n100 1\n":
            self.plant("maildirsize", limits)
            c = self.raw()
            self.assertEqual(self.ask(c, b"GETQUOTAROOT INBOX"), [b"* QUOTAROOT INBOX\r\n"])
            self.no(c, b'GETQUOTA ""', b"[NONEXISTENT]")

    def test_limits(self):
        self.plant("maildirsize", b"10240S,7C\n2000 2\n-500 -1\n")
        c = self.raw()
        want = b'* QUOTA "" (STORAGE 2 10 MESSAGE 1 7)\r\n'
        self.assertEqual(self.ask(c, b'GETQUOTA ""'), [want])
        self.assertEqual(self.ask(c, b"GETQUOTAROOT inbox"), [b'* QUOTAROOT INBOX ""\r\n', want])
        self.no(c, b"GETQUOTA other", b"[NONEXISTENT]")

    def test_deleted_storage(self):
        self.plant("cur/1.a.h:2,T", b"x: y\r\n\r\n1234\r\n")
        self.plant("cur/2.a.h:2,", b"x: y\r\n\r\n1234\r\n")
        self.assertEqual(self.ask(self.raw(), b"STATUS INBOX (DELETED DELETED-STORAGE)"),
                         [b"* STATUS INBOX (DELETED 1 DELETED-STORAGE 14)\r\n"])

    def test_several_at_once_over_the_limit(self):
        self.plant("maildirsize", b"0S,2C\n")
        c = self.selected()
        three = b"".join(b" {6+}\r\na: b\r\n" for _ in range(3))
        self.no(c, b"APPEND INBOX" + three, b"[OVERQUOTA]")
        self.assertEqual(self.ask(c, b"STATUS INBOX (MESSAGES)"), [b"* STATUS INBOX (MESSAGES 0)\r\n"])
        self.ask(c, b"APPEND INBOX {6+}\r\na: b\r\n")


    def test_a_folder_that_is_deleted(self):
        self.plant("maildirsize", b"10240S,7C\n0 0\n")
        c = self.selected()
        self.ask(c, b"CREATE x")
        for folder in (b"INBOX", b"x"):
            self.ask(c, b"APPEND " + folder + b" {6+}\r\na: b\r\n")
        self.assertEqual(self.ask(c, b'GETQUOTA ""')[0], b'* QUOTA "" (STORAGE 1 10 MESSAGE 2 7)\r\n')
        self.ask(c, b"DELETE x")
        self.assertEqual(self.ask(c, b'GETQUOTA ""')[0], b'* QUOTA "" (STORAGE 1 10 MESSAGE 1 7)\r\n')


class Preview(Base):
    def test_texts(self):
        cases = (
            (b"Subject: x\r\n\r\nHello,\r\n  how  are\tyou?\r\n", b'"Hello, how are you?"'),
            (b"Content-Type: text/html\r\n\r\n<html><head><title>t</title></head><style>p{x}</style>"
             b"<!-- <p>no --><p>Hi &amp; <b>you</b>&nbsp;!</p>\r\n", b'"Hi & you !"'),
            (b"Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: base64\r\n\r\n"
             + base64.b64encode("grüße".encode()) + b"\r\n", "{7}\r\ngrüße".encode()),
            (b"Content-Type: image/png\r\n\r\nabc\r\n", b'""'),
            (b"Subject: only\r\n\r\n", b'""'),
            (b"Content-Type: text/plain; charset=koi8-r\r\n\r\n\xf0\xf2\xe9 a\r\n", b'"??? a"'),
            (b"Subject: x\r\n\r\n" + b"word " * 4000 + b"\r\n", b'"' + b"word " * 39 + b'word"'),
        )
        for i, (text, _) in enumerate(cases):
            self.plant("cur/%d.p%d.h:2," % (1000 + i, i), text)
        c = self.selected()
        for i, (_, want) in enumerate(cases, 1):
            self.assertEqual(b"".join(self.ask(c, b"FETCH %d (PREVIEW (LAZY))" % i)), b"* %d FETCH (PREVIEW NIL)\r\n" % i)
            for _ in range(2):
                got = b"".join(self.ask(c, b"FETCH %d PREVIEW" % i))
                self.assertEqual(got, b"* %d FETCH (PREVIEW %s)\r\n" % (i, want))
            got = b"".join(self.ask(c, b"FETCH %d (PREVIEW (LAZY) FLAGS)" % i))
            self.assertEqual(got, b"* %d FETCH (PREVIEW %s FLAGS ())\r\n" % (i, want))
        self.assertIn(b"q BAD", self.send(c, b"q FETCH 1 (PREVIEW (EAGER))")[-1])


class Binary(Base):
    MAIL = (b"MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n"
            b"Content-Transfer-Encoding: quoted-printable\r\n\r\na=3Db=\r\nc\r\n--b\r\n"
            b"Content-Type: application/x\r\nContent-Transfer-Encoding: base64\r\n\r\nAAEC/w==\r\n--b\r\n"
            b"Content-Type: application/x\r\nContent-Transfer-Encoding: x-rot13\r\n\r\nnop\r\n--b--\r\n")

    def test_fetch(self):
        self.plant("cur/1.a.h:2,", self.MAIL)
        c = self.selected()
        self.assertEqual(b"".join(self.ask(c, b"FETCH 1 BINARY.PEEK[1]")), b"* 1 FETCH (BINARY[1] {4}\r\na=bc)\r\n")
        self.assertEqual(b"".join(self.ask(c, b"FETCH 1 BINARY.SIZE[2]")), b"* 1 FETCH (BINARY.SIZE[2] 4)\r\n")
        self.assertEqual(b"".join(self.ask(c, b"FETCH 1 BINARY.PEEK[2]<1.2>")),
                         b"* 1 FETCH (BINARY[2]<1> {2}\r\n\x01\x02)\r\n")
        self.assertEqual(b"".join(self.ask(c, b"FETCH 1 (BINARY.PEEK[9] BINARY.SIZE[9])")),
                         b"* 1 FETCH (BINARY[9] NIL BINARY.SIZE[9] 0)\r\n")
        self.assertEqual(b"".join(self.ask(c, b"FETCH 1 BINARY.SIZE[]")), b"* 1 FETCH (BINARY.SIZE[] %d)\r\n" % len(self.MAIL))
        self.no(c, b"FETCH 1 BINARY.PEEK[3]", b"[UNKNOWN-CTE]")
        self.no(c, b"FETCH 1 BINARY.SIZE[3]", b"[UNKNOWN-CTE]")
        self.assertEqual(b"".join(self.ask(c, b"FETCH 1 FLAGS")), b"* 1 FETCH (FLAGS ())\r\n")
        self.assertEqual(b"".join(self.ask(c, b"FETCH 1 BINARY[2]")),
                         b"* 1 FETCH (BINARY[2] ~{4}\r\n\x00\x01\x02\xff FLAGS (\\Seen))\r\n")
        for bad in (b"BINARY", b"BINARY[1.]", b"BINARY[HEADER]", b"BINARY[1.MIME]", b"BINARY.SIZE[1]<0.1>"):
            self.assertIn(b"q BAD", self.send(c, b"q FETCH 1 " + bad)[-1], bad)

    def test_the_largest_part(self):
        """What is decoded is held in memory: so much is, one byte more is refused, and the rest is served."""
        most = 60 << 20
        for i in range(2):
            self.plant("cur/%d.a.h:2," % (i + 1), b"a: b\r\n\r\n")
            os.truncate(os.path.join(self.dir, "cur/%d.a.h:2," % (i + 1)), 8 + most + i)
        c = self.selected()
        got = b"".join(self.ask(c, b"FETCH 1 BINARY.PEEK[1]<%d.10>" % (most - 5)))
        self.assertEqual(got, b"* 1 FETCH (BINARY[1]<%d> {5}\r\n" % (most - 5) + b"\x80" * 5 + b")\r\n")
        self.no(c, b"FETCH 2 BINARY.PEEK[1]<0.1>", b"[LIMIT]")
        got = b"".join(self.ask(c, b"FETCH 2 BODY.PEEK[1]<0.1>"))
        self.assertEqual(got, b"* 2 FETCH (BODY[1]<0> {1}\r\n\x80)\r\n")

    def test_append_literal8(self):
        c = self.selected()
        self.ask(c, b"APPEND INBOX (\\Seen) ~{10+}\r\na: b\r\n\r\nx\n")
        self.no(c, b"APPEND INBOX ~{10+}\r\na: b\r\n\r\n\0\n", b"[UNKNOWN-CTE]")
        self.assertIn(b"q BAD", self.send(c, b"q APPEND INBOX {10+}\r\na: b\r\n\r\n\0\n")[-1])
        self.assertEqual(self.ask(c, b"STATUS INBOX (MESSAGES)"), [b"* STATUS INBOX (MESSAGES 1)\r\n"])


class Objectid(Base):
    def mailbox(self, c, name):
        return re.search(rb"MAILBOXID \((\w+)\)", b"".join(self.ask(c, b"STATUS %s (MAILBOXID)" % name))).group(1)

    def test_mailboxes(self):
        c = self.raw()
        made = re.search(rb"\[MAILBOXID \((\w+)\)\]", self.send(c, b"q CREATE One")[-1]).group(1)
        self.send(c, b"q CREATE Two")
        self.assertEqual(self.mailbox(c, b"One"), made)
        self.assertIn(b"* OK [MAILBOXID (%s)]" % made, b"".join(self.ask(c, b"EXAMINE One")))
        self.assertEqual(len({self.mailbox(c, x) for x in (b"INBOX", b"One", b"Two")}), 3)
        self.ask(c, b"UNSELECT")
        self.ask(c, b"RENAME One Three")
        self.assertEqual(self.mailbox(c, b"Three"), made)
        self.ask(c, b"DELETE Three")
        self.ask(c, b"CREATE One")
        self.assertNotEqual(self.mailbox(c, b"One"), made)

    def test_messages(self):
        self.plant("cur/1.a.h:2,", b"a: b\r\n\r\nx\r\n")
        self.plant("cur/2.b.h:2,", b"a: b\r\n\r\n" + b"y" * 2000000 + b"\r\n")
        c = self.selected()
        ids = re.findall(rb"EMAILID \((M[0-9a-f]+)\) THREADID NIL", b"".join(self.ask(c, b"FETCH 1:* (EMAILID THREADID)")))
        self.assertEqual(ids[0], b"M" + hashlib.sha256(b"a: b\r\n\r\nx\r\n").hexdigest()[:40].encode())
        self.assertEqual(len(set(ids)), 2)
        self.ask(c, b"CREATE Sub")
        self.ask(c, b"COPY 1 Sub")
        self.ask(c, b"MOVE 2 Sub")
        self.ask(c, b"SELECT Sub")
        self.assertEqual(re.findall(rb"EMAILID \((\w+)\)", b"".join(self.ask(c, b"FETCH 1:* EMAILID"))), ids)
        self.assertEqual(self.ask(c, b"SEARCH EMAILID " + ids[1]), [b"* SEARCH 2\r\n"])
        self.assertEqual(self.ask(c, b"SEARCH OR EMAILID M0 THREADID T1"), [b"* SEARCH\r\n"])


class Multiappend(Base):
    def test_several(self):
        c = self.selected()
        got = self.send(c, b'q APPEND INBOX (\\Seen) "21-Nov-2026 20:33:00 +0000" {6+}\r\na: 1\r\n'
                           b' {6+}\r\na: 2\r\n ($k \\Draft) {6+}\r\na: 3\r\n')
        self.assertRegex(got[-1], rb"q OK \[APPENDUID \d+ 1:3\]")
        self.assertIn(b"* 3 EXISTS\r\n", got)
        got = b"".join(self.ask(c, b"FETCH 1:* (FLAGS INTERNALDATE BODY.PEEK[])"))
        for want in (b"a: 1", b"a: 2", b"a: 3", b'FLAGS (\\Seen) INTERNALDATE "21-Nov-2026 20:33:00 +0000"',
                     b"(\\Draft $k)"):
            self.assertIn(want, got)

    def test_all_or_none(self):
        c = self.selected()
        for bad in (b" {6+}\r\na: 2\r\n {0+}\r\n", b" (\\Nope) {6}", b" {6+}\r\na: \0\r\n", b" x", b"x {6}",
                    b' "yesterday" {6}', b" {99999999999}"):
            got = self.send(c, b"q APPEND INBOX {6+}\r\na: 1\r\n" + bad)
            self.assertRegex(got[-1], b"q (NO|BAD)", bad)
            self.assertEqual(os.listdir(os.path.join(self.dir, "tmp")), [])
        self.assertEqual(self.ask(c, b"STATUS INBOX (MESSAGES)"), [b"* STATUS INBOX (MESSAGES 0)\r\n"])
        many = b"".join(b" {6+}\r\na: 1\r\n" for _ in range(65))
        self.no(c, b"APPEND INBOX" + many, b"[LIMIT]")
        self.assertEqual(self.ask(c, b"STATUS INBOX (MESSAGES)"), [b"* STATUS INBOX (MESSAGES 0)\r\n"])
        self.ask(c, b"APPEND INBOX" + many[:-len(b" {6+}\r\na: 1\r\n")])
        self.assertEqual(self.ask(c, b"STATUS INBOX (MESSAGES)"), [b"* STATUS INBOX (MESSAGES 64)\r\n"])

    def test_cut_off(self):
        whole = b"q APPEND INBOX {60+}\r\n" + b"a: 1\r\n" * 10 + b" (\\Seen) {60+}\r\n" + b"a: 2\r\n" * 10
        for n in range(0, len(whole), 7):
            c = self.raw()
            c.sock.sendall(whole[:n])
            c.sock.shutdown(1)
            while c.file.readline():
                pass
            self.cells.remove(c)
            self.assertEqual(c.close(), 0)
            for sub in ("tmp", "new", "cur"):
                path = os.path.join(self.dir, sub)
                self.assertEqual(os.listdir(path) if os.path.isdir(path) else [], [], n)

    def test_waiting_for_each(self):
        c = self.selected()
        c.sock.sendall(b"q APPEND INBOX {6}\r\n")
        self.assertTrue(c.file.readline().startswith(b"+"))
        c.sock.sendall(b"a: 1\r\n (\\Flagged) {6}\r\n")
        self.assertTrue(c.file.readline().startswith(b"+"))
        self.assertIn(b"1:2] ", self.send(c, b"a: 2\r\n", b"q")[-1])

    def test_limit_told(self):
        c = self.raw()
        self.assertIn(b" APPENDLIMIT=%d " % (256 << 20), self.ask(c, b"CAPABILITY")[0])
        self.no(c, b"APPEND INBOX {%d}" % ((256 << 20) + 1), b"[TOOBIG]")


class Compressed:
    """A connection after COMPRESS, for send()."""

    def __init__(self, c):
        self.c, self.sock, self.file, self.have = c, self, self, b""
        self.out = zlib.compressobj(6, zlib.DEFLATED, -15)
        self.into = zlib.decompressobj(-15)

    def sendall(self, data):
        self.c.sock.sendall(self.out.compress(data) + self.out.flush(zlib.Z_SYNC_FLUSH))

    def readline(self):
        while b"\n" not in self.have:
            data = self.c.sock.recv(65536)
            if not data:
                return b""
            self.have += self.into.decompress(data)
        line, self.have = self.have.split(b"\n", 1)
        return line + b"\n"


class Compress(Base):
    def compressed(self):
        c = self.selected()
        self.assertIn(b" COMPRESS=DEFLATE", self.ask(c, b"CAPABILITY")[0])
        self.ask(c, b"COMPRESS DEFLATE")
        return Compressed(c)

    def test_conversation(self):
        for i in range(200):
            self.plant("cur/%d.z%d.h:2," % (1000 + i, i), b"Subject: s%d\r\n\r\n" % i + os.urandom(3000).hex().encode() + b"\r\n")
        z = self.compressed()
        self.assertNotIn(b"COMPRESS", self.ask(z, b"CAPABILITY")[0])
        self.no(z, b"COMPRESS DEFLATE", b"[COMPRESSIONACTIVE]")
        self.assertEqual(len(b"".join(self.ask(z, b"FETCH 1:* (BODY.PEEK[TEXT])"))), 200 * 6002 + sum(
            len("* %d FETCH (BODY[TEXT] {6002}\r\n)\r\n" % i) for i in range(1, 201)))
        self.ask(z, b"APPEND INBOX {6+}\r\na: b\r\n")
        z.sendall(b"i IDLE\r\n")
        while not z.readline().startswith(b"+"):
            pass
        self.assertIn(b"i OK", self.send(z, b"DONE", b"i")[-1])
        z.sendall(b"n NOOP\r\ni IDLE\r\nDONE\r\n")
        self.assertIn(b"m OK", self.send(z, b"m NOOP")[-1])
        self.assertIn(b"BYE", self.send(z, b"l LOGOUT")[0])

    def test_refused(self):
        c = self.raw()
        for bad in (b"COMPRESS", b"COMPRESS LZ4", b"COMPRESS DEFLATE x"):
            self.assertIn(b"q BAD", self.send(c, b"q " + bad)[-1])

    def test_bomb(self):
        """10 MiB of zeros, of letters, and of a literal, in a few KB."""
        for text in (b"\0" * (10 << 20), b"a" * (10 << 20), b"q LOGIN {10000000+}\r\n" + b"a" * (10 << 20)):
            z = self.compressed()
            z.sendall(text)
            said = []
            while not said or (said[-1] and b"BYE" not in said[-1]):
                said.append(z.readline())
            self.assertIn(b"BYE", said[-1])

    def test_garbage(self):
        for data in (b"\xff" * 100, b"\x00", zlib.compress(b"q NOOP\r\n"), b"\x03\x00"):
            z = self.compressed()
            z.c.sock.sendall(data)
            z.c.sock.shutdown(1)
            while z.c.sock.recv(65536):
                pass
            self.cells.remove(z.c)
            self.assertEqual(z.c.close(), 0)


if __name__ == "__main__":
    main("imapd-cell")
