#!/usr/bin/env python3
"""Parked sessions with the whole suite: put away, woken by mail, by DONE, by half a command and by the client's end;
idled and authd killed; a thousand at once, and what they cost. TLS as well."""
import array
import os
import re
import socket
import ssl
import struct
import sys
import threading
import time
import signal

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from harness import Report, Suite, sanitized, wait_for  # noqa: E402
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from cell_harness import KIND_U64, Cell, frame, text  # noqa: E402

REPORT = Report()
TLS = ssl._create_unverified_context()
SANITIZED = sanitized()
ACCOUNTS = 10 if not SANITIZED else 2
# Of an account: inotify has 128 for a user. A thousand in all with --all.
MANY = (1000 if "--all" in sys.argv else 40 if SANITIZED else 200) // ACCOUNTS


def pids(name):
    out = []
    for p in os.listdir("/proc"):
        if p.isdigit():
            try:
                with open(f"/proc/{p}/cmdline", "rb") as f:
                    if os.path.basename(f.read().split(b"\0")[0]).decode() == name:
                        out.append(int(p))
            except OSError:
                pass
    return out


def of_suite(suite, name):
    """The suite's program of this name."""
    return next(row["pid"] for row in suite.status() if row["program"] == name)


def cells(suite):
    """Processes of the suite's accounts."""
    launcher = of_suite(suite, "launcher")
    return [p for p in pids("imapd-cell") if parent(p) == launcher]


