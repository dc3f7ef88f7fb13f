#!/usr/bin/env python3
"""How IMAP, POP3 and Maildir programs have failed before (families G and K of the catalogue of failures): what became
of each here, with the name of its test; and the tests that had no other place."""
import glob
import importlib
import os
import re
import socket
import sys
import time
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from cell_harness import BIN, Cell, main  # noqa: E402
import test_imap_cell  # noqa: E402

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
MAIL = test_imap_cell.MAIL

# A test is "FILE.c name" (libcheck) or "FILE Class.test".
CATALOGUE = {
    "G1 NUL in a token": ["test_login.c imap_input_that_is_refused", "test_imap_cell Hostile.test_nul_and_bare_cr"],
    "G2 NUL in stored mail": ["test_imap_cell Hostile.test_nul_in_stored_mail"],
    "G3 memory by many parentheses": ["test_login.c imap_input_that_is_refused", "test_imap_catalogue G.test_parentheses"],
    "G4 literals announced": ["test_login.c imap_literals_up_to_the_limit", "test_imap_cell Hostile.test_literals",
                              "test_imap_catalogue G.test_ten_thousand_literals"],
    "G5 every prefix of every command": ["test_login.c imap_every_prefix", "test_imap_cell Hostile.test_prefixes_of_commands",
                                         "test_imap_catalogue G.test_prefixes"],
    "G7 nested SEARCH": ["test_imap_cell Hostile.test_nesting"],
    "G8 sequence sets": ["test_imap_cell Hostile.test_sequence_sets", "test_icell.c sequence_sets"],
    "G9 LIST wildcards": ["test_imap_cell Hostile.test_list_pattern", "test_folder.c patterns_take_linear_time"],
    "G10 deep and wide MIME": ["test_imap_cell Hostile.test_deep_and_wide_mime", "test_mime.c depth_has_a_ceiling"],
    "G11 many addresses, huge headers": ["test_imap_cell Hostile.test_many_addresses_and_a_long_header",
                                         "test_imap_catalogue G.test_headers_in_little_memory"],
    "G13 summaries of odd mail": ["test_imap_more Preview.test_texts", "test_icell.c previews_changed",
                                  "test_imap_cell Hostile.test_many_addresses_and_a_long_header"],
    "G14 state of a hibernated session": ["test_imap_park.c states_that_are_none", "test_imap_park.c tokens_of_authd"],
    "G15 degenerate arguments": ["test_imap_catalogue G.test_degenerate", "test_pop3_cell Pop3.test_bad_input"],
    "G16 a literal as SASL response": ["test_login.c imap_input_that_is_refused"],
    "G17 Sieve": None,
    "G19 server-side rules": None,
    "G20 messages that reply to themselves": ["test_imap_sort Thread.test_loops", "test_thread.c trees_of_many"],
    "G21 collisions in hash tables": ["test_imap_catalogue G.test_keywords_have_a_ceiling", "test_thread.c identifiers"],
    "G22 COMPRESS bombs": ["test_imap_more Compress.test_bomb"],
    "G23 changed under the reader": ["test_imap_cell Works.test_two_sessions", "test_mailbox.c lost_uid_file_keeps_validity_and_jumps",
                                     "test_imap_extensions Many.test_eight_sessions_and_a_foreign_program"],
    "G25 UIDL that changes": ["test_imap_catalogue G.test_uidl_of_ten_thousand", "test_pop3_cell Pop3.test_uidl_of_odd_names"],
    "G26 APPEND cut off": ["test_imap_cell Hostile.test_append_cut_leaves_nothing", "test_imap_more Multiappend.test_cut_off"],
    "G27 more idle sessions than inotify has": ["test_imap_catalogue G.test_idle_without_inotify"],
    "K1 names from user data": ["test_mailbox.c delivery_refuses_what_is_no_base", "test_mailbox.c names_are_taken_apart"],
    "K2 hostile content": ["test_imap_cell Hostile.test_planted_things", "test_mailbox.c hostile_content_is_passed_over",
                           "test_imap_catalogue K.test_odd_names"],
    "K3 names of folders": ["test_imap_cell Works.test_folders", "test_folder.c names_that_can_be_folders",
                            "test_imap_catalogue K.test_names_of_folders"],
    "K4 two who move new mail": ["test_imap_extensions Many.test_eight_sessions_and_a_foreign_program",
                                 "test_mailbox.c many_at_once_get_different_uids"],
    "K5 a uidlist cut by a crash": ["test_mailbox.c torn_uid_file_counts_as_lost", "test_store.c death_at_each_call",
                                    "test_store.c a_full_disk_from_each_call_on"],
}


