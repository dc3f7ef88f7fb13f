#!/usr/bin/env python3
"""IMAP4rev2 (RFC 9051) and UTF8=ACCEPT (RFC 6855, 9755) with imapd-cell; and that every capability has its test."""
import importlib
import os
import re
import sys
import unicodedata
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from cell_harness import main  # noqa: E402
import test_imap_cell  # noqa: E402

# What is advertised after the login, and the test of it: a file here, a class and a function.
CAPABILITIES = {
    "IMAP4rev1": "test_imap_cell Works.test_append_fetch_whole",
    "IMAP4rev2": "test_imap_rev2 Rev2.test_a_session_of_the_rfc",
    "UTF8=ACCEPT": "test_imap_rev2 Utf8.test_names",
    "LITERAL+": "test_imap_cell Hostile.test_literals",
    "LITERAL-": "test_imap_rev2 Rev2.test_literal_minus",
    "UIDPLUS": "test_imap_cell Works.test_store_copy_expunge",
    "IDLE": "test_imap_cell Works.test_idle_tells_new_mail",
    "NAMESPACE": "test_imap_cell Works.test_folders",
    "UNSELECT": "test_imap_extensions Others.test_enable_id_unselect",
    "CHILDREN": "test_imap_cell Works.test_folders",
    "ENABLE": "test_imap_extensions Others.test_enable_id_unselect",
    "ID": "test_imap_extensions Others.test_enable_id_unselect",
    "ESEARCH": "test_imap_extensions Search.test_esearch",
    "SEARCHRES": "test_imap_extensions Search.test_searchres",
    "CONDSTORE": "test_imap_extensions Condstore.test_modseq_grows_and_is_told",
    "QRESYNC": "test_imap_extensions Condstore.test_qresync",
    "MOVE": "test_imap_extensions Move.test_move",
    "LIST-EXTENDED": "test_imap_rev2 List.test_examples_of_the_rfc",
    "LIST-STATUS": "test_imap_extensions List.test_list_extended",
    "STATUS=SIZE": "test_imap_extensions List.test_list_extended",
    "SPECIAL-USE": "test_imap_extensions List.test_special_use",
    "CREATE-SPECIAL-USE": "test_imap_extensions List.test_special_use",
    "WITHIN": "test_imap_extensions Search.test_within_and_savedate",
    "SAVEDATE": "test_imap_extensions Search.test_within_and_savedate",
    "SORT": "test_imap_sort Sort.test_keys",
    "SORT=DISPLAY": "test_imap_sort Sort.test_keys",
    "THREAD=ORDEREDSUBJECT": "test_imap_sort Thread.test_references",
    "THREAD=REFERENCES": "test_imap_sort Thread.test_references",
    "QUOTA": "test_imap_more Quota.test_limits",
    "QUOTA=RES-STORAGE": "test_imap_more Quota.test_limits",
    "QUOTA=RES-MESSAGE": "test_imap_more Quota.test_limits",
    "OBJECTID": "test_imap_more Objectid.test_messages",
    "PREVIEW": "test_imap_more Preview.test_texts",
    "BINARY": "test_imap_more Binary.test_fetch",
    "MULTIAPPEND": "test_imap_more Multiappend.test_several",
    "APPENDLIMIT": "test_imap_more Multiappend.test_limit_told",
    "COMPRESS=DEFLATE": "test_imap_more Compress.test_conversation",
}
# Before the login, by the front: unit tests with a whole session.
BEFORE = {
    "IMAP4rev1": "imap_capabilities_are_what_works",
    "IMAP4rev2": "imap_capabilities_are_what_works",
    "SASL-IR": "imap_logins_in_every_spelling",
    "LITERAL+": "imap_literals_up_to_the_limit",
    "STARTTLS": "imap_starttls_forgets_and_proxies",
    "AUTH=PLAIN": "imap_logins_in_every_spelling",
    "LOGINDISABLED": "imap_passwords_in_clear_are_refused",
}


class Base(test_imap_cell.Base):
    def ask(self, c, line):
        got = self.send(c, b"q " + line)
        self.assertIn(b"q OK", got[-1], line)
        return got[:-1]

    def no(self, c, line, code):
        self.assertTrue(self.send(c, b"q " + line)[-1].startswith(b"q NO [%s]" % code), line)

    def bad(self, c, line):
        self.assertIn(b"q BAD", self.send(c, b"q " + line)[-1], line)

    def rev2(self, *names):
        c = self.raw()
        self.assertEqual(self.ask(c, b"ENABLE IMAP4rev2")[0], b"* ENABLED IMAP4rev2\r\n")
        for name in names:
            self.ask(c, b"CREATE " + name)
        return c


