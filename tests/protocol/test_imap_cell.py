#!/usr/bin/env python3
"""Conversations with imapd-cell: the binary itself, confined, in a Maildir of its own."""
import glob
import imaplib
import os
import re
import shutil
import sys
import tempfile
import time
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from cell_harness import Cell, main  # noqa: E402

MAIL = (b"From: Joe <joe@example.org>\r\nTo: a@b, \"C, D\" <c@d>\r\nSubject: =?utf-8?q?gr=C3=BC=C3=9Fe?=\r\n"
        b"Date: Fri, 21 Nov 1997 09:55:06 -0600\r\nMessage-ID: <1@x>\r\n\r\nHello\r\n.dot\r\n")
MULTI = (b"From: a@b\r\nSubject: multi\r\nMIME-Version: 1.0\r\n"
         b"Content-Type: multipart/mixed; boundary=\"b\"\r\n\r\npreamble\r\n--b\r\n\r\nfirst\r\n"
         b"--b\r\nContent-Type: text/html; charset=utf-8\r\nContent-Transfer-Encoding: base64\r\n\r\n"
         b"bmVlZGxl\r\n--b\r\nContent-Type: message/rfc822\r\n\r\nSubject: inner\r\n"
         b"Content-Type: multipart/alternative; boundary=c\r\n\r\n--c\r\n\r\ninner text\r\n--c--\r\n"
         b"\r\n--b--\r\n")


class Greeted:
    """A file with a line before its own: imaplib wants a greeting, a cell comes after it."""

    def __init__(self, file, first):
        self.file, self.first = file, first

    def readline(self, *n):
        line, self.first = self.first, None
        return line if line else self.file.readline(*n)

    def __getattr__(self, name):
        return getattr(self.file, name)


class Client(imaplib.IMAP4):
    """imaplib over the socket we already have."""

    def __init__(self, cell):
        self.cell = cell
        assert cell.file.readline().startswith(b"a0 OK [CAPABILITY IMAP4rev1 ")
        super().__init__()

    def open(self, host="", port=0, timeout=None):
        self.sock = self.cell.sock
        self._file = self.file = Greeted(self.cell.file, b"* PREAUTH Ready\r\n")

    def shutdown(self):
        pass


class Base(unittest.TestCase):
    program = "imapd-cell"

    def setUp(self):
        self.dir = tempfile.mkdtemp(prefix="bh-imap-")
        self.cells = []

    def tearDown(self):
        for c in self.cells:
            c.close()
        shutil.rmtree(self.dir, ignore_errors=True)

    def cell(self, **how):
        c = Cell(self.program, maildir=self.dir, **how)
        self.cells.append(c)
        return c

    def client(self):
        return Client(self.cell())

    def raw(self):
        c = self.cell()
        self.assertIn(b"a0 OK", c.file.readline())
        return c

    def plant(self, path, data=MAIL):
        full = os.path.join(self.dir, path)
        os.makedirs(os.path.dirname(full), exist_ok=True)
        with open(full, "wb") as f:
            f.write(data)

    def send(self, c, line, tag=None):
        """All lines of the answer to one command."""
        c.sock.sendall(line + b"\r\n")
        tag = tag or line.split(b" ")[0]
        out = []
        while True:
            got = c.file.readline()
            out.append(got)
            if not got or got.startswith(tag + b" ") or got.startswith(b"* BYE"):
                return out


