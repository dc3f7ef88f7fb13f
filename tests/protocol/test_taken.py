"""What a session that has been taken over can do to others, and what races strangers can start.

The test takes a session's descriptors from outside (pidfd_getfd, which needs root) and uses them as
somebody who runs code in that session would.
"""
import ctypes
import fcntl
import json
import os
import socket
import sys
import threading

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from harness import Report, Suite, wait_for  # noqa: E402

PIDFD_GETFD = 438
libc = ctypes.CDLL(None, use_errno=True)


def steal(pid, fd):
    pidfd = os.pidfd_open(pid)
    n = libc.syscall(PIDFD_GETFD, pidfd, fd, 0)
    error = ctypes.get_errno()
    os.close(pidfd)
    if n < 0:
        raise OSError(error, os.strerror(error))
    return n


def pid_of(s, role):
    return next(r["pid"] for r in s.status() if r["program"] == role)


def sessions_of(s, role):
    parent = pid_of(s, role)
    out = []
    for p in os.listdir("/proc"):
        try:
            if p.isdigit() and int(open(f"/proc/{p}/stat").read().rsplit(")", 1)[1].split()[1]) == parent:
                out.append(int(p))
        except OSError:
            pass
    return out


def descriptors(pid):
    out = {}
    for f in os.listdir(f"/proc/{pid}/fd"):
        out[int(f)] = os.readlink(f"/proc/{pid}/fd/{f}")
    return out


class Client:
    def __init__(self, port):
        self.s = socket.create_connection(("127.0.0.1", port), timeout=20)
        self.f = self.s.makefile("rwb")
        self.f.readline()

    def say(self, *lines):
        for line in lines:
            self.f.write(line.encode() + b"\r\n")
            self.f.flush()
            answer = self.f.readline().decode()
        return answer

    def until_data(self):
        return self.say("HELO x", "MAIL FROM:<a@far.example>", "RCPT TO:<bob@example.org>", "DATA")

    def mail(self):
        answer = self.until_data()
        return self.say("Subject: x\r\n\r\nx\r\n.") if answer[:3] == "354" else answer


def doors_come_back(s):
    c = Client(s.port["smtp"])
    pid = sessions_of(s, "smtpd")[0]
    for fd, what in descriptors(pid).items():
        if not what.startswith("socket:"):
            continue
        k = socket.socket(fileno=steal(pid, fd))
        if k.family == socket.AF_UNIX:
            k.shutdown(socket.SHUT_RDWR)
        k.close()
    c.s.close()
    wait_for(lambda: "made anew" in s.tail())
    wait_for(lambda: Client(s.port["smtp"]).mail()[:3] == "250", every=0.3)


def session_that_keeps_its_file(s):
    c = Client(s.port["smtp"])
    if c.until_data()[:3] != "354":
        raise AssertionError("no DATA")
    c.f.write(b"Subject: x\r\n")
    c.f.flush()
    pid = sessions_of(s, "smtpd")[0]
    kept = [steal(pid, fd) for fd, what in descriptors(pid).items() if "/queue/tmp/" in what]
    if len(kept) != 2 or sorted(fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE for fd in kept) != [os.O_RDONLY, os.O_WRONLY]:
        raise AssertionError(f"its queue file is not among {descriptors(pid)}, once to write and once to read")
    answer = c.say("\r\nx\r\n.")
    for fd in kept:
        os.close(fd)
    if answer[:3] != "451":
        raise AssertionError(f"accepted what can still be changed: {answer}")
    if Client(s.port["smtp"]).mail()[:3] != "250":
        raise AssertionError("the next one is refused")