class Table(Base):
    def test_each_capability_has_a_test(self):
        said = self.ask(self.raw(), b"CAPABILITY")[0].split()[2:]
        self.assertEqual(sorted(re.sub(r"=\d+$", "", x.decode()) for x in said), sorted(set(CAPABILITIES) - {"LITERAL-"}))
        said = self.ask(self.rev2(), b"CAPABILITY")[0].split()[2:]
        self.assertEqual(sorted(re.sub(r"=\d+$", "", x.decode()) for x in said), sorted(set(CAPABILITIES) - {"LITERAL+"}))
        for name, where in CAPABILITIES.items():
            module, _, path = where.partition(" ")
            cls, _, function = path.partition(".")
            self.assertTrue(callable(getattr(getattr(importlib.import_module(module), cls), function)), name)

    def test_each_one_before_the_login(self):
        root = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
        with open(os.path.join(root, "tests/unit/test_login.c")) as f:
            tests = set(re.findall(r"START_TEST\((\w+)\)", f.read()))
        with open(os.path.join(root, "imapd/front.c")) as f:
            source = f.read()
        body = source[source.index("put_capabilities(struct"):]
        words = re.findall(r"[A-Z][A-Za-z0-9=+-]{2,}", " ".join(re.findall(r'"([^"]*)"', body[:body.index("\n}")])))
        self.assertEqual(sorted(set(words) - {"CAPABILITY"}), sorted(BEFORE))
        self.assertEqual(set(BEFORE.values()) - tests, set())