class Works(Base):
    def ok(self, answer):
        self.assertEqual(answer[0], "OK", answer)
        return answer[1]

    def test_append_fetch_whole(self):
        m = self.client()
        self.ok(m.select())
        typ, data = m.append("INBOX", r"(\Seen)", '"21-Nov-2026 20:33:00 +0100"', MAIL)
        self.assertRegex(data[0], rb"APPENDUID \d+ 1\]")
        self.ok(m.noop())
        data = self.ok(m.fetch("1", "(FLAGS UID RFC822.SIZE INTERNALDATE BODY.PEEK[])"))
        self.assertEqual(data[0][1], MAIL)
        self.assertIn(b"RFC822.SIZE %d" % len(MAIL), data[0][0])
        self.assertIn(b'INTERNALDATE "21-Nov-2026 19:33:00 +0000"', data[0][0])
        self.assertIn(b"\\Seen", data[0][0])
        self.assertEqual(m.logout()[0], "BYE")

    def test_lf_mail_is_sent_with_crlf(self):
        self.plant("new/1.a.h", MAIL.replace(b"\r\n", b"\n"))
        m = self.client()
        self.ok(m.select())
        data = self.ok(m.fetch("1", "(RFC822.SIZE BODY[])"))
        self.assertEqual(data[0][1], MAIL)
        self.assertIn(b"RFC822.SIZE %d" % len(MAIL), data[0][0])
        self.assertIn(b"\\Seen", data[1])
        names = os.listdir(os.path.join(self.dir, "cur"))
        self.assertRegex(names[0], r"^1\.a\.h,S=\d+,W=%d,U=1\.\d+:2,S$" % len(MAIL))

    def test_sections(self):
        self.plant("new/1.a.h", MULTI)
        m = self.client()
        self.ok(m.select())

        def section(s):
            data = self.ok(m.fetch("1", "BODY.PEEK[%s]" % s))
            return data[0][1] if isinstance(data[0], tuple) else data[0]
        self.assertEqual(section("1"), b"first")
        self.assertEqual(section("2"), b"bmVlZGxl")
        self.assertEqual(section("2.MIME"), b"Content-Type: text/html; charset=utf-8\r\n"
                         b"Content-Transfer-Encoding: base64\r\n\r\n")
        self.assertTrue(section("3.HEADER").startswith(b"Subject: inner\r\n"))
        self.assertEqual(section("3.1"), b"inner text")
        self.assertEqual(section("3.HEADER.FIELDS (Subject)"), b"Subject: inner\r\n\r\n")
        self.assertEqual(section("HEADER.FIELDS (subject X)"), b"Subject: multi\r\n\r\n")
        self.assertNotIn(b"Subject", section("HEADER.FIELDS.NOT (Subject)"))
        self.assertTrue(section("TEXT").startswith(b"preamble"))
        self.assertIn(b"NIL", section("9"))
        self.assertIn(b"NIL", section("1.1"))
        data = self.ok(m.fetch("1", "BODY.PEEK[]<5.10>"))
        self.assertEqual(data[0][1], MULTI[5:15])
        self.assertIn(b"BODY[]<5> {10}", data[0][0])
        data = self.ok(m.fetch("1", "BODY.PEEK[]<100000.10>"))
        self.assertEqual(data[0][1], b"")
        data = self.ok(m.fetch("1", "(BODYSTRUCTURE)"))
        self.assertIn(b'(("text" "plain" ("charset" "us-ascii") NIL NIL "7bit" 5 0 NIL NIL NIL NIL)'
                      b'("text" "html" ("charset" "utf-8") NIL NIL "base64" 8 0 NIL NIL NIL NIL)'
                      b'("message" "rfc822" NIL NIL NIL "7bit"', data[0])
        self.assertEqual(data[0].count(b"("), data[0].count(b")"))

    def test_envelope(self):
        self.plant("new/1.a.h")
        m = self.client()
        self.ok(m.select())
        data = self.ok(m.fetch("1", "ENVELOPE"))
        self.assertEqual(data[0], b'1 (ENVELOPE ("Fri, 21 Nov 1997 09:55:06 -0600" '
                         b'"=?utf-8?q?gr=C3=BC=C3=9Fe?=" (("Joe" NIL "joe" "example.org")) '
                         b'(("Joe" NIL "joe" "example.org")) (("Joe" NIL "joe" "example.org")) '
                         b'((NIL NIL "a" "b")("C, D" NIL "c" "d")) NIL NIL NIL "<1@x>"))')

    def test_search(self):
        self.plant("new/1.a.h")
        self.plant("new/2.b.h", MULTI)
        self.plant("cur/3.c.h:2,FS", b"Subject: three\r\nTo: x\r\n\r\n" + b"y" * 1000)
        m = self.client()
        self.ok(m.select())
        for keys, want in [
                ("ALL", b"1 2 3"), ("SEEN", b"3"), ("NOT SEEN", b"1 2"), ("UNSEEN FROM joe", b"1"),
                ("OR SUBJECT three SUBJECT multi", b"2 3"), ("BODY needle", b"2"), ("TEXT inner", b"2"),
                ('SUBJECT "gr\u00fc\u00df"'.encode().decode("latin-1"), None),
                ("LARGER 900", b"3"), ("SMALLER 900", b"1 2"), ("SENTON 21-Nov-1997", b"1"),
                ("SENTBEFORE 1-Jan-2000", b"1"), ("SINCE 1-Jan-2000", b"1 2 3"), ("NEW", b"1 2"),
                ("OLD", b"3"), ("HEADER message-id 1@", b"1"), ("HEADER Message-ID \"\"", b"1"),
                ("UID 2:*", b"2 3"), ("2", b"2"), ("(1:2 UNFLAGGED)", b"1 2"), ("KEYWORD x", b""),
                ("UNKEYWORD x", b"1 2 3"), ("OR (SEEN) (NOT (FROM joe))", b"2 3"),
                ("NOT NOT SEEN", b"3"), ("OR OR 1 2 3", b"1 2 3"), ("DELETED", b"")]:
            if want is None:
                continue
            typ, data = m.search(None, keys)
            self.assertEqual((typ, data[0] or b""), ("OK", want), keys)
        c = self.cells[0]
        c.sock.sendall(b"u SEARCH CHARSET UTF-8 SUBJECT {5+}\r\n\xc3\xbc\xc3\x9fe\r\n")
        self.assertEqual(c.file.readline(), b"* SEARCH 1\r\n")
        self.assertIn(b"u OK", c.file.readline())
        self.assertIn(b"NO [BADCHARSET", self.send(c, b"v SEARCH CHARSET KOI8-R ALL")[-1])

    def test_store_copy_expunge(self):
        for i in range(1, 6):
            self.plant("new/%d.a.h" % i)
        m = self.client()
        self.ok(m.select())
        self.ok(m.create("Sub.Folder"))
        typ, data = m.copy("2:3", "Sub.Folder")
        self.assertEqual(typ, "OK")
        self.assertRegex(data[0], rb"COPYUID \d+ 2:3 1:2\]")
        self.assertEqual(m.copy("1", "Nope")[0], "NO")
        self.assertIn(b"TRYCREATE", m.copy("1", "Nope")[1][0])
        data = self.ok(m.store("1,3", "+FLAGS", r"(\Deleted $Work)"))
        self.assertEqual(len(data), 2)
        self.assertIn(b"\\Deleted", data[0])
        self.assertIn(b"$Work", data[0])
        self.ok(m.uid("EXPUNGE", "1"))
        self.assertEqual(m.untagged_responses.pop("EXPUNGE"), [b"1"])
        self.assertEqual(self.ok(m.expunge()), [b"2"])
        self.assertEqual(self.ok(m.status("Sub.Folder", "(MESSAGES UIDNEXT)")),
                         [b"Sub.Folder (MESSAGES 2 UIDNEXT 3)"])
        self.ok(m.store("1", "FLAGS.SILENT", r"(\Flagged)"))
        self.assertIn(b"FLAGS (\\Flagged \\Recent)", self.ok(m.fetch("1", "FLAGS"))[0])
        self.assertEqual(m.select("Sub.Folder", readonly=True)[0], "OK")
        self.assertEqual(m.uid("STORE", "1", "+FLAGS", r"(\Deleted)")[0], "NO")

    def test_folders(self):
        m = self.client()
        for name in ("A.B.C", "A.B", "Z", '"with space"', "&AOQ-"):
            self.ok(m.create(name))
        self.assertEqual(m.create("A.B")[0], "NO")
        for name in ('"a..b"', '"a/b"', '"."', '".."', '"../x"', "." .join("a" * 256), '"a*"', '"&"'):
            self.assertEqual(m.create(name)[0], "NO", name)
        rows = self.ok(m.list('""', "%"))
        self.assertIn(b'(\\Noselect \\HasChildren) "." A', rows)
        self.assertIn(b'(\\HasNoChildren) "." INBOX', rows)
        self.assertEqual(self.ok(m.list('""', '""')), [b'(\\Noselect) "." ""'])
        self.assertEqual(self.ok(m.list("A.", "%")), [b'(\\HasChildren) "." A.B'])
        self.ok(m.subscribe("A.B.C"))
        self.assertEqual(self.ok(m.lsub()), [b'() "." A.B.C'])
        self.assertEqual(self.ok(m.lsub('""', "%")), [b'(\\Noselect) "." A'])
        self.ok(m.rename("A.B", "Y"))
        self.assertIn(b'(\\HasNoChildren) "." Y.C', self.ok(m.list()))
        self.ok(m.append("INBOX", None, None, MAIL))
        self.ok(m.rename("INBOX", "Old"))
        self.assertEqual(self.ok(m.status("Old", "(MESSAGES)")), [b"Old (MESSAGES 1)"])
        self.assertEqual(self.ok(m.status("INBOX", "(MESSAGES)")), [b"INBOX (MESSAGES 0)"])
        self.ok(m.delete("Old"))
        self.assertEqual(m.delete("INBOX")[0], "NO")
        self.assertEqual(m.select("Old")[0], "NO")
        self.assertEqual(self.ok(m.namespace()), [b'(("" ".")) NIL NIL'])

    def test_idle_tells_new_mail(self):
        c = self.raw()
        self.send(c, b"a SELECT INBOX")
        c.sock.sendall(b"b IDLE\r\n")
        self.assertEqual(c.file.readline(), b"+ idling\r\n")
        self.plant("tmp/9.a.h")
        os.rename(os.path.join(self.dir, "tmp/9.a.h"), os.path.join(self.dir, "new/9.a.h"))
        begin = time.monotonic()
        self.assertEqual(c.file.readline(), b"* 1 EXISTS\r\n")
        self.assertLess(time.monotonic() - begin, 2)
        self.assertEqual(c.file.readline(), b"* 1 RECENT\r\n")
        c.sock.sendall(b"DONE\r\n")
        self.assertIn(b"b OK", c.file.readline())
        self.assertIn(b"c BAD", self.send(c, b"c IDLE\r\nx", b"c")[-1])

    def test_two_sessions(self):
        for i in range(1, 4):
            self.plant("new/%d.a.h" % i)
        a, b = self.raw(), self.raw()
        self.send(a, b"a SELECT INBOX")
        self.send(b, b"a SELECT INBOX")
        self.send(a, b"b STORE 2 +FLAGS (\\Deleted)")
        self.assertIn(b"* 2 FETCH (UID 2 FLAGS (\\Deleted))\r\n", self.send(b, b"b NOOP"))
        self.send(a, b"c EXPUNGE")
        # No EXPUNGE while numbers are in use.
        lines = self.send(b, b"c FETCH 1:3 FLAGS")
        self.assertFalse([x for x in lines if b"EXPUNGE\r\n" in x], lines)
        self.assertTrue(lines[-1].startswith(b"c OK") or lines[-1].startswith(b"c NO"), lines)
        self.assertIn(b"* 2 EXPUNGE\r\n", self.send(b, b"d NOOP"))
        self.assertIn(b"* 2 FETCH (UID 3)\r\n", self.send(b, b"e FETCH 2 UID"))

    def test_unread_bytes_and_logout(self):
        c = self.cell(unread=b"x NOOP\r\ny LOG")
        self.assertIn(b"a0 OK", c.file.readline())
        self.assertIn(b"x OK", c.file.readline())
        c.sock.sendall(b"OUT\r\n")
        self.assertIn(b"* BYE", c.file.readline())
        self.assertIn(b"y OK", c.file.readline())
        self.assertEqual(c.file.readline(), b"")
        self.cells.remove(c)
        self.assertEqual(c.close(), 0)
        self.assertIn("imap(test@example.org): Disconnected: Logged out in=", c.said)

    def test_uidvalidity_survives_loss_of_the_file(self):
        self.plant("new/1.a.h")
        c = self.raw()
        before = [x for x in self.send(c, b"a SELECT INBOX") if b"UIDVALIDITY" in x]
        c.close()
        self.cells.remove(c)
        os.unlink(os.path.join(self.dir, "bulkhead-uid"))
        c = self.raw()
        after = [x for x in self.send(c, b"a SELECT INBOX") if b"UIDVALIDITY" in x]
        self.assertEqual(before, after)