def first_logins_at_once(s):
    for round_ in range(4):
        name = f"new{round_}"
        s.add(name, "secret")
        answers = []

        def login():
            c = Client(s.port["imap"])
            answers.append(c.say(f"a LOGIN {name} secret"))

        threads = [threading.Thread(target=login) for _ in range(12)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        wrong = [a for a in answers if not a.startswith("a OK")]
        if wrong or len(answers) != 12:
            raise AssertionError(f"{len(wrong)} of {len(answers)}: {wrong[:1]}\n{s.tail(8)}")


def half_made_directories(s):
    """A directory without a mode is one whose maker was killed: the next cell finishes it. What is somebody else's stays as it is."""
    top, home = s.dir + "/mail/example.org", s.dir + "/home"

    def login(name, path, mode, uid, ok, want_mode, want_uid):
        if mode is not None:
            if not os.path.exists(path):
                os.mkdir(path)
            os.chown(path, uid, -1)
            os.chmod(path, mode)
        answer = Client(s.port["imap"]).say(f"a LOGIN {name} secret")
        st = os.stat(path)
        if answer.startswith("a OK") != ok or st.st_mode & 0o7777 != want_mode or st.st_uid != want_uid:
            raise AssertionError(f"{name} {path}: {answer} {st.st_mode:o} {st.st_uid}\n{s.tail(5)}")

    for name in ("half", "given", "rooted", "foreign"):
        s.add(name, "secret")
    uid = {x["name"].split("@")[0]: x["uid"] for x in json.loads(s.ctl("--json", "account", "list"))}
    login("half", top + "/half", 0, 0, True, 0o700, uid["half"])
    login("given", top + "/given", 0, uid["given"], True, 0o700, uid["given"])
    login("rooted", top + "/rooted", 0o700, 0, False, 0o700, 0)
    login("rooted", top + "/rooted", 0o711, 0, False, 0o711, 0)
    login("foreign", top + "/foreign", 0, uid["half"], False, 0, uid["half"])
    login("half", top, 0, 0, True, 0o711, 0)
    os.mkdir(home, 0o755)
    os.chown(home, 6543, 6543)
    s.ctl("account", "add", "home", "-u", "6543", "-d", home + "/Maildir", input="secret\n")
    login("home", home + "/Maildir", None, None, True, 0o700, 6543)
    login("home", home + "/Maildir", 0, 6543, True, 0o700, 6543)
    login("home", home + "/Maildir", 0, 0, False, 0, 0)
    login("home", home + "/Maildir", 0o700, 6543, True, 0o700, 6543)
    os.chmod(home, 0)
    login("home", home, None, None, True, 0, 6543)


def log_grows(s):
    """Strangers make the log grow; nobody may die of its size."""
    with open(s.log, "ab") as f:
        f.truncate(3 << 30)
    before = {r["program"]: r["restarts"] for r in s.status()}
    s.add("grown", "secret")
    answer = Client(s.port["imap"]).say("a LOGIN grown secret")
    mail = Client(s.port["smtp"]).mail()
    after = {r["program"]: r["restarts"] for r in s.status()}
    os.truncate(s.log, 0)
    if not answer.startswith("a OK") or mail[:3] != "250" or before != after:
        raise AssertionError(f"{answer} {mail} {before} {after}")


def log_is_rotated(s):
    """logrotate(8) moves the log away and reloads: everybody writes to the new one."""
    os.rename(s.log, s.log + ".1")
    s.ctl("reload")
    wait_for(lambda: Client(s.port["smtp"]).mail()[:3] == "250", every=0.3)
    wait_for(lambda: "removed" in s.tail(), 5)  # of qmgr
    s.add("rotated", "secret")
    wait_for(lambda: "account <rotated>" in s.tail(), 5)  # of authd


def main():
    r = Report()
    with Suite(blocks={"imapd": [], "smtpd": []}) as s:
        s.add("bob", "secret")
        r.run("many first logins at once", first_logins_at_once, s)
        r.run("a large log", log_grows, s)
        r.run("the log after logrotate", log_is_rotated, s)
        if os.geteuid() == 0:
            r.run("directories that are not finished", half_made_directories, s)
            r.run("a committed file has no writer", session_that_keeps_its_file, s)
            r.run("doors that a session shut down are made anew", doors_come_back, s)
    r.end()


if __name__ == "__main__":
    main()
