#!/usr/bin/env python3
"""The extensions imapd-cell advertises, each in a conversation; and many processes on one Maildir."""
import os
import re
import resource
import sys
import threading
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from cell_harness import BIN, main  # noqa: E402
import test_imap_cell  # noqa: E402

MAIL = b"From: %s\r\nSubject: %s\r\nDate: Fri, 21 Nov 2025 09:%02d:06 +0000\r\nMessage-ID: <%d@x>\r\n\r\nbody %d\r\n"


class Base(test_imap_cell.Base):
    def fill(self, n=5):
        for i in range(1, n + 1):
            self.plant("cur/%d.m%d.h:2," % (1000 + i, i), MAIL % (b"a%d@b" % i, b"s%d" % i, i, i, i))

    def session(self, *commands):
        c = self.raw()
        for k, command in enumerate(commands):
            got = self.send(c, b"s%d %s" % (k, command))
            self.assertIn(b"s%d OK" % k, got[-1], command)
        return c

    def number(self, lines, what):
        found = re.search(what + rb" (\d+)", b"".join(lines))
        self.assertTrue(found, lines)
        return int(found.group(1))


class Search(Base):
    def test_esearch(self):
        self.fill()
        c = self.session(b"SELECT INBOX")
        got = self.send(c, b"a SEARCH RETURN (MIN MAX COUNT ALL) 2:4")
        self.assertEqual(got[0], b'* ESEARCH (TAG "a") MIN 2 MAX 4 COUNT 3 ALL 2:4\r\n')
        self.assertEqual(self.send(c, b"b SEARCH RETURN () SUBJECT s3")[0], b'* ESEARCH (TAG "b") ALL 3\r\n')
        self.assertEqual(self.send(c, b"c UID SEARCH RETURN (COUNT) SUBJECT nothing")[0],
                         b'* ESEARCH (TAG "c") UID COUNT 0\r\n')
        self.assertIn(b"d BAD", self.send(c, b"d SEARCH RETURN (NONSENSE) ALL")[-1])

    def test_searchres(self):
        self.fill()
        c = self.session(b"SELECT INBOX")
        self.assertEqual(len(self.send(c, b"a SEARCH RETURN (SAVE) OR SUBJECT s2 SUBJECT s4")), 1)
        self.assertEqual(len(self.send(c, b"b FETCH $ (UID)")), 3)
        self.assertEqual(self.send(c, b"c SEARCH $ SUBJECT s4")[0], b"* SEARCH 4\r\n")
        self.assertIn(b"d OK", self.send(c, b"d STORE $ +FLAGS.SILENT (\\Deleted)")[-1])
        self.assertEqual(len(self.send(c, b"e EXPUNGE")), 3)
        self.assertEqual(len(self.send(c, b"f FETCH $ (UID)")), 1)
        self.send(c, b"g SEARCH RETURN (SAVE MIN) ALL")
        self.assertEqual(len(self.send(c, b"h FETCH $ (UID)")), 2)
        self.send(c, b"i SELECT INBOX")
        self.assertEqual(len(self.send(c, b"j FETCH $ (UID)")), 1)

    def test_within_and_savedate(self):
        self.fill(1)
        c = self.session(b"SELECT INBOX")
        self.assertEqual(self.send(c, b"a SEARCH YOUNGER 3600")[0], b"* SEARCH 1\r\n")
        self.assertEqual(self.send(c, b"b SEARCH OLDER 3600")[0], b"* SEARCH\r\n")
        self.assertEqual(self.send(c, b"c SEARCH SAVEDBEFORE 1-Jan-1971")[0], b"* SEARCH 1\r\n")
        self.assertIn(b'SAVEDATE " 1-Jan-1970 00:16:41 +0000"', self.send(c, b"d FETCH 1 SAVEDATE")[0])