class Rev2(Base):
    def test_a_session_of_the_rfc(self):
        """RFC 9051 8, and 6.3.2: what SELECT says."""
        self.plant("cur/1.a.h:2,")
        c = self.rev2(b"Drafts")
        got = self.ask(c, b"SELECT inbox")
        self.assertIn(b'* LIST () "." INBOX ("OLDNAME" (inbox))\r\n', got)
        self.assertIn(b"* 1 EXISTS\r\n", got)
        self.assertTrue(any(x.startswith(b"* FLAGS (\\Answered \\Flagged \\Deleted \\Seen \\Draft)") for x in got))
        for what in (b"[UIDVALIDITY ", b"[UIDNEXT 2]", b"[PERMANENTFLAGS (", b"\\*)]"):
            self.assertTrue(any(what in x for x in got), what)
        for gone in (b"RECENT", b"[UNSEEN", b"\\Recent", b"[CLOSED]"):
            self.assertFalse(any(gone in x for x in got), gone)
        got = self.ask(c, b"SELECT Drafts")
        self.assertTrue(got[0].startswith(b"* OK [CLOSED]"))
        self.assertIn(b'* LIST (\\Drafts) "." Drafts\r\n', got)
        self.assertTrue(self.ask(c, b"EXAMINE INBOX")[0].startswith(b"* OK [CLOSED]"))
        self.assertIn(b'* LIST () "." INBOX\r\n', self.ask(c, b"EXAMINE INBOX"))
        self.ask(c, b"UNSELECT")
        self.assertFalse(self.ask(c, b"SELECT INBOX")[0].startswith(b"* OK [CLOSED]"))
        self.assertEqual(self.ask(c, b"STORE 1 +FLAGS (\\Deleted)"), [b"* 1 FETCH (FLAGS (\\Deleted))\r\n"])
        self.assertEqual(self.ask(c, b"STATUS INBOX (MESSAGES UIDNEXT UIDVALIDITY UNSEEN DELETED SIZE)")[0].split()[3::2][:1],
                         [b"(MESSAGES"])
        self.assertIn(b"DELETED 1 SIZE %d" % len(test_imap_cell.MAIL), self.ask(c, b"STATUS INBOX (DELETED SIZE)")[0])

    def test_literal_minus(self):
        """RFC 7888 5, RFC 9051 4.3: one of LITERAL+ and LITERAL- at a time, and 4096 bytes without being asked for."""
        text = b"Subject: x\r\n\r\n"
        at, over = text.ljust(4096, b"x"), text.ljust(4097, b"x")
        c = self.raw()
        said = self.ask(c, b"CAPABILITY")[0].split()
        self.assertTrue(b"LITERAL+" in said and b"LITERAL-" not in said)
        self.assertIn(b"a OK", self.send(c, b"a APPEND INBOX {4097+}\r\n" + over)[-1])
        got = self.ask(c, b"ENABLE IMAP4rev2")
        said = got[1].split()
        self.assertTrue(said[1] == b"CAPABILITY" and b"LITERAL-" in said and b"LITERAL+" not in said)
        self.assertEqual(len(self.ask(c, b"ENABLE IMAP4rev2")), 1)
        self.assertIn(b"b OK", self.send(c, b"b APPEND INBOX {4096+}\r\n" + at)[-1])
        self.assertIn(b"c BAD [TOOBIG]", self.send(c, b"c APPEND INBOX {4097+}\r\n" + over)[-1])
        self.assertIn(b"d BAD [TOOBIG]", self.send(c, b"d APPEND INBOX {4096+}\r\n" + at + b" {4097+}\r\n" + over)[-1])
        self.assertIn(b"d2 BAD [TOOBIG]", self.send(c, b"d2 APPEND INBOX (\\Seen) ~{4097+}\r\n" + over)[-1])
        self.assertIn(b"MESSAGES 2", self.ask(c, b"STATUS INBOX (MESSAGES)")[0])
        # One that is asked for is as long as ever.
        c.sock.sendall(b"e APPEND INBOX {4097}\r\n")
        self.assertTrue(c.file.readline().startswith(b"+ "))
        self.assertIn(b"e OK", self.send(c, over, tag=b"e")[-1])
        c.sock.sendall(b"f STATUS {4097}\r\n")
        self.assertTrue(c.file.readline().startswith(b"+ "))
        self.assertIn(b"f NO", self.send(c, b"x" * 4097 + b" (MESSAGES)", tag=b"f")[-1])
        self.assertTrue(self.send(c, b"g STATUS {4096+}\r\n" + b"x" * 4096 + b" (MESSAGES)")[-1].startswith(b"g NO"))
        # Another command's is not read: it could not be told from commands.
        c.sock.sendall(b"h STATUS {4097+}\r\n" + over)
        self.assertIn(b"* BYE [TOOBIG]", c.file.readline())

    def test_encoded_parameters(self):
        """RFC 9051 7.5.2: values of RFC 2231 in UTF-8; RFC 2231 6 for IMAP4rev1: only their sections are joined."""
        self.plant("cur/1.a.h:2,", b"Content-Type: application/x; baz*0=a; baz*1=b; foo*0*=iso-8859-1'de'%E4; foo*1*=%F6\r\n"
                   b"Content-Disposition: attachment; filename*=koi8-r''%C1; x*=utf-8''y\r\n\r\nx\r\n")
        old, c = self.raw(), self.rev2()
        before = b'("baz" "ab" "foo*" "iso-8859-1\'de\'%E4%F6")'
        for _ in range(2):  # made, and kept
            self.ask(old, b"SELECT INBOX")
            got = b"".join(self.ask(old, b"FETCH 1 BODYSTRUCTURE"))
            self.assertIn(before, got)
            self.assertIn(b'("filename*" "koi8-r\'\'%C1" "x*" "utf-8\'\'y")', got)
            self.ask(c, b"SELECT INBOX")
            got = b"".join(self.ask(c, b"FETCH 1 BODYSTRUCTURE"))
            self.assertRegex(got, rb'\("baz" "ab" "foo\*" ("|\{4\}\r\n)' + "\u00e4\u00f6".encode() + rb'"?\)')
            self.assertIn(b'("filename*" "koi8-r\'\'%C1" "x*" "y")', got)
            self.assertIn(b"\xc3\xa4\xc3\xb6", b"".join(self.ask(c, b"FETCH 1 BODY")))
            self.assertIn(before, b"".join(self.ask(old, b"FETCH 1 BODY")))

    def test_nothing_is_recent(self):
        c = self.rev2()
        self.ask(c, b"SELECT INBOX")
        self.plant("new/1.a.h")
        self.assertEqual(self.ask(c, b"NOOP"), [b"* 1 EXISTS\r\n"])
        self.assertEqual(self.ask(c, b"FETCH 1 FLAGS"), [b"* 1 FETCH (FLAGS ())\r\n"])
        old = self.raw()
        self.plant("new/2.a.h")
        self.assertIn(b"* 1 RECENT\r\n", self.ask(old, b"SELECT INBOX"))

    def test_search_answers_esearch(self):
        self.plant("cur/1.a.h:2,")
        self.plant("cur/2.a.h:2,S")
        c = self.rev2()
        self.ask(c, b"SELECT INBOX")
        self.assertEqual(self.ask(c, b"SEARCH ALL"), [b'* ESEARCH (TAG "q") ALL 1:2\r\n'])
        self.assertEqual(self.ask(c, b"SEARCH CHARSET UTF-8 UNSEEN"), [b'* ESEARCH (TAG "q") ALL 1\r\n'])
        self.assertEqual(self.ask(c, b'SEARCH TEXT "string not in mailbox"'), [b'* ESEARCH (TAG "q")\r\n'])
        self.assertEqual(self.ask(c, b"UID SEARCH SEEN"), [b'* ESEARCH (TAG "q") UID ALL 2\r\n'])
        self.assertEqual(self.ask(c, b"SEARCH RETURN (MIN COUNT) ALL"), [b'* ESEARCH (TAG "q") MIN 1 COUNT 2\r\n'])
        self.assertEqual(self.ask(c, "SEARCH SUBJECT \"gr\u00fc\"".encode()), [b'* ESEARCH (TAG "q") ALL 1:2\r\n'])
        self.no(c, b"SEARCH CHARSET KOI8-R ALL", b"BADCHARSET (US-ASCII UTF-8)")
        # 6.4.4.1 and the examples of 6.4.4.4
        self.assertEqual(self.ask(c, b"SEARCH RETURN (SAVE) SEEN"), [])
        self.assertEqual(self.ask(c, b"FETCH $ (UID)"), [b"* 2 FETCH (UID 2)\r\n"])
        self.assertEqual(self.ask(c, b"SEARCH NOT $"), [b'* ESEARCH (TAG "q") ALL 1\r\n'])
        self.assertEqual(self.ask(c, b"UID SEARCH RETURN (SAVE MIN MAX) ALL"), [b'* ESEARCH (TAG "q") UID MIN 1 MAX 2\r\n'])
        self.assertEqual(len(self.ask(c, b"UID FETCH $ (FLAGS)")), 2)
        self.no(c, b"SEARCH RETURN (SAVE) CHARSET X ALL", b"BADCHARSET (US-ASCII UTF-8)")
        self.assertEqual(self.ask(c, b"FETCH $ (UID)"), [])
        self.assertEqual(self.ask(c, b"SORT (ARRIVAL) UTF-8 ALL"), [b"* SORT 1 2\r\n"])

    def test_codes_of_section_7_1(self):
        self.plant("cur/1.a.h:2,")
        c = self.rev2(b"that", b"this")
        self.no(c, b"RENAME this that", b"ALREADYEXISTS")
        self.no(c, b"RENAME none other", b"NONEXISTENT")
        self.no(c, b"CREATE that", b"ALREADYEXISTS")
        self.no(c, b"CREATE INBOX", b"ALREADYEXISTS")
        self.no(c, b'CREATE "a..b"', b"CANNOT")
        self.no(c, b"DELETE none", b"NONEXISTENT")
        self.no(c, b"DELETE INBOX", b"CANNOT")
        self.no(c, b"SELECT none", b"NONEXISTENT")
        self.no(c, b"STATUS none (MESSAGES)", b"NONEXISTENT")
        self.no(c, b"APPEND none {3+}\r\nabc", b"TRYCREATE")
        self.ask(c, b"EXAMINE INBOX")
        self.no(c, b"COPY 1 none", b"TRYCREATE")
        self.no(c, b"STORE 1 FLAGS (\\Seen)", b"READ-ONLY")
        self.assertIn(b"q OK [READ-WRITE]", self.send(c, b"q SELECT INBOX")[-1])
        self.no(c, b"UID MOVE 1 none", b"TRYCREATE")
        self.assertRegex(self.send(c, b"q COPY 1 this")[-1], rb"q OK \[COPYUID \d+ 1 1\]")
        for i in range(26):
            self.ask(c, b"STORE 1 +FLAGS.SILENT (k%d)" % i)
        self.no(c, b"STORE 1 +FLAGS (one-more)", b"LIMIT")
        self.assertNotIn(b"\\*", b"".join(x for x in self.ask(c, b"SELECT this") if b"k1" in x))

    def test_rename_tells_the_old_name(self):
        c = self.rev2(b"old", b"old.below")
        self.assertEqual(self.ask(c, b"RENAME old new"), [b'* LIST () "." new ("OLDNAME" (old))\r\n'])
        self.assertEqual(len(self.ask(c, b'LIST "" "new*"')), 2)
        # 6.3.6: none of INBOX.
        self.assertEqual(self.ask(c, b"RENAME INBOX saved"), [])
        plain = self.raw()
        self.assertEqual(self.ask(plain, b"RENAME new newer"), [])

    def test_usual_keywords(self):
        c = self.rev2()
        flags = b"($Forwarded $Junk $MDNSent $NotJunk $Phishing)"
        self.ask(c, b"APPEND INBOX %s {6+}\r\na: b\r\n" % flags)
        self.ask(c, b"SELECT INBOX")
        self.assertEqual(sorted(self.ask(c, b"FETCH 1 FLAGS")[0][18:-4].split()), sorted(flags[1:-1].split()))

    def quoted(self, answer):
        """The quoted strings of an answer, literals passed over."""
        at = 0
        while m := re.compile(rb'"((?:\\.|[^"\\])*)"|\{(\d+)\}\r\n').search(answer, at):
            at = m.end() + int(m.group(2) or 0)
            if m.group(1):
                yield m.group(1)

    def test_messages_in_utf8(self):
        """RFC 6532: kept as they are; message/global has a structure as message/rfc822 has."""
        text = ("From: \u00c4nne <\u00e4nne@\u00fcber.example>\r\nSubject: gr\u00fc\u00dfe\r\nMIME-Version: 1.0\r\n"
                "Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: message/global\r\n\r\n"
                "Subject: \u00fc\r\n\r\ninner\r\n--b\r\nContent-Type: text/plain; name*0=\"a\"; name*1=\"b\"\r\n\r\nx\r\n"
                "--b--\r\n").encode()
        c = self.rev2()
        self.ask(c, b"APPEND INBOX ~{%d+}\r\n%s" % (len(text), text))
        self.ask(c, b"APPEND INBOX {%d+}\r\n%s" % (len(text), text))
        self.ask(c, b"SELECT INBOX")
        for n in (1, 2):
            got = b"".join(self.ask(c, b"FETCH %d (RFC822.SIZE BODY.PEEK[])" % n))
            self.assertIn(b"RFC822.SIZE %d BODY[] {%d}\r\n%s)" % (len(text), len(text), text), got)
        got = b"".join(self.ask(c, b"FETCH 1 (ENVELOPE BODYSTRUCTURE)"))
        self.assertIn("{5}\r\n\u00c4nne".encode(), got)
        self.assertIn("{7}\r\ngr\u00fc\u00dfe".encode(), got)
        self.assertRegex(got, b'\\("message" "global" NIL NIL NIL "7bit" 20 \\(NIL \\{2\\}\r\n\xc3\xbc NIL')
        self.assertIn(b'("text" "plain" ("name" "ab")', got)
        self.assertEqual(self.ask(c, "SEARCH FROM \"\u00e4nne@\u00fcber\" SUBJECT \"gr\u00fc\"".encode()),
                         [b'* ESEARCH (TAG "q") ALL 1:2\r\n'])
        # A client that has enabled nothing gets the same bytes, never in a quoted string (RFC 9051 A).
        old = self.raw()
        self.ask(old, b"SELECT INBOX")
        got = b"".join(self.ask(old, b"FETCH 1 (ENVELOPE BODYSTRUCTURE BODY.PEEK[HEADER.FIELDS (SUBJECT)])"))
        self.assertIn("Subject: gr\u00fc\u00dfe".encode(), got)
        self.assertTrue(all(max(x) < 0x80 for x in self.quoted(got)), got)

    def test_binary(self):
        self.plant("cur/1.a.h:2,", b"Content-Transfer-Encoding: base64\r\n\r\nAAEC/w==\r\n")
        c = self.rev2()
        self.ask(c, b"SELECT INBOX")
        self.assertEqual(b"".join(self.ask(c, b"FETCH 1 (BINARY.PEEK[1] BINARY.SIZE[1])")),
                         b"* 1 FETCH (BINARY[1] ~{4}\r\n\x00\x01\x02\xff BINARY.SIZE[1] 4)\r\n")

    def test_enable(self):
        c = self.raw()
        before = self.ask(c, b"CAPABILITY")
        self.assertEqual(self.ask(c, b"ENABLE X-UNKNOWN"), [b"* ENABLED\r\n"])
        self.assertEqual(self.ask(c, b"ENABLE utf8=accept imap4REV2 CONDSTORE")[:1],
                         [b"* ENABLED CONDSTORE UTF8=ACCEPT IMAP4rev2\r\n"])
        self.assertEqual(self.ask(c, b"CAPABILITY"), [before[0].replace(b"LITERAL+", b"LITERAL-")])
        self.bad(c, b"ENABLE")