class Hostile(Base):
    def test_prefixes_of_commands(self):
        self.plant("new/1.a.h", MULTI)
        c = self.raw()
        self.send(c, b"s SELECT INBOX")
        commands = [
            b'FETCH 1:* (FLAGS UID BODY.PEEK[1.2.HEADER.FIELDS ("A" B)]<0.5> RFC822.SIZE)',
            b"FETCH 1 (BODY[3.1.MIME] ENVELOPE BODYSTRUCTURE)", b'SEARCH CHARSET UTF-8 OR (NOT SEEN) '
            b'(SUBJECT "x\\"y" UID 1:* SINCE 1-Jan-2000)', b"STORE 1,2:4,* +FLAGS.SILENT (\\Seen $a)",
            b'LIST "" "a%*"', b"STATUS INBOX (MESSAGES UNSEEN)", b"COPY 1:* Nope", b"UID FETCH 1 FLAGS",
            b'CREATE "a\\\\b"', b"RENAME a b", b'APPEND INBOX (\\Seen) " 1-Jan-2000 00:00:00 +0000" ',
            b"NAMESPACE", b"UID EXPUNGE 99", b"CAPABILITY", b"EXAMINE INBOX", b"UNSELECT"]
        n = 0
        for command in commands:
            for k in range(len(command)):
                tag = b"p%d" % n
                n += 1
                got = self.send(c, tag + b" " + command[:k])[-1]
                self.assertRegex(got, rb"^p\d+ (OK|NO|BAD) ")
                if n % 10 == 0:
                    self.send(c, b"n%d NOOP" % n)
            if command.startswith(b"UNSELECT"):
                break
            self.send(c, b"z%d SELECT INBOX" % n)

    def test_nul_and_bare_cr(self):
        c = self.raw()
        self.assertIn(b"a BAD", self.send(c, b'a SELECT "IN\0BOX"')[-1])
        self.assertIn(b"b BAD", self.send(c, b"b SELECT {6+}\r\nINB\0OX", b"b")[-1])
        self.assertIn(b"c BAD", self.send(c, b"c NO\rOP")[-1])
        self.assertIn(b"d OK", self.send(c, b"d NOOP")[-1])

    def test_literals(self):
        c = self.raw()
        self.assertIn(b"a NO [TOOBIG]", self.send(c, b"a SELECT {65537}")[-1])
        self.assertIn(b"b NO [TOOBIG]", self.send(c, b"b SELECT {4294967295}")[-1])
        self.assertIn(b"c BAD", self.send(c, b"c SELECT {-1}")[-1])
        c.sock.sendall(b"d SELECT {00000000000000000005}\r\n")
        self.assertEqual(c.file.readline(), b"+ OK\r\n")
        self.assertIn(b"d OK", self.send(c, b"INBOX", b"d")[-1])
        self.assertIn(b"e NO", self.send(c, b"e STATUS {65536+}\r\n" + b"x" * 65536 + b" (MESSAGES)",
                                         b"e")[-1])
        self.assertIn(b"* BYE", self.send(c, b"f SELECT {4294967296+}")[-1])

    def test_line_ceiling(self):
        c = self.raw()
        line = b"a NOOP " + b"x" * 65529
        self.assertEqual(len(line), 65536)
        self.assertIn(b"a BAD Error", self.send(c, line)[-1])
        self.assertIn(b"* BAD Line too long", self.send(c, line + b"x", b"*")[-1])
        self.assertIn(b"b OK", self.send(c, b"b NOOP")[-1])
        try:
            c.sock.sendall(b"y" * (2 << 20))
            self.assertIn(b"* BYE", c.file.readline())
        except (BrokenPipeError, ConnectionResetError):
            pass  # it closed with our words unread: the farewell may be lost
        self.assertEqual(c.process.wait(5), 0)

    def test_command_ceiling(self):
        """Literals and lines together: 256 KiB are answered, one byte more is refused, and the session goes on."""
        self.plant("new/1.a.h")
        c = self.raw()
        self.send(c, b"s SELECT INBOX")
        for extra in (0, 1):
            text = b"a SEARCH" + b"".join(b" NOT TEXT {60000}\r\n" + b"x" * 60000 for _ in range(4)) + b" NOT TEXT \""
            text += b"y" * (262144 + extra - len(text) - 1) + b'"'
            got = self.send(c, text.replace(b"}", b"+}"), b"a")
            if extra:
                self.assertEqual(got, [b"a BAD Command too long.\r\n"])
            else:
                self.assertEqual(got[0], b"* SEARCH 1\r\n")
                self.assertIn(b"a OK", got[-1])
            self.assertIn(b"b OK", self.send(c, b"b NOOP")[-1])
        # A literal that would fill it is not invited.
        c.sock.sendall(b"c SEARCH" + b"".join(b" TEXT {65000+}\r\n" + b"x" * 65000 for _ in range(4)) + b" TEXT {2100}\r\n")
        self.assertIn(b"c NO [TOOBIG]", c.file.readline())
        self.assertIn(b"d OK", self.send(c, b"d NOOP")[-1])

    def test_nesting(self):
        self.plant("new/1.a.h")
        c = self.raw()
        self.send(c, b"s SELECT INBOX")
        for n, want in ((64, b"OK"), (65, b"BAD"), (5000, b"BAD")):
            got = self.send(c, b"a SEARCH " + b"(" * n + b"ALL" + b")" * n)[-1]
            self.assertTrue(got.startswith(b"a " + want), (n, got))
        for n, want in ((64, b"OK"), (65, b"BAD"), (10000, b"BAD")):
            got = self.send(c, b"a SEARCH " + b"NOT " * n + b"ALL")[-1]
            self.assertTrue(got.startswith(b"a " + want), (n, got))
        right = b"OR ALL " * 60 + b"ALL"
        left = b"OR " * 60 + b"ALL" + b" ALL" * 60
        self.assertIn(b"a OK", self.send(c, b"a SEARCH " + right)[-1])
        self.assertIn(b"a OK", self.send(c, b"a SEARCH " + left)[-1])
        self.assertIn(b"a BAD", self.send(c, b"a SEARCH ()")[-1])
        for junk in (b"(" * 60000, b")" * 60000, b"()" * 30000):
            self.assertIn(b"a BAD", self.send(c, b"a FETCH 1 " + junk)[-1])
            self.send(c, b"b NOOP")

    def test_sequence_sets(self):
        for i in range(3):
            self.plant("new/%d.a.h" % i)
        c = self.raw()
        self.send(c, b"s SELECT INBOX")
        begin = time.monotonic()
        self.assertEqual(len(self.send(c, b"a UID FETCH 1:4294967295 FLAGS")), 4)
        self.assertEqual(len(self.send(c, b"b UID FETCH " + b",".join([b"1:*"] * 5000) + b" FLAGS")), 4)
        self.assertEqual(len(self.send(c, b"c UID FETCH 4294967295:1 FLAGS")), 4)
        self.assertEqual(len(self.send(c, b"d UID FETCH 100:* FLAGS")), 2)
        self.assertIn(b"e BAD", self.send(c, b"e FETCH 4 FLAGS")[-1])
        for bad in (b"0", b"1:0", b"1,,2", b":", b"1:", b",", b"4294967296", b"-1", b"1:2:3", b""):
            self.assertIn(b"f BAD", self.send(c, b"f FETCH " + bad + b" FLAGS")[-1])
            self.send(c, b"n NOOP")
        self.assertLess(time.monotonic() - begin, 1)

    def test_twenty_bad_commands(self):
        c = self.raw()
        for i in range(19):
            self.assertIn(b"BAD", self.send(c, b"a%d NONSENSE" % i)[-1])
        c.sock.sendall(b"b NONSENSE\r\n")
        self.assertIn(b"b BAD", c.file.readline())
        self.assertIn(b"* BYE", c.file.readline())
        self.assertEqual(c.file.readline(), b"")

    def test_append_cut_leaves_nothing(self):
        big = MAIL + b"x" * 20000
        for cut in range(0, len(big), 4096):
            c = self.raw()
            c.sock.sendall(b"a APPEND INBOX {%d+}\r\n" % len(big) + big[:cut])
            c.close()
            self.cells.remove(c)
        for sub in ("tmp", "new", "cur"):
            self.assertEqual(os.listdir(os.path.join(self.dir, sub)), [])
        c = self.raw()
        self.assertIn(b"b NO [TRYCREATE]", self.send(c, b"b APPEND Nope {5+}\r\nabcde", b"b")[-1])
        self.assertIn(b"c BAD", self.send(c, b"c APPEND INBOX {3+}\r\na\0b", b"c")[-1])
        self.assertIn(b"d OK", self.send(c, b"d NOOP")[-1])

    def test_nul_in_stored_mail(self):
        self.plant("new/1.a.h", b"Sub\0ject: x\nSubject: a\0b\n\nbo\0dy\n")
        c = self.raw()
        self.send(c, b"s SELECT INBOX")
        c.sock.sendall(b"a FETCH 1 (RFC822.SIZE ENVELOPE BODY[] BODY[HEADER.FIELDS (Subject)])\r\n")
        got = b""
        while b"a OK" not in got:
            got += c.file.readline()
        self.assertNotIn(b"\0", got)
        size = int(re.search(rb"RFC822.SIZE (\d+)", got).group(1))
        self.assertIn(b"BODY[] {%d}\r\n" % size, got)

    def test_deep_and_wide_mime(self):
        deep = b"".join(b"Content-Type: multipart/mixed; boundary=b%d\n\n--b%d\n" % (i, i)
                        for i in range(100000))
        wide = b"Content-Type: multipart/mixed; boundary=b\n\n" + b"--b\n\n" * 1000000
        self.plant("new/1.deep.h", deep)
        self.plant("new/2.wide.h", wide)
        c = self.raw()
        self.send(c, b"s SELECT INBOX")
        for n in (b"1", b"2"):
            begin = time.monotonic()
            got = self.send(c, b"a FETCH " + n + b" BODYSTRUCTURE")
            self.assertIn(b"a OK", got[-1])
            text = re.sub(rb'"(\\.|[^"\\])*"', b"", got[0])
            self.assertEqual(text.count(b"("), text.count(b")"))
            self.assertLess(time.monotonic() - begin, 2)

    def test_many_addresses_and_a_long_header(self):
        self.plant("new/1.a.h", b"To: a@b\n" * 500000 + b"\nx")
        self.plant("new/2.b.h", b"Subject: " + b"y" * (20 << 20) + b"\n\nx")
        self.plant("new/3.c.h", b"To: " + b"a@b, " * 12000 + b"\nFrom: ;\nCc: g:;\nSubject: (abc\\")
        c = self.raw()
        self.send(c, b"s SELECT INBOX")
        begin = time.monotonic()
        got = self.send(c, b"a FETCH 1:3 ENVELOPE")
        self.assertIn(b"a OK", got[-1])
        self.assertLess(time.monotonic() - begin, 3)

    def test_many_messages_and_folders(self):
        for i in range(3000):
            self.plant("new/%d.a.h" % (5000 - i), b"x\n")
        c = self.raw()
        self.assertIn(b"* 3000 EXISTS\r\n", self.send(c, b"a SELECT INBOX"))
        begin = time.monotonic()
        self.assertEqual(len(self.send(c, b"b FETCH 1:* (UID FLAGS RFC822.SIZE)")), 3001)
        self.assertEqual(len(self.send(c, b"c STORE 1:* +FLAGS (\\Deleted)")), 3001)
        self.assertEqual(len(self.send(c, b"d EXPUNGE")), 3001)
        self.assertLess(time.monotonic() - begin, 5)

    def test_list_pattern(self):
        for i in range(300):
            os.makedirs(os.path.join(self.dir, "." + ".".join(["a"] * 12) + "%d" % i, "cur"))
        c = self.raw()
        begin = time.monotonic()
        self.assertEqual(len(self.send(c, b'a LIST "" "' + b"%*" * 12 + b'b"')), 1)
        self.assertLess(time.monotonic() - begin, 1)

    def test_planted_things(self):
        os.makedirs(os.path.join(self.dir, "cur"))
        os.mkfifo(os.path.join(self.dir, "cur", "1.fifo"))
        os.symlink("/etc/passwd", os.path.join(self.dir, "cur", "2.link:2,"))
        os.symlink("/etc", os.path.join(self.dir, ".etc"))
        self.plant("cur/3.ok:2,")
        c = self.raw()
        self.assertIn(b"* 1 EXISTS\r\n", self.send(c, b"a SELECT INBOX"))
        self.assertIn(b"b NO", self.send(c, b"b SELECT etc")[-1])
        self.assertIn(b"c NO", self.send(c, b"c SELECT ..")[-1])
        self.assertIn(b"d NO", self.send(c, b'd SELECT "../../etc"')[-1])


if __name__ == "__main__":
    main("imapd-cell")