class Condstore(Base):
    def test_modseq_grows_and_is_told(self):
        self.fill()
        c = self.raw()
        first = self.number(self.send(c, b"a SELECT INBOX (CONDSTORE)"), b"HIGHESTMODSEQ")
        got = self.send(c, b"b STORE 2 +FLAGS.SILENT (\\Seen)")
        second = int(
            re.search(rb"MODSEQ \((\d+)\)", got[0]).group(1))
        self.assertGreater(second, first)
        got = self.send(c, b"c FETCH 1:* (FLAGS) (CHANGEDSINCE %d)" % first)
        self.assertEqual(len(got), 2)
        self.assertIn(b"MODSEQ (%d)" % second, got[0])
        self.assertEqual(self.number(self.send(c, b"d STATUS INBOX (HIGHESTMODSEQ)"), b"HIGHESTMODSEQ"), second)
        self.assertEqual(self.send(c, b"e SEARCH MODSEQ %d" % second)[0], b"* SEARCH 2 (MODSEQ %d)\r\n" % second)
        self.assertEqual(self.send(c, b'f SEARCH MODSEQ "/flags/\\\\Seen" all %d' % second)[0],
                         b"* SEARCH 2 (MODSEQ %d)\r\n" % second)

    def test_conditional_store(self):
        self.fill()
        a, b = self.session(b"SELECT INBOX"), self.raw()
        before = self.number(self.send(b, b"x SELECT INBOX"), b"HIGHESTMODSEQ")
        self.send(a, b"a STORE 3 +FLAGS (\\Flagged)")
        got = self.send(b, b"b UID STORE 1:4 (UNCHANGEDSINCE %d) +FLAGS.SILENT (\\Deleted)" % before)
        self.assertIn(b"b OK [MODIFIED 3]", got[-1])
        self.assertEqual(self.send(b, b"c SEARCH DELETED")[0], b"* SEARCH 1:2 4\r\n".replace(b"1:2", b"1 2"))

    def test_qresync(self):
        self.fill(8)
        c = self.session(b"ENABLE QRESYNC", b"SELECT INBOX")
        got = self.send(c, b"a SELECT INBOX")
        self.assertIn(b"* OK [CLOSED]", got[0])
        modseq, validity = self.number(got, b"HIGHESTMODSEQ"), self.number(got, b"UIDVALIDITY")
        self.send(c, b"b STORE 2,3,7 +FLAGS.SILENT (\\Deleted)")
        got = self.send(c, b"c EXPUNGE")
        self.assertEqual(got[0], b"* VANISHED 2:3,7\r\n")
        self.assertIn(b"c OK [HIGHESTMODSEQ ", got[-1])
        self.send(c, b"d STORE 1 +FLAGS (\\Seen)")
        d = self.session(b"ENABLE QRESYNC")
        got = self.send(d, b"e SELECT INBOX (QRESYNC (%d %d))" % (validity, modseq))
        self.assertIn(b"* VANISHED (EARLIER) 2:3,7\r\n", got)
        self.assertTrue(any(re.match(rb"\* 1 FETCH \(UID 1 FLAGS \(\\Seen\) MODSEQ", x) for x in got))
        self.assertFalse(any(b"UID 4 " in x for x in got))
        got = self.send(d, b"f SELECT INBOX (QRESYNC (%d %d 3:5 (1:2 3:4)))" % (validity, modseq))
        self.assertIn(b"* VANISHED (EARLIER) 3\r\n", got)
        self.assertFalse(any(b"FETCH" in x for x in got))
        got = self.send(d, b"g UID FETCH 1:* (FLAGS) (CHANGEDSINCE %d VANISHED)" % modseq)
        self.assertEqual(got[0], b"* VANISHED (EARLIER) 2:3,7\r\n")
        # The list is lost with the index: all that is not there is named, and no more.
        os.unlink(os.path.join(self.dir, "bulkhead.index"))
        e = self.session(b"ENABLE QRESYNC")
        got = self.send(e, b"h SELECT INBOX (QRESYNC (%d %d 1:8))" % (validity, modseq))
        self.assertIn(b"* VANISHED (EARLIER) 2:3,7\r\n", got)
        self.assertEqual(len([x for x in got if b"FETCH" in x]), 5)
        self.assertGreater(self.number(got, b"HIGHESTMODSEQ"), modseq)
        # Without ENABLE it is an error, and another UIDVALIDITY says nothing.
        f = self.raw()
        self.assertIn(b"i BAD", self.send(f, b"i SELECT INBOX (QRESYNC (%d %d))" % (validity, modseq))[-1])
        got = self.send(e, b"j SELECT INBOX (QRESYNC (%d %d))" % (validity + 1, modseq))
        self.assertFalse(any(b"VANISHED" in x for x in got))

    def test_changes_of_others_carry_modseq(self):
        self.fill(3)
        a, b = self.session(b"ENABLE QRESYNC", b"SELECT INBOX"), self.session(b"SELECT INBOX")
        self.send(b, b"a STORE 1 +FLAGS (\\Deleted \\Seen)")
        self.assertRegex(self.send(a, b"b NOOP")[0], rb"\* 1 FETCH \(UID 1 FLAGS \(\\Deleted \\Seen\) MODSEQ \(\d+\)\)")
        self.send(b, b"c EXPUNGE")
        self.assertEqual(self.send(a, b"d NOOP")[0], b"* VANISHED 1\r\n")