def parent(pid):
    try:
        with open(f"/proc/{pid}/stat") as f:
            return int(f.read().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def pss_kb(pid):
    with open(f"/proc/{pid}/smaps_rollup") as f:
        return int(re.search(r"Pss:\s+(\d+)", f.read()).group(1))


def private_kb(pid):
    with open(f"/proc/{pid}/smaps_rollup") as f:
        return sum(int(x) for x in re.findall(r"Private_\w+:\s+(\d+)", f.read()))


class Client:
    def __init__(self, suite, user, tls=False):
        self.sock = socket.create_connection(("127.0.0.1", suite.port["imaps" if tls else "imap"]))
        if tls:
            self.sock = TLS.wrap_socket(self.sock)
        self.sock.settimeout(30)
        self.file = self.sock.makefile("rb")
        self.file.readline()
        assert b"a OK" in self.say(b"a LOGIN %s secret" % user.encode())[-1]

    def say(self, line, tag=None):
        self.sock.sendall(line + b"\r\n")
        return self.until((tag or line.split()[0]) + b" ")

    def until(self, start):
        out = []
        while not out or not out[-1].startswith(start):
            out.append(self.file.readline())
            assert out[-1], out
        return out

    def idle(self):
        self.say(b"b SELECT INBOX")
        self.sock.sendall(b"c IDLE\r\n")
        assert self.file.readline().startswith(b"+"), "no continuation"
        return self

    def close(self):
        self.file.close()
        self.sock.close()


def deliver(suite, user, name):
    d = suite.maildir(user)
    path = os.path.join(d, "tmp", name)
    with open(path, "wb") as f:
        f.write(b"Subject: %s\r\n\r\nx\r\n" % name.encode())
    st = os.stat(d)
    os.chown(path, st.st_uid, st.st_gid)
    os.rename(path, os.path.join(d, "new", name))


def one(suite, tls):
    c = Client(suite, "u0", tls).idle()
    wait_for(lambda: not cells(suite))
    begin = time.monotonic()
    deliver(suite, "u0", "%d.x%d.h" % (2000 + tls, tls))
    line = c.file.readline()
    took = time.monotonic() - begin
    assert re.match(rb"\* \d+ EXISTS\r\n", line), line
    assert took < 3, took
    assert re.match(rb"\* \d+ RECENT\r\n", c.file.readline())
    wait_for(lambda: not cells(suite))  # and put away again
    got = c.say(b"DONE", b"c")
    assert got[-1].startswith(b"c OK") and len(got) == 1, got
    assert b"SEARCH" in c.say(b"d SEARCH ALL")[0]
    c.sock.sendall(b"e IDLE\r\n")
    c.file.readline()
    wait_for(lambda: not cells(suite))
    # Half a command wakes it, and the other half ends it.
    c.sock.sendall(b"DO")
    wait_for(lambda: cells(suite))
    time.sleep(1.5)
    c.sock.sendall(b"NE\r\nf LOGOUT\r\n")
    got = c.until(b"f ")
    assert got[0].startswith(b"e OK"), got
    c.close()


def changes_of_another(suite):
    c, other = Client(suite, "u0").idle(), Client(suite, "u0")
    other.say(b"a SELECT INBOX")
    wait_for(lambda: len(cells(suite)) == 1)
    other.say(b"b STORE 1 +FLAGS (\\Flagged)")
    line = c.file.readline()
    assert re.match(rb"\* 1 FETCH \(UID \d+ FLAGS \(.*\\Flagged", line), line
    wait_for(lambda: len(cells(suite)) == 1)
    other.say(b"c STORE 1 +FLAGS.SILENT (\\Deleted)")
    other.say(b"d EXPUNGE")
    got = c.until(b"* 1 EXPUNGE")
    assert all(x.startswith(b"* 1 ") for x in got), got
    for x in (c, other):
        x.close()


def client_ends(suite):
    c = Client(suite, "u0").idle()
    wait_for(lambda: not cells(suite))
    c.close()
    wait_for(lambda: "imap(u0): Disconnected: Connection closed (parked)" in suite.tail())
    assert not cells(suite)


def not_selected(suite):
    c = Client(suite, "u0")
    c.sock.sendall(b"c IDLE\r\n")
    c.file.readline()
    wait_for(lambda: not cells(suite))
    assert c.say(b"DONE", b"c")[-1].startswith(b"c OK")
    c.close()


def compressed_stays(suite):
    c = Client(suite, "u0")
    c.say(b"b SELECT INBOX")
    c.say(b"c COMPRESS DEFLATE")
    import zlib
    z = zlib.compressobj(6, zlib.DEFLATED, -15)
    c.sock.sendall(z.compress(b"d IDLE\r\n") + z.flush(zlib.Z_SYNC_FLUSH))
    time.sleep(2.5)
    assert len(cells(suite)) == 1
    c.close()
    wait_for(lambda: not cells(suite))


def reload_keeps_them(suite):
    c = Client(suite, "u0").idle()
    wait_for(lambda: not cells(suite))
    before = of_suite(suite, "idled")
    suite.ctl("reload")
    time.sleep(1)
    assert of_suite(suite, "idled") == before
    assert c.say(b"DONE", b"c")[-1].startswith(b"c OK")
    c.close()


def authd_killed(suite):
    """A token outlives authd: its key is on disk."""
    c = Client(suite, "u0").idle()
    wait_for(lambda: not cells(suite))
    before = of_suite(suite, "authd")
    os.kill(before, signal.SIGKILL)
    wait_for(lambda: of_suite(suite, "authd") not in (0, before))
    assert c.say(b"DONE", b"c")[-1].startswith(b"c OK")
    c.close()


def password_changed(suite):
    suite.add("eve", "secret")
    c = Client(suite, "eve").idle()
    wait_for(lambda: not cells(suite))
    suite.ctl("account", "passwd", "eve", input="another\n")
    c.sock.sendall(b"DONE\r\n")
    assert c.file.readline().startswith(b"* BYE")
    assert c.file.readline() == b""
    assert "a token that is not valid" in suite.tail()
    c.close()


def idled_killed(suite):
    c = Client(suite, "u0").idle()
    wait_for(lambda: not cells(suite))
    before = of_suite(suite, "idled")
    os.kill(before, signal.SIGKILL)
    assert c.file.readline() == b""  # like a cell that dies
    wait_for(lambda: of_suite(suite, "idled") not in (0, before))
    c.close()
    c = Client(suite, "u0").idle()
    wait_for(lambda: not cells(suite))
    assert c.say(b"DONE", b"c")[-1].startswith(b"c OK")
    c.close()


def without_idled(suite):
    """Sessions that began when it was there go on when it is not."""
    c = Client(suite, "u0")
    before = of_suite(suite, "idled")
    os.kill(before, signal.SIGKILL)
    c.idle()
    time.sleep(2.5)
    assert len(cells(suite)) == 1
    assert c.say(b"DONE", b"c")[-1].startswith(b"c OK")
    c.close()
    wait_for(lambda: of_suite(suite, "idled") not in (0, before))


PARK, RESUME = 66, 48


class Forger:
    """A front that was taken over: idled's socket of imapd, and what it can say there."""

    def __init__(self, suite, name="idled.imapd"):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.sock.connect(os.path.join(suite.run, name))
        self.sock.settimeout(20)
        self.client, theirs = socket.socketpair()
        self.client.settimeout(20)
        self.mailbox, mine = os.pipe()  # readable when we write: as inotify
        self.fds, self.keep, self.writer = [theirs.fileno(), self.mailbox], theirs, mine

    def say(self, kind, fields, fds):
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        self.sock.sendmsg([frame(kind, fields, len(fds))], rights)

    def park(self, token=b"joe\0" + b"x" * 32, state=b"state", user=b"joe", seconds=60.0, fds=None):
        end = int((time.clock_gettime(time.CLOCK_BOOTTIME) + seconds) * 1000)
        self.say(PARK, text(token) + text(state) + text(user) + struct.pack("<BQ", KIND_U64, end), self.fds if fds is None else fds)
        try:
            got = self.sock.recv(100)
        except ConnectionResetError:
            got = b""
        self.keep.close()
        return got

    def heard(self):
        out = b""
        while got := self.client.recv(1000):
            out += got
        return out


def forged_tokens(suite):
    for token in (b"u0\0" + b"x" * 32, b"u0", b"", b"\0" * 256, b"nobody\0" + b"x" * 32):
        f = Forger(suite)
        assert f.park(token)
        f.client.sendall(b"DONE\r\n")
        got = f.heard()
        assert got.startswith(b"* BYE Temporarily unavailable"), got
        assert not cells(suite)
    assert "a token that is not valid" in suite.tail()


def malformed_parking(suite):
    idled = of_suite(suite, "idled")
    f = Forger(suite)
    for how in (dict(state=b"x" * 4097), dict(token=b"x" * 257), dict(user=b"x" * 257)):
        f = Forger(suite)
        assert f.park(**how) == b"", how
    f = Forger(suite)
    assert f.park(fds=f.fds[:1]) == b""
    f = Forger(suite)
    f.say(PARK, b"junk", f.fds)
    assert f.sock.recv(100) == b""
    f = Forger(suite)
    f.say(67, b"", [])
    try:
        assert f.sock.recv(100) == b""
    except ConnectionResetError:
        pass
    assert of_suite(suite, "idled") == idled


def resume_from_elsewhere(suite):
    """authd takes RESUME from idled's door only: the sockets of other programs refuse it."""
    for name in ("authd.imapd", "authd.pop3d", "authd.smtpd", "authd.local"):
        f = Forger(suite, name)
        f.say(RESUME, text(b"u0\0" + b"x" * 32), f.fds[:1])
        try:
            assert f.sock.recv(100) == b"", name
        except ConnectionResetError:
            pass
    assert "broke the message rules" in suite.tail()


def time_ends(suite):
    f = Forger(suite)
    begin = time.monotonic()
    assert f.park(seconds=1.5)
    assert f.heard() == b"* BYE Disconnected for inactivity.\r\n"
    assert 1 < time.monotonic() - begin < 10


def many(suite):
    idled = of_suite(suite, "idled")
    empty = pss_kb(idled)
    clients = [Client(suite, "u%d" % (i % ACCOUNTS)).idle() for i in range(ACCOUNTS * MANY)]
    wait_for(lambda: not cells(suite), 60)
    each = (pss_kb(idled) - empty) / len(clients)
    print(f"     {len(clients)} parked: {each:.2f} KiB each in idled, {pss_kb(idled)} KiB in all")
    assert SANITIZED or each < 20, each
    begin = time.monotonic()
    for i in range(ACCOUNTS):
        deliver(suite, "u%d" % i, "9000.many.h")
    for c in clients:
        c.until(b"* ")
        assert time.monotonic() - begin < 60
    print(f"     all woken by mail in {time.monotonic() - begin:.1f} s")
    for c in clients:
        c.close()
    wait_for(lambda: not cells(suite), 60)


def many_tls(suite):
    clients = [Client(suite, "u%d" % (i % ACCOUNTS), True).idle() for i in range(100 if not SANITIZED else 4)]  # what they share counts in part
    wait_for(lambda: not cells(suite), 60)
    tlsd = of_suite(suite, "tlsd")
    sessions = [p for p in pids("tlsd") if parent(p) == tlsd]
    each = sum(private_kb(p) for p in sessions) / len(sessions)
    pss = sum(pss_kb(p) for p in sessions) / len(sessions)
    print(f"     {len(sessions)} parked with TLS: {each:.0f} KiB private, {pss:.0f} KiB with its share, each in tlsd")
    assert len(sessions) == len(clients), (len(sessions), len(clients))
    assert SANITIZED or pss < 400, pss
    for c in clients:
        c.close()


class Alive:
    """Two who wait for two minutes beside all else, and are told that somebody is there: one is parked, one not."""

    def __init__(self):
        self.suite = Suite(blocks={"imapd": ["park 1s"]})
        self.suite.__enter__()
        self.suite.add("alive", "secret")
        self.begin = time.monotonic()
        self.parked = Client(self.suite, "alive").idle()
        wait_for(lambda: not cells(self.suite))
        self.cell = Cell("imapd-cell")
        self.told, self.threads = {}, []
        self.cell.file.readline()
        for command, end in ((b"b SELECT INBOX", b"b OK"), (b"c IDLE", b"+")):
            self.cell.sock.sendall(command + b"\r\n")
            while not self.cell.file.readline().startswith(end):
                pass
        for name, c in (("parked", self.parked), ("not parked", self.cell)):
            c.sock.settimeout(200)
            self.threads.append(threading.Thread(target=self.read, args=(name, c.file)))
            self.threads[-1].start()

    def read(self, name, file):
        try:
            self.told[name] = (file.readline(), time.monotonic() - self.begin)
        except OSError as e:
            self.told[name] = (str(e), 0)

    def check(self):
        for t in self.threads:
            t.join()
        for name, (line, after) in self.told.items():
            assert line == b"* OK Still here\r\n" and 119 < after < 150, (name, line, after)
        assert not cells(self.suite)
        for c in (self.parked, self.cell):
            c.sock.sendall(b"DONE\r\n")
            assert c.file.readline().startswith(b"c OK")

    def end(self):
        self.parked.close()
        self.cell.close()
        self.suite.stop()


def main():
    if os.geteuid() != 0:
        print("skipped: the accounts need users of their own")
        REPORT.check("needs root", True)
        REPORT.end()
    alive = Alive()
    with Suite(blocks={"imapd": ["park 1s", "sessions-per-address 3000"]}) as suite:
        for i in range(ACCOUNTS):
            suite.add("u%d" % i, "secret")
        run = REPORT.run
        run("woken by mail, DONE and half a command", one, suite, False)
        run("the same with TLS", one, suite, True)
        run("woken by flags and an expunge of another session", changes_of_another, suite)
        run("a client that ends costs no cell", client_ends, suite)
        run("parked without a mailbox", not_selected, suite)
        run("a compressed session stays", compressed_stays, suite)
        run("a reload keeps them", reload_keeps_them, suite)
        run("authd killed: woken all the same", authd_killed, suite)
        run("a new password ends them", password_changed, suite)
        run("idled killed: the clients are cut off, the next are parked", idled_killed, suite)
        run("without idled a session stays", without_idled, suite)
        run("forged tokens", forged_tokens, suite)
        run("malformed messages close their channel, and no more", malformed_parking, suite)
        run("RESUME from another program", resume_from_elsewhere, suite)
        run("after the half hour it is told so", time_ends, suite)
        run("many parked, what they cost, and all woken", many, suite)
        run("with TLS", many_tls, suite)
        run("told every two minutes that somebody is there, parked or not", lambda _: alive.check(), suite)
    alive.end()
    REPORT.end()


if __name__ == "__main__":
    main()