class Utf8(Base):
    NAME, DECOMPOSED = "Entw\u00fcrfe", unicodedata.normalize("NFD", "Entw\u00fcrfe")

    def accept(self):
        c = self.raw()
        self.assertEqual(self.ask(c, b"ENABLE UTF8=ACCEPT"), [b"* ENABLED UTF8=ACCEPT\r\n"])
        return c

    def test_names(self):
        """In UTF-8 to who has enabled it, in modified UTF-7 to others; one folder."""
        c, old = self.accept(), self.raw()
        name = self.NAME.encode()
        self.ask(c, b'CREATE "%s"' % name)
        self.ask(c, b"CREATE {%d+}\r\n%s" % (len(name) + 4, name + b".a&b"))
        self.assertTrue(os.path.isdir(os.path.join(self.dir, ".Entw&APw-rfe.a&-b")))
        self.assertEqual(self.ask(c, b'LIST "" "%s*"' % name[:4]), [
            b'* LIST (\\HasChildren) "." "%s"\r\n' % name, b'* LIST (\\HasNoChildren) "." "%s.a&b"\r\n' % name])
        self.assertEqual(self.ask(c, b'LIST "%s." "%%"' % name), [b'* LIST (\\HasNoChildren) "." "%s.a&b"\r\n' % name])
        self.assertEqual(self.ask(old, b'LIST "" "Entw*"'), [
            b'* LIST (\\HasChildren) "." Entw&APw-rfe\r\n', b'* LIST (\\HasNoChildren) "." Entw&APw-rfe.a&-b\r\n'])
        self.assertEqual(self.ask(c, b'STATUS "%s" (MESSAGES)' % name), [b'* STATUS "%s" (MESSAGES 0)\r\n' % name])
        self.assertEqual(self.ask(c, b'GETQUOTAROOT "%s"' % name), [b'* QUOTAROOT "%s"\r\n' % name])
        self.ask(c, b'SUBSCRIBE "%s"' % name)
        self.assertEqual(self.ask(c, b'LSUB "" *'), [b'* LSUB () "." "%s"\r\n' % name])
        self.assertEqual(self.ask(c, b'LIST (SUBSCRIBED) "" *'), [b'* LIST (\\HasChildren \\Subscribed) "." "%s"\r\n' % name])
        self.assertEqual(self.ask(old, b'LSUB "" *'), [b'* LSUB () "." Entw&APw-rfe\r\n'])
        self.ask(c, b'APPEND "%s" {6+}\r\na: b\r\n' % name)
        self.ask(c, b'SELECT "%s"' % name)
        self.ask(c, b'COPY 1 "%s.a&b"' % name)
        self.ask(c, b'RENAME "%s.a&b" "\xe5\x8f\xb0\xe5\x8c\x97"' % name)
        self.assertIn(b"MESSAGES 1", self.ask(old, b"STATUS &U,BTFw- (MESSAGES)")[0])
        self.ask(c, b'DELETE "\xe5\x8f\xb0\xe5\x8c\x97"')

    def test_names_are_normalised(self):
        c = self.rev2()
        nfc, nfd = self.NAME.encode(), self.DECOMPOSED.encode()
        old = b'("OLDNAME" ("%s"))\r\n' % nfd
        self.assertEqual(self.ask(c, b'CREATE "%s"' % nfd), [b'* LIST () "." "%s" ' % nfc + old])
        self.assertIn(b'* LIST () "." "%s" ' % nfc + old, self.ask(c, b'SELECT "%s"' % nfd))
        self.assertIn(b'* LIST () "." "%s"\r\n' % nfc, self.ask(c, b'SELECT "%s"' % nfc))
        self.assertEqual(len(self.ask(c, b'LIST "" "%s"' % nfd)), 1)
        self.assertEqual(self.ask(c, b'RENAME "%s" x' % nfd), [b'* LIST () "." x ' + old])
        self.ask(c, b'RENAME x "%s"' % nfd)
        self.assertEqual(self.ask(c, b'DELETE "%s"' % nfd), [b'* LIST (\\NonExistent) "." "%s" ' % nfc + old])

    def test_names_that_are_none(self):
        c = self.accept()
        for bad in (b"\xff", b"a\xc3", b"\xed\xa0\x80", b"\xc2\x85", b"\xe2\x80\xa8", b"\xc0\xaf", b"a\x7f"):
            self.no(c, b'CREATE "%s"' % bad, b"CANNOT")
            self.no(c, b'SELECT "%s"' % bad, b"NONEXISTENT")
            self.ask(c, b'LIST "" "%s"' % bad)
        old = self.raw()
        for bad in (b"&AGE-", b"&U,BTFw-&ZeVnLIqe-", b"&Jjo!", b"&AOR-", '"\u00fc"'.encode()):
            self.no(old, b"CREATE " + bad, b"CANNOT")
        self.ask(old, b"CREATE x")
        self.no(old, b"RENAME x &AGE-", b"CANNOT")

    def test_a_foreign_folder_in_another_form(self):
        self.plant(".&AGE-/cur/1.a.h:2,")
        c = self.rev2()
        self.assertIn(b'* LIST (\\HasNoChildren) "." &AGE-\r\n', self.ask(c, b'LIST "" *'))
        self.assertIn(b"* 1 EXISTS\r\n", self.ask(c, b"SELECT &AGE-"))
        self.no(c, b"SELECT a", b"NONEXISTENT")

    def test_append_utf8(self):
        c = self.accept()
        text = "Subject: \u00fc\r\n\r\nx\r\n".encode()
        self.ask(c, b"APPEND INBOX (\\Seen) UTF8 (~{%d+}\r\n%s)" % (len(text), text))
        got = self.send(c, b"q APPEND INBOX UTF8 (~{%d+}\r\n%s) UTF8 (~{%d+}\r\n%s) {6+}\r\na: b\r\n"
                        % (len(text), text, len(text), text))
        self.assertRegex(got[-1], rb"q OK \[APPENDUID \d+ 2:4\]")
        for bad in (b"UTF8 ({%d+}\r\n%s)", b"UTF8 (~{%d+}\r\n%s", b"UTF8 (~{%d+}\r\n%s))", b"UTF8 (~{%d+}\r\n%s x"):
            self.bad(c, b"APPEND INBOX " + bad % (len(text), text))
        self.ask(c, b"SELECT INBOX")
        self.assertEqual(b"".join(self.ask(c, b"FETCH 1 BODY.PEEK[]")), b"* 1 FETCH (BODY[] {%d}\r\n%s)\r\n" % (len(text), text))
        self.bad(self.raw(), b"APPEND INBOX UTF8 (~{%d+}\r\n%s)" % (len(text), text))

    def test_charset_is_out_of_place(self):
        """RFC 9755 3"""
        self.plant("cur/1.a.h:2,")
        c = self.accept()
        self.ask(c, b"SELECT INBOX")
        self.bad(c, b"SEARCH CHARSET UTF-8 ALL")
        self.bad(c, b"SORT (DATE) KOI8-R ALL")
        self.assertEqual(self.ask(c, b"SORT (DATE) UTF-8 ALL"), [b"* SORT 1\r\n"])
        self.assertEqual(self.ask(c, "SEARCH SUBJECT \"gr\u00fc\u00df\"".encode()), [b"* SEARCH 1\r\n"])

    def test_everything_else_is_rev1(self):
        c = self.accept()
        self.assertIn(b"* 0 RECENT\r\n", self.ask(c, b"SELECT INBOX"))
        self.assertEqual(self.ask(c, b"SEARCH ALL"), [b"* SEARCH\r\n"])