class Move(Base):
    def test_move(self):
        self.fill(4)
        c = self.session(b"CREATE To", b"SELECT INBOX")
        got = self.send(c, b"a MOVE 2:3 To")
        self.assertRegex(got[0], rb"\* OK \[COPYUID \d+ 2:3 1:2\]")
        self.assertEqual(got[1:3], [b"* 3 EXPUNGE\r\n", b"* 2 EXPUNGE\r\n"])
        self.assertIn(b"MESSAGES 2", self.send(c, b"b STATUS To (MESSAGES)")[0])
        self.assertIn(b"[TRYCREATE]", self.send(c, b"c MOVE 1 Nowhere")[-1])
        self.assertIn(b"MESSAGES 2", self.send(c, b"d STATUS INBOX (MESSAGES)")[0])
        self.send(c, b"e EXAMINE INBOX")
        self.assertIn(b"f NO [READ-ONLY]", self.send(c, b"f UID MOVE 1 To")[-1])


class List(Base):
    def test_list_extended(self):
        self.fill(2)
        c = self.session(b"CREATE a", b"CREATE a.b", b"CREATE c", b"SUBSCRIBE a.b", b"SUBSCRIBE gone", b"SUBSCRIBE c")
        got = self.send(c, b'a LIST (SUBSCRIBED) "" "*"')
        self.assertEqual(sorted(got[:-1]), [b'* LIST (\\HasNoChildren \\Subscribed) "." a.b\r\n',
                                            b'* LIST (\\HasNoChildren \\Subscribed) "." c\r\n',
                                            b'* LIST (\\NonExistent \\HasNoChildren \\Subscribed) "." gone\r\n'])
        got = self.send(c, b'b LIST (SUBSCRIBED RECURSIVEMATCH) "" "%"')
        self.assertIn(b'* LIST (\\HasChildren) "." a ("CHILDINFO" ("SUBSCRIBED"))\r\n', got)
        self.assertIn(b"c BAD", self.send(c, b'c LIST (RECURSIVEMATCH) "" "%"')[-1])
        got = self.send(c, b'd LIST "" (INBOX c) RETURN (SUBSCRIBED CHILDREN)')
        self.assertEqual(got[:-1], [b'* LIST (\\HasNoChildren) "." INBOX\r\n',
                                    b'* LIST (\\HasNoChildren \\Subscribed) "." c\r\n'])
        got = self.send(c, b'e LIST "" "%" RETURN (STATUS (MESSAGES SIZE HIGHESTMODSEQ MAILBOXID))')
        size = sum(len(MAIL % (b"a%d@b" % i, b"s%d" % i, i, i, i)) for i in (1, 2))
        self.assertRegex(got[1], rb"\* STATUS INBOX \(MESSAGES 2 SIZE %d HIGHESTMODSEQ \d+ MAILBOXID \(F\d+\)\)" % size)
        self.assertIn(b'f OK', self.send(c, b'f LIST () "" "%" RETURN ()')[-1])

    def test_many_subscribed_that_are_not_there(self):
        """A limit of processor time, which comparing each name with each exceeds by far."""
        levels = b".".join([b"x"] * 29)
        self.plant("subscriptions", b"".join(b"n%05d.%s\n" % (i, levels) for i in range(9999)))
        c = self.session(b"CREATE a.b", b"SUBSCRIBE a")
        resource.prlimit(self.cells[-1].process.pid, resource.RLIMIT_CPU, (20, 20))
        got = self.send(c, b'a LIST (SUBSCRIBED RECURSIVEMATCH) "" "%"')
        self.assertIn(b"a OK", got[-1])
        self.assertEqual(got[0], b'* LIST (\\NonExistent \\HasChildren \\Subscribed) "." a\r\n')
        self.assertEqual(len(got), 10001)
        self.assertEqual(got[-2], b'* LIST (\\NonExistent \\HasChildren) "." n09998 ("CHILDINFO" ("SUBSCRIBED"))\r\n')
        self.assertEqual(len(self.send(c, b'b LSUB "" "%"')), 10001)

    def test_lsub_says_each_once(self):
        """'-' sorts before the separator, so another stands between a folder and those below it."""
        c = self.session(*(b"SUBSCRIBE " + name for name in (b"INBOX", b"INBOX.x", b"a", b"a-b", b"a.x", b"c.x-y", b"c.x", b"c.x.z", b"d.x")))
        self.assertEqual(self.send(c, b'a LSUB "" "%"')[:-1],
                         [b'* LSUB () "." INBOX\r\n', b'* LSUB () "." a\r\n', b'* LSUB () "." a-b\r\n', b'* LSUB (\\Noselect) "." c\r\n',
                          b'* LSUB (\\Noselect) "." d\r\n'])
        self.assertEqual(self.send(c, b'b LSUB "" "c.%"')[:-1],
                         [b'* LSUB () "." c.x\r\n', b'* LSUB () "." c.x-y\r\n'])

    def test_special_use(self):
        c = self.session(b"CREATE Sent", b"CREATE Elsewhere (USE (\\Drafts))", b"CREATE plain")
        got = self.send(c, b'a LIST "" "*"')
        self.assertIn(b'* LIST (\\HasNoChildren \\Sent) "." Sent\r\n', got)
        self.assertIn(b'* LIST (\\HasNoChildren \\Drafts) "." Elsewhere\r\n', got)
        self.send(c, b"b RENAME Elsewhere New")
        got = self.send(c, b'c LIST (SPECIAL-USE) "" "*" RETURN (SPECIAL-USE)')
        self.assertEqual(sorted(got[:-1]), [b'* LIST (\\HasNoChildren \\Drafts) "." New\r\n',
                                            b'* LIST (\\HasNoChildren \\Sent) "." Sent\r\n'])
        self.assertIn(b"d NO [USEATTR]", self.send(c, b"d CREATE x (USE (\\Flagged))")[-1])
        self.assertIn(b"e BAD", self.send(c, b"e CREATE x (USE \\Sent)")[-1])


