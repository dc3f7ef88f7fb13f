#!/usr/bin/env python3
"""Every byte of a queue file and of a journal flipped, and both cut at every length; hundreds of such files in the queue of
one start. What is damaged is put aside or tried again, and said; what is not is delivered. Ends with "N passed, N failed".

check_flips.py [--all]: with --all each of their bits, too."""
import glob
import os
import re
import shutil
import signal
import struct
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from queuefile import envelope_end, resealed  # noqa: E402
from rig import ENDS, Instance, Report, end_of, wait_for  # noqa: E402

ALPHABET = "234567abcdefghijklmnopqrstuvwxyz"
J_RCPT, J_EXPANDED = 1, 6
DONE, BOUNCED = 3, 5  # enum rcpt_state of qmgr.h
TOKEN = "token-000000"
# New mail of another sender waits for what is in the hands of local (ten deliveries to one account, three more behind each),
# twice when it had to be parked at first; not for the thousands.
BEFORE_NEW = 300
KEPT = f"/var/tmp/bulkhead-flips-{os.getpid()}"


def new_id(k):
    out = ""
    for _ in range(20):
        out = ALPHABET[k % 32] + out
        k //= 32
    return "3" + out[1:]


def make(suite, rcpts):
    """One message that waits, as its file, and its journal or b''."""
    suite.ctl("start")
    suite.host.answers["MAIL"] = b"451 4.3.0 later\r\n"
    client = suite.client()
    assert client.send(TOKEN, rcpts).startswith("250"), client.told
    wait_for(lambda: glob.glob(f"{suite.dir}/queue/cur/*/*"))
    time.sleep(0.3)
    suite.ctl("stop")
    path, = glob.glob(f"{suite.dir}/queue/cur/*/*")
    journal, = glob.glob(f"{suite.dir}/queue/journal/*/*") or [None]
    files = [open(p, "rb").read() if p else b"" for p in (path, journal)]
    owner = os.stat(path)
    for p in (path, journal):
        if p:
            os.unlink(p)
    shutil.rmtree(suite.maildir("box"), ignore_errors=True)
    shutil.rmtree(suite.maildir("bin"), ignore_errors=True)
    return *files, owner


def records(journal):
    at = 0
    while at + 16 <= len(journal):
        length, kind = struct.unpack_from("<II", journal, at)
        yield at, at + 16 + length, kind, journal[at + 16:at + 16 + length]
        at += 16 + length


def expected(journal, good):
    """Who gets it when only the first `good` bytes of the journal count: the alias is recipient 0."""
    rcpts, final = ["both"], set()
    for _, end, kind, bytes_ in records(journal):
        if end > good:
            break
        index = struct.unpack_from("<I", bytes_)[0]
        if kind == J_EXPANDED:
            final.add(index)
            at = 8  # behind the index and NOTIFY
            while at < len(bytes_):
                n = struct.unpack_from("<I", bytes_, at)[0]
                rcpts.append(bytes_[at + 4:at + 4 + n].decode())
                at += 4 + n
        elif kind == J_RCPT and struct.unpack_from("<I", bytes_, 4)[0] in (DONE, BOUNCED):
            final.add(index)
    left = {r for i, r in enumerate(rcpts) if i not in final}
    out = set()
    for r in left:
        name, _, domain = r.lstrip("\\").partition("@")
        out |= ENDS[name] if domain in ("", "example.org") else {("far", r)}
    return out


class Batch:
    """Copies of one message, each with an ID and a token of its own, laid into the queue of an instance that is down."""

    def __init__(self, suite, file, journal, owner):
        self.suite, self.file, self.journal, self.owner = suite, file, journal, owner
        self.n, self.rows = 0, []

    def write(self, path, data):
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        os.chown(os.path.dirname(path), self.owner.st_uid, self.owner.st_gid)
        with open(path, "wb") as f:
            f.write(data)
        os.chmod(path, 0o600)
        os.chown(path, self.owner.st_uid, self.owner.st_gid)
        os.utime(path, (0, 0))

    def add(self, what, change_file=None, change_journal=None):
        self.n += 1
        token, ident = f"token-{self.n:06d}", new_id(self.n)
        file = resealed(self.file.replace(TOKEN.encode(), token.encode()))
        whole = file
        if change_file:
            file = change_file(file)
        place = "new" if self.n % 2 else "cur/" + ident[-2:]
        self.write(f"{self.suite.dir}/queue/{place}/{ident}.s", file)
        journal = change_journal(self.journal) if change_journal else self.journal
        if journal:
            self.write(f"{self.suite.dir}/queue/journal/{ident[-2:]}/{ident}", journal)
        self.rows.append((what, token, ident, whole, file, journal if change_journal else place))