class Table(unittest.TestCase):
    def test_each_entry_has_its_tests(self):
        for entry, tests in CATALOGUE.items():
            for test in tests or []:
                where, name = test.split()
                if where.endswith(".c"):
                    with open(os.path.join(ROOT, "tests", "unit", where)) as f:
                        self.assertIn(f"START_TEST({name})", f.read(), entry)
                    continue
                cls, _, function = name.partition(".")
                self.assertTrue(callable(getattr(getattr(importlib.import_module(where), cls), function)), entry)


class Base(test_imap_cell.Base):
    def ask(self, c, line):
        got = self.send(c, b"q " + line)
        self.assertIn(b"q OK", got[-1], line)
        return got[:-1]

    def memory_kb(self, c, what="VmHWM"):
        with open("/proc/%d/status" % c.process.pid) as f:
            return int(re.search(what + r":\s+(\d+)", f.read()).group(1))


class G(Base):
    def test_parentheses(self):
        self.plant("cur/1.a.h:2,")
        c = self.raw()
        self.ask(c, b"SELECT INBOX")
        self.ask(c, b"FETCH 1 (ENVELOPE)")
        before = self.memory_kb(c)
        for junk in (b"(" * 65000, b")" * 65000, b"()" * 32500):
            for command in (b"FETCH 1 ", b"SEARCH ", b"LIST ", b"STORE 1 FLAGS ", b"STATUS INBOX "):
                self.assertIn(b"a BAD", self.send(c, b"a " + command + junk)[-1])
            self.ask(c, b"NOOP")
        for junk in (b"(" * 1000000, b"()" * 500000):
            self.assertIn(b"* BAD", self.send(c, b"a FETCH 1 " + junk, b"*")[-1])
        self.ask(c, b"NOOP")
        self.assertLess(self.memory_kb(c) - before, 1024 if "asan" not in BIN else 200000)

    def test_ten_thousand_literals(self):
        c = self.raw()
        sent = b"".join(b"a STATUS {5+}\r\nINBOX (MESSAGES)\r\n" for _ in range(10000)) + b"b NOOP\r\n"
        done = 0

        # Both ways at once: neither side may wait for the other for ever.
        c.sock.setblocking(False)
        got = b""
        end = time.monotonic() + 60
        while b"b OK" not in got and time.monotonic() < end:
            try:
                done += c.sock.send(sent[done:done + 65536]) if done < len(sent) else 0
            except BlockingIOError:
                pass
            try:
                got += c.sock.recv(1 << 20)
            except BlockingIOError:
                time.sleep(0.001)
        self.assertEqual(got.count(b"a OK"), 10000)
        c.sock.settimeout(20)

    def test_prefixes(self):
        """Of every command of the fuzzer's seeds, on a session that goes on."""
        self.plant("cur/1.a.h:2,")
        lines = set()
        for path in glob.glob(os.path.join(ROOT, "tests/fuzz/seeds/imap_command/*")):
            with open(path, "rb") as f:
                lines.update(x.split(b" ", 1)[1] for x in f.read().split(b"\r\n")
                             if re.match(rb"[a-z] [A-Z]", x) and not re.search(rb"LOGOUT|IDLE|\{", x))
        self.assertGreater(len(lines), 25)
        c, n = self.raw(), 0
        for line in sorted(lines):
            for k in range(len(line) + 1):
                n += 1
                self.assertRegex(self.send(c, b"p%d %s" % (n, line[:k]))[-1], rb"^p\d+ (OK|NO|BAD) ", line[:k])
                if n % 10 == 0:
                    self.send(c, b"n%d NOOP" % n)
            self.send(c, b"s%d SELECT INBOX" % n)

    def test_headers_in_little_memory(self):
        self.plant("cur/1.a.h:2,", b"To: a@b\r\n" * 500000 + b"\r\nx")
        self.plant("cur/2.b.h:2,", b"Subject: " + b"y" * (100 << 20) + b"\r\n\r\nx")
        c = self.raw()
        self.ask(c, b"SELECT INBOX")
        begin = time.monotonic()
        self.ask(c, b"FETCH 1:2 (ENVELOPE BODYSTRUCTURE RFC822.SIZE)")
        self.ask(c, b"SEARCH SUBJECT z")
        self.assertLess(time.monotonic() - begin, 5)
        if "asan" not in BIN:
            self.assertLess(self.memory_kb(c), 32768)

    def test_degenerate(self):
        c = self.raw()
        for word in (b"NOOP", b"CAPABILITY", b"LOGOUT", b"CHECK", b"NAMESPACE", b"IDLE", b"CLOSE"):
            self.assertIn(b"a BAD", self.send(c, b"a " + word + b" junk")[-1])
            self.ask(c, b"NOOP")
        try:
            c.sock.sendall(b"\r\n" * 100000)
        except (BrokenPipeError, ConnectionResetError):
            pass
        self.assertEqual(c.process.wait(20), 0)

    def test_keywords_have_a_ceiling(self):
        self.plant("cur/1.a.h:2,")
        c = self.raw()
        self.ask(c, b"SELECT INBOX")
        begin = time.monotonic()
        for i in range(0, 2000, 20):
            self.send(c, b"a STORE 1 +FLAGS.SILENT (%s)" % b" ".join(b"k%d" % k for k in range(i, i + 20)))
        self.assertLess(time.monotonic() - begin, 5)
        self.assertLessEqual(len(self.ask(c, b"FETCH 1 FLAGS")[0].split()), 26 + 6)

    def uidl(self):
        c = Cell("pop3d-cell", maildir=self.dir, tag="")
        c.sock.sendall(b"UIDL\r\nQUIT\r\n")
        rows = c.file.read().split(b"\r\n")
        self.assertEqual(c.close(), 0)
        return [x.split(b" ")[1] for x in rows if re.match(rb"\d+ ", x)]

    def test_uidl_of_ten_thousand(self):
        for i in range(10000):
            self.plant("new/%d.m%d.h" % (100000 + i, i), b"x\n")
        first = self.uidl()
        self.assertEqual(len(set(first)), 10000)
        c = self.raw()
        self.ask(c, b"SELECT INBOX")
        self.ask(c, b"STORE 1:5000 +FLAGS.SILENT (\\Seen $k)")
        self.ask(c, b"STORE 2000:7000 +FLAGS.SILENT (\\Flagged)")
        self.ask(c, b"UNSELECT")
        self.assertEqual(self.uidl(), first)
        os.unlink(os.path.join(self.dir, "bulkhead.index"))
        self.assertEqual(self.uidl(), first)

    def test_idle_without_inotify(self):
        """More sessions than the user has inotify descriptors: all hear of new mail within half a minute."""
        with open("/proc/sys/fs/inotify/max_user_instances") as f:
            limit = int(f.read())
        if limit > 1000 or "asan" in BIN:
            limit = 20  # then there are enough for all
        cells = [self.raw() for _ in range(limit + 12)]
        for c in cells:
            c.sock.sendall(b"a SELECT INBOX\r\nb IDLE\r\n")
        for c in cells:
            while not c.file.readline().startswith(b"+"):
                pass
        self.plant("tmp/9.a.h")
        os.rename(os.path.join(self.dir, "tmp/9.a.h"), os.path.join(self.dir, "new/9.a.h"))
        begin = time.monotonic()
        for c in cells:
            c.sock.settimeout(40)
            self.assertEqual(c.file.readline(), b"* 1 EXISTS\r\n")
        self.assertLess(time.monotonic() - begin, 30)