class List(Base):
    def listed(self, c, command):
        """{name: (attributes, extended data)}"""
        out = {}
        for line in self.ask(c, command):
            m = re.fullmatch(rb'\* LIST \(([^)]*)\) "\." (\S+)(?: \((.*)\))?\r\n', line)
            if m:
                self.assertNotIn(m.group(2), out)
                out[m.group(2).decode()] = (set(m.group(1).decode().split()), (m.group(3) or b"").decode())
        return out

    CHILD = '"CHILDINFO" ("SUBSCRIBED")'

    def test_examples_of_the_rfc(self):
        """RFC 9051 6.3.9.8, 1 to 7"""
        c = self.rev2(b"Fruit", b"Fruit.Apple", b"Fruit.Banana", b"Tofu", b"Vegetable", b"Vegetable.Broccoli",
                      b"Vegetable.Corn")
        for name in (b"INBOX", b"Fruit.Banana", b"Fruit.Peach", b"Vegetable", b"Vegetable.Broccoli"):
            self.ask(c, b"SUBSCRIBE " + name)
        self.assertEqual(len(self.listed(c, b'LIST "" "*"')), 8)
        got = self.listed(c, b'LIST (SUBSCRIBED) "" "*"')
        self.assertEqual(sorted(got), ["Fruit.Banana", "Fruit.Peach", "INBOX", "Vegetable", "Vegetable.Broccoli"])
        self.assertLessEqual({"\\Subscribed", "\\NonExistent"}, got["Fruit.Peach"][0])
        self.assertNotIn("\\NonExistent", got["Vegetable"][0])
        got = self.listed(c, b'LIST () "" "%" RETURN (CHILDREN)')
        self.assertEqual({k: v[0] for k, v in got.items()},
                         {"INBOX": {"\\HasNoChildren"}, "Fruit": {"\\HasChildren"}, "Tofu": {"\\HasNoChildren"},
                          "Vegetable": {"\\HasChildren"}})
        self.assertEqual(sorted(self.listed(c, b'LIST (REMOTE) "" "%" RETURN (CHILDREN)')), sorted(got))
        got = self.listed(c, b'LIST (REMOTE) "" "*" RETURN (SUBSCRIBED)')
        self.assertEqual({k for k, v in got.items() if "\\Subscribed" in v[0]},
                         {"INBOX", "Fruit.Banana", "Vegetable", "Vegetable.Broccoli"})
        for bad in (b"(RECURSIVEMATCH)", b"(REMOTE RECURSIVEMATCH)", b"(NONSENSE)"):
            self.bad(c, b'LIST %s "" "%%"' % bad)
        self.assertEqual(self.listed(c, b'LIST (SUBSCRIBED) "" (Tofu "Fruit.%" "")').keys(), {"Fruit.Banana", "Fruit.Peach"})

    def test_examples_of_childinfo(self):
        """RFC 9051 6.3.9.8, 7 to 11"""
        c = self.rev2(b"Foo", b"Foo.Bar", b"Foo.Baz", b"Moo")
        everywhere, here = b'LIST (SUBSCRIBED RECURSIVEMATCH) "" "*"', b'LIST (SUBSCRIBED RECURSIVEMATCH) "" "%"'
        self.assertEqual(self.listed(c, here), {})
        self.ask(c, b"SUBSCRIBE Foo.Baz")
        self.assertEqual(self.listed(c, here), {"Foo": ({"\\HasChildren"}, self.CHILD)})
        self.assertEqual(self.listed(c, b'LIST (SUBSCRIBED) "" "%"'), {})
        self.assertEqual(self.listed(c, everywhere).keys(), {"Foo.Baz"})
        self.ask(c, b"SUBSCRIBE Foo")
        self.assertEqual(self.listed(c, here), {"Foo": ({"\\HasChildren", "\\Subscribed"}, self.CHILD)})
        self.assertEqual(self.listed(c, everywhere)["Foo"], ({"\\HasChildren", "\\Subscribed"}, self.CHILD))
        self.ask(c, b"UNSUBSCRIBE Foo.Baz")
        self.ask(c, b"SUBSCRIBE Moo")
        self.assertEqual(self.listed(c, here), {"Foo": ({"\\HasChildren", "\\Subscribed"}, ""),
                                                "Moo": ({"\\HasNoChildren", "\\Subscribed"}, "")})
        self.ask(c, b"SUBSCRIBE not.there.at.all")
        self.assertEqual(self.listed(c, here)["not"], ({"\\NonExistent", "\\HasChildren"}, self.CHILD))
        self.assertEqual(self.listed(c, b'LIST (SUBSCRIBED) "" "not*"').keys(), {"not.there.at.all"})
        lines = self.ask(c, here + b" RETURN (STATUS (MESSAGES))")
        self.assertEqual(sorted(x for x in lines if x.startswith(b"* STATUS")),
                         [b"* STATUS Foo (MESSAGES 0)\r\n", b"* STATUS Moo (MESSAGES 0)\r\n"])

    def test_example_8(self):
        c = self.rev2(b"foo2", b"foo2.bar1", b"foo2.bar2", b"baz2", b"baz2.bar2", b"baz2.bar22", b"baz2.bar222",
                      b"eps2", b"eps2.mamba", b"qux2.bar2")
        for name in b"foo2.bar1 foo2.bar2 baz2.bar2 baz2.bar22 baz2.bar222 eps2 eps2.mamba qux2.bar2".split():
            self.ask(c, b"SUBSCRIBE " + name)
        got = self.listed(c, b'LIST (RECURSIVEMATCH SUBSCRIBED) "" "*2"')
        self.assertEqual({k for k, v in got.items() if v[1]}, {"foo2", "eps2"})
        self.assertEqual(sorted(got), ["baz2.bar2", "baz2.bar22", "baz2.bar222", "eps2", "foo2", "foo2.bar2", "qux2.bar2"])
        self.assertEqual({k for k, v in got.items() if "\\Subscribed" not in v[0]}, {"foo2"})

    def test_special_use_below(self):
        c = self.rev2(b"a", b"a.x (USE (\\Sent))")
        self.assertEqual(self.listed(c, b'LIST (SPECIAL-USE RECURSIVEMATCH) "" "%"'),
                         {"a": ({"\\HasChildren"}, '"CHILDINFO" ("SPECIAL-USE")')})


if __name__ == "__main__":
    main("imapd-cell")