def flip(at, mask):
    return lambda b: b[:at] + bytes([b[at] ^ mask]) + b[at + 1:]


def good_of(whole, damaged):
    """The end of the last record of the journal that is as it was."""
    good = 0
    for _, end, _, _ in records(whole):
        if damaged[:end] != whole[:end]:
            break
        good = end
    return good


def run(suite, batch):
    """Start with all of it, and drain; (mail by token, log, problems)."""
    suite.host.answers.pop("MAIL", None)
    suite.host.slow_answers = 0
    suite.host.got.clear()
    open(suite.log, "w").close()
    start = time.time()
    suite.ctl("start")
    client = suite.client()
    client.source = "127.0.0.2"  # whoever else sends stands in line behind his own mail, and that is all of it
    answer = client.send("token-999999", ("box",))
    try:
        wait_for(lambda: any(b"token-999999" in m for m in suite.messages("box")), 60)
    except AssertionError:
        answer = f"told {answer!r}, and not there after 60 s: {suite.tail(5)}"
    fresh = time.time() - start
    drained = suite.drain(300)
    restarts = sum(r["restarts"] for r in suite.status())
    suite.ctl("stop")
    problems = []
    before = jobs_before(suite.log_text(), answer)
    if not answer.startswith("250") or before > BEFORE_NEW:
        problems.append(f"new mail, behind {before} others: {answer}")
    if not drained:
        problems.append(f"still queued: {len(suite.queued())}")
    if restarts or problems:
        why = re.findall(r".*(?:signal|leaving|fatal|exited|not answer).*", suite.log_text())
        problems.append(f"{restarts} restarts: {why[:3]}")
    got = {}
    for name in ("box", "bin"):
        for text in suite.messages(name):
            got.setdefault(token_in(text), []).append((("box", name), text))
    for who, text in suite.host.got:
        got.setdefault(token_in(text), []).append((("far", who), text))
    return got, suite.log_text(), problems, fresh


def jobs_before(log, answer):
    """How many deliveries into its mailbox ended between the acceptance of new mail and its own."""
    ident = (answer.split() or [""])[-1]
    accepted, delivered = log.find(f"{ident}: from="), log.find(f"{ident}: to=")
    between = log[accepted:delivered] if 0 <= accepted < delivered else ""
    return len(re.findall(r"to=<box@.* status=sent", between))


def keep(suite, wrong):
    """Why something went wrong is in the log."""
    if wrong:
        shutil.copy(suite.log, f"{KEPT}.{int(time.time())}")
    return f"log: {KEPT}.*" if wrong else ""


def token_in(text):
    # The Subject may be damaged, or the end: one of the many lines of the body is whole.
    found = re.findall(rb"token-\d{6}", text)
    return max(set(found), key=found.count).decode() if found else ""


def judge_file(suite, row, got, log):
    """Why this copy went wrong, or ''. An empty one in new/ is what a power cut leaves of mail that nobody was told is accepted."""
    what, token, ident, whole, file, place = row
    aside = os.path.exists(f"{suite.dir}/queue/corrupt/{ident}.s")
    here = got.get(token, [])
    if not file and place == "new":
        gone = not os.path.exists(f"{suite.dir}/queue/new/{ident}.s")
        return "" if gone and not here and not aside and "empty files removed" in log else f"{what}: not removed"
    if file != whole:
        if not aside or here:
            return f"{what}: not put aside" if not aside else f"{what}: delivered"
        return "" if f"{ident}: damaged" in log else f"{what}: not logged"
    if aside or len(here) != 1:
        return f"{what}: {len(here)} deliveries"
    return "" if here[0][1].endswith(file[envelope_end(file):]) else f"{what}: another text"