class Others(Base):
    def test_enable_id_unselect(self):
        self.fill(1)
        c = self.session(b"ENABLE CONDSTORE X-UNKNOWN", b'ID ("name" "x" "version" NIL)', b"ID NIL", b"SELECT INBOX",
                         b"UNSELECT")
        self.assertIn(b"a BAD", self.send(c, b"a FETCH 1 UID")[-1])
        self.assertIn(b"b BAD", self.send(c, b"b ENABLE")[-1])
        self.assertIn(b"c BAD", self.send(c, b"c ID (x y)")[-1])

    def test_large_message_comes_in_pieces(self):
        body = b"".join(b"line %d of it\n" % i for i in range(400000))
        self.plant("cur/1.a.h:2,", b"Subject: x\nContent-Type: multipart/mixed; boundary=b\n\n--b\n\n" + body + b"\n--b--\n")
        crlf = body.replace(b"\n", b"\r\n")
        c = self.session(b"SELECT INBOX")
        got = self.send(c, b"a FETCH 1 (BODY.PEEK[1] RFC822.SIZE)")
        self.assertIn(b"{%d}\r\n" % len(crlf), got[0])
        self.assertEqual(b"".join(got)[got[0].index(b"\r\n") + 2:][:len(crlf)], crlf)
        got = self.send(c, b"b FETCH 1 BODY.PEEK[1]<%d.50>" % (len(crlf) - 30))
        self.assertIn(crlf[-30:], b"".join(got))
        status = open("/proc/%d/status" % c.process.pid).read()
        self.assertLess(int(re.search(r"VmHWM:\s+(\d+)", status).group(1)), 12000 + (60000 if "asan" in BIN else 0))

    def test_what_is_kept_is_what_is_read(self):
        self.fill(20)
        self.plant("cur/999.m.h:2,", test_imap_cell.MULTI)
        items = (b"(ENVELOPE BODY BODYSTRUCTURE INTERNALDATE RFC822.SIZE BODY.PEEK[HEADER.FIELDS (SUBJECT From X-No)] "
                 b"BODY.PEEK[HEADER.FIELDS (DATE)]<3.9>)")
        first = self.send(self.session(b"SELECT INBOX"), b"a FETCH 1:* " + items)
        for c in self.cells:
            c.close()
        self.cells = []
        again = self.send(self.session(b"SELECT INBOX"), b"a FETCH 1:* " + items)
        self.assertEqual(first, again)
        os.unlink(os.path.join(self.dir, "bulkhead.cache"))
        self.assertEqual(first, self.send(self.session(b"SELECT INBOX"), b"a FETCH 1:* " + items))