class K(Base):
    def test_odd_names(self):
        os.makedirs(os.path.join(self.dir, "cur"))
        cur = os.path.join(self.dir, "cur")
        for name in ("x:2,\nS", "1.a:2,\x01\x02S", "2.b:2,SSSSFFFF~~", "3.c:3,experimental", "4.d:2,S:2,F", ",:", ":2,S",
                     "5." + "e" * 250):
            with open(os.path.join(cur, name), "wb") as f:
                f.write(MAIL)
        with open(os.path.join(cur, "6.closed:2,"), "wb") as f:
            f.write(MAIL)
        os.chmod(os.path.join(cur, "6.closed:2,"), 0)
        os.mkdir(os.path.join(cur, "7.directory:2,"))
        s = socket.socket(socket.AF_UNIX)
        s.bind(os.path.join(cur, "8.socket"))
        c = self.raw()
        got = self.send(c, b"a SELECT INBOX")
        self.assertIn(b"a OK", got[-1])
        n = int(re.search(rb"\* (\d+) EXISTS", b"".join(got)).group(1))
        begin = time.monotonic()
        self.assertTrue(self.send(c, b"b FETCH 1:* (FLAGS RFC822.SIZE)")[-1].startswith((b"b OK", b"b NO")))
        self.assertLess(time.monotonic() - begin, 2)
        self.assertLess(n, 10)
        for name in os.listdir(cur):
            self.assertFalse(re.search(r"U=\d.*[\x00-\x1f]", name), name)
        s.close()

    def test_names_of_folders(self):
        c = self.raw()
        for name in (b"a..b", b'"a/"', b'"."', b'".."', b'"/"', b'"../x"', b".".join([b"a"] * 256), b'"a\\\\b"', b'"tmp/x"',
                     b"x" * 201, b'".x"', b'"INBOX"'):
            self.assertIn(b"q NO", self.send(c, b"q CREATE " + name)[-1], name)
        self.assertIn(b"q BAD", self.send(c, b'q CREATE "a\0b"')[-1])
        self.assertIn(b"q BAD", self.send(c, b"q CREATE {3+}\r\na\0b", b"q")[-1])
        self.ask(c, b"CREATE " + b"x" * 200)
        self.ask(c, b"CREATE " + b".".join([b"a"] * 32))
        self.assertEqual(len([x for x in os.listdir(self.dir) if x.startswith(".")]), 2)


if __name__ == "__main__":
    main("imapd-cell")