def judge_journal(row, got, log, journal):
    what, token, ident, _, _, damaged = row
    good = good_of(journal, damaged)
    want = expected(journal, good)
    have = [w for w, _ in got.get(token, [])]
    if sorted(have) != sorted(want):
        return f"{what}: {sorted(have)} and not {sorted(want)}"
    if not all(t.endswith(end_of(token, 200)) for _, t in got.get(token, [])):
        return f"{what}: cut"
    if good < len(damaged) and f"{ident}: the journal is damaged after {good} of" not in log:
        return f"{what}: not logged"
    return ""


def clear(suite):
    for d in ("corrupt", "new", "tmp"):
        for p in glob.glob(f"{suite.dir}/queue/{d}/*"):
            os.unlink(p)
    for d in glob.glob(f"{suite.dir}/queue/cur/*") + glob.glob(f"{suite.dir}/queue/journal/*"):
        shutil.rmtree(d)
    for n in ("box", "bin"):
        shutil.rmtree(suite.maildir(n), ignore_errors=True)


def plain(suite):
    """A message to a mailbox, as it lies in new/; its file is taken while local stands still."""
    suite.ctl("start")
    local = suite.pid("local")
    os.kill(local, signal.SIGSTOP)
    assert suite.client().send(TOKEN, ("box",)).startswith("250")
    path, = glob.glob(f"{suite.dir}/queue/new/*")
    with open(path, "rb") as f:
        file = f.read()
    os.kill(local, signal.SIGCONT)
    suite.drain()
    suite.ctl("stop")
    clear(suite)
    return file


def files(suite, r, masks, file, owner):
    batch = Batch(suite, file, b"", owner)
    for mask in masks:
        for at in range(len(file)):
            batch.add(f"byte {at} ^ {mask:#x}", flip(at, mask))
    for n in range(len(file)):
        batch.add(f"cut to {n}", lambda b, n=n: b[:n])
    batch.add("one byte more", lambda b: b + b"x")
    for _ in range(2):  # in new/, and in cur/
        batch.add("empty", lambda b: b"")
    for _ in range(20):
        batch.add("whole", lambda b: b)
    got, log, problems, fresh = run(suite, batch)
    wrong = [p for p in (judge_file(suite, row, got, log) for row in batch.rows) if p]
    aside = len(os.listdir(suite.dir + "/queue/corrupt"))
    r.check(f"queue file of {len(file)} bytes: {len(batch.rows)} copies, {aside} put aside, new mail delivered "
            f"{fresh:.1f} s after the start", not wrong and not problems,
            f"{len(wrong)} wrong: {wrong[:5]} {problems} {keep(suite, wrong or problems)}")
    clear(suite)


def journals(suite, r, masks, file, journal, owner):
    batch = Batch(suite, file, journal, owner)
    for mask in masks:
        for at in range(len(journal)):
            batch.add(f"byte {at} ^ {mask:#x}", None, flip(at, mask))
    for n in range(len(journal)):
        batch.add(f"cut to {n}", None, lambda b, n=n: b[:n])
    for _ in range(20):
        batch.add("whole", None, lambda b: b)
    got, log, problems, fresh = run(suite, batch)
    wrong = [p for p in (judge_journal(row, got, log, journal) for row in batch.rows) if p]
    r.check(f"journal of {len(journal)} bytes, {len(list(records(journal)))} records: {len(batch.rows)} copies, new mail "
            f"delivered {fresh:.1f} s after the start", not wrong and not problems,
            f"{len(wrong)} wrong: {wrong[:5]} {problems} {keep(suite, wrong or problems)}")
    clear(suite)


def main():
    masks = [1 << k for k in range(8)] + [0xff] if "--all" in sys.argv else [0xff]
    r = Report()
    suite = Instance().accounts_made()
    try:
        file, journal, owner = make(suite, ("both",))
        clear(suite)
        files(suite, r, masks, plain(suite), owner)
        journals(suite, r, masks, file, journal, owner)
    finally:
        suite.stop()
    r.end()


main()