class Many(Base):
    def test_eight_sessions_and_a_foreign_program(self):
        """No UID twice, no message lost, no answer out of date at the end."""
        self.fill(10)
        self.session(b"SELECT INBOX")
        errors, appended = [], []

        def work(k):
            try:
                c = self.session(b"ENABLE QRESYNC", b"SELECT INBOX")
                for i in range(15):
                    text = MAIL % (b"a@b", b"k%d.%d" % (k, i), i, k * 100 + i, i)
                    got = self.send(c, b"a APPEND INBOX {%d+}\r\n%s" % (len(text), text))
                    appended.append(int(re.search(rb"APPENDUID \d+ (\d+)", got[-1]).group(1)))
                    self.send(c, b"b STORE 1:3 %sFLAGS.SILENT (\\Flagged)" % (b"-" if i % 2 else b"+"))
                    uid = int(re.search(rb"APPENDUID \d+ (\d+)", got[-1]).group(1))
                    got = self.send(c, b"c UID STORE %d +FLAGS (\\Deleted)" % uid if i % 5 == 4 else b"c NOOP")
                    self.assertIn(b"c OK", got[-1])
                    self.assertIn(b"d OK", self.send(c, b"d EXPUNGE" if i % 5 == 4 else b"d NOOP")[-1])
            except Exception as e:
                errors.append(repr(e))

        threads = [threading.Thread(target=work, args=(k,)) for k in range(8)]
        for t in threads:
            t.start()
        for i in range(60):
            self.plant("new/%d.f%d.h" % (5000 + i, i), b"Subject: foreign %d\n\nx\n" % i)
        for t in threads:
            t.join()
        self.assertEqual(errors, [])
        self.assertEqual(len(appended), len(set(appended)))
        c = self.session(b"SELECT INBOX")
        got = self.send(c, b"a UID FETCH 1:* (FLAGS BODY.PEEK[HEADER.FIELDS (SUBJECT)])")
        subjects = re.findall(rb"Subject: (\S+(?: \d+)?)\r", b"".join(got))
        self.assertEqual(len(subjects), len(set(subjects)))
        self.assertEqual(len(subjects), 10 + 60 + 8 * 12)
        os.unlink(os.path.join(self.dir, "bulkhead.index"))
        d = self.session(b"SELECT INBOX")
        strip = [re.sub(rb"\\Recent ?", b"", x) for x in got]
        self.assertEqual(strip, self.send(d, b"a UID FETCH 1:* (FLAGS BODY.PEEK[HEADER.FIELDS (SUBJECT)])"))


if __name__ == "__main__":
    main("imapd-cell")
