#!/usr/bin/env python3
"""The ways to start a program: by a supervisor with LISTEN_FDS, from inetd and tcpserver, by hand in the
foreground; and the whole suite as an ordinary user. Ends with "N passed, N failed"."""
import imaplib
import json  # noqa: F401: an ordinary user may not find it later
import os
import shutil
import signal
import smtplib
import socket
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
import harness  # noqa: E402
from harness import BIN, Report, Suite, wait_for  # noqa: E402

USER = 64321  # an ordinary user without a name
ORDER = ["launcher", "authd", "keyd", "tlsd", "dnsd", "idled", "local", "relay", "qmgr", "submitd", "smtpd", "pop3d",
         "imapd"]


def role_user(role):
    if os.geteuid() != 0:
        return lambda: None
    import pwd
    pw = pwd.getpwnam(harness.PREFIX + role)

    def become():
        os.setgroups([])
        os.setresgid(pw.pw_gid, pw.pw_gid, pw.pw_gid)
        os.setresuid(pw.pw_uid, pw.pw_uid, pw.pw_uid)
    return become


def ordinary(fn, *args):
    """Run fn as an ordinary user in a child; its exceptions are ours."""
    if os.geteuid() != 0:
        fn(*args)
        return
    r, w = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            os.setgroups([])
            os.setresgid(USER, USER, USER)
            os.setresuid(USER, USER, USER)
            fn(*args)
            status = 0
        except BaseException as e:  # noqa: BLE001
            os.write(w, f"{type(e).__name__}: {e}"[:4000].encode())
        finally:
            os._exit(status)
    os.close(w)
    said = os.read(r, 4096).decode(errors="replace")
    os.close(r)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0, said


def talk(s):
    """One message through an open connection; what the server said."""
    f = s.makefile("rb")
    said = [f.readline()]
    for line in (b"EHLO client.example", b"MAIL FROM:<s@client.example>", b"RCPT TO:<alice@example.org>",
                 b"DATA", b"Subject: by-socket.\r\n\r\nx\r\n.", b"QUIT"):
        s.sendall(line + b"\r\n")
        while True:
            said.append(f.readline())
            if said[-1][3:4] != b"-":
                break
    return b"".join(said)


def by_listen_fds(suite):
    """smtpd as another supervisor starts it: its socket is descriptor 3, its doors are paths."""
    with socket.create_server(("127.0.0.1", 0)) as ls:
        become, program = role_user("smtpd"), os.path.join(BIN, "smtpd")
        pid = os.fork()
        if pid == 0:
            os.dup2(ls.fileno(), 3, inheritable=True)
            os.set_inheritable(3, True)
            become()
            os.execve(program, [program, "-f", suite.conf],
                      {"LISTEN_FDS": "1", "LISTEN_FDNAMES": "smtp", "LISTEN_PID": str(os.getpid())})
        try:
            with socket.create_connection(ls.getsockname(), timeout=5) as s:
                said = talk(s)
            assert b"\r\n250 2.0.0" in said and b"\r\n354" in said, said
        finally:
            os.kill(pid, signal.SIGTERM)
            os.waitpid(pid, 0)


def inetd_session(suite, env, in_fd, out_fd, err, conf=None, program="smtpd"):
    return subprocess.Popen([os.path.join(BIN, program), "-f", conf or suite.conf], stdin=in_fd,
                            stdout=out_fd, stderr=err, env=env, preexec_fn=role_user(program))


def from_inetd(suite):
    """Descriptors 0, 1 and 2 are the client, who must not read our log."""
    with socket.create_server(("127.0.0.1", 0)) as ls:
        c = socket.create_connection(ls.getsockname(), timeout=10)
        s, _ = ls.accept()
        p = inetd_session(suite, {}, s, s, s)
        s.close()
        said = talk(c)
        assert b"\r\n250 2.0.0" in said, said
        assert c.recv(1000) == b"" and b"bulkhead/" not in said, said
        assert p.wait(10) == 0
    wait_for(lambda: any(b"[127.0.0.1]" in m and b"by-socket." in m for m in suite.messages("alice")))


def from_nowhere(suite):
    """Told to serve a pipe, and not whose: that is nobody, and not root."""
    p = subprocess.Popen([os.path.join(BIN, "smtpd"), "-i", "-f", suite.conf], stdin=subprocess.PIPE,
                         stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={},
                         preexec_fn=role_user("smtpd"))
    said = [p.stdout.readline()]
    for line in (b"EHLO client.example", b"MAIL FROM:<s@client.example>", b"RCPT TO:<alice@example.org>",
                 b"DATA", b"Subject: by-pipe.\r\n\r\nx\r\n.", b"QUIT"):
        p.stdin.write(line + b"\r\n")
        p.stdin.flush()
        said.append(p.stdout.readline())
        while said[-1][3:4] == b"-":
            said.append(p.stdout.readline())
    p.communicate(timeout=10)
    assert any(s.startswith(b"250 2.0.0 Ok: queued") for s in said), said
    wait_for(lambda: any(b"by-pipe." in m for m in suite.messages("alice")))
    text = [m for m in suite.messages("alice") if b"by-pipe." in m][0]
    assert b"Received: from client.example ([unknown])" in text and b"userid" not in text, text


def from_tcpserver(suite, conf, env, relays):
    """On pipes, and what the variables say is believed."""
    p = inetd_session(suite, dict(env, TCPREMOTEIP="192.0.2.7", TCPLOCALIP="192.0.2.1"),
                      subprocess.PIPE, subprocess.PIPE, subprocess.PIPE, conf)
    out, err = p.communicate(b"EHLO x\r\n", timeout=20)
    p = inetd_session(suite, dict(env, TCPREMOTEIP="192.0.2.7"), subprocess.PIPE, subprocess.PIPE,
                      subprocess.PIPE, conf)
    said = p.stdout.readline()
    for line in (b"EHLO x\r\n", b"MAIL FROM:<a@client.example>\r\n", b"RCPT TO:<b@far.example>\r\n",
                 b"QUIT\r\n"):
        p.stdin.write(line)
        p.stdin.flush()
        while True:
            got = p.stdout.readline()
            said += got
            if got[3:4] != b"-":
                break
    err = p.communicate(timeout=10)[1].decode()
    assert b"220 " in said and b"221 " in said, (said, err)
    assert "[192.0.2.7]" in err, err
    assert (b"550 5.7.1" not in said) == relays, (said, err)




def mail_and_read(suite):
    with smtplib.SMTP("127.0.0.1", suite.port["smtp"], timeout=20) as c:
        c.sendmail("s@client.example", ["alice@example.org"], "Subject: from-outside.\r\n\r\nx\r\n")
    with smtplib.SMTP("127.0.0.1", suite.port["submission"], timeout=20) as c:
        c.starttls()
        c.login("alice", "secret")
        c.sendmail("alice@example.org", ["alice@example.org"],
                   "From: alice@example.org\r\nSubject: from-within.\r\n\r\nx\r\n")

    def both():
        imap = imaplib.IMAP4("127.0.0.1", suite.port["imap"])
        imap.starttls()
        imap.login("alice", "secret")
        n = int(imap.select()[1][0])
        if n == 2:
            text = b"".join(imap.fetch(str(i), "BODY[]")[1][0][1] for i in (1, 2))
            assert b"from-outside." in text and b"from-within." in text
        imap.logout()
        return n == 2
    wait_for(both, every=0.2)


def by_hand():
    suite = Suite()
    started = []
    log = open(suite.log, "ab")
    try:
        for name in ORDER:
            started.append((name, subprocess.Popen([os.path.join(BIN, name), "-f", suite.conf],
                                                   stdin=subprocess.DEVNULL, stderr=log)))
            if name in ("smtpd", "pop3d", "imapd"):
                wait_for(lambda: not socket.socket().connect_ex(
                    ("127.0.0.1", suite.port[{"smtpd": "smtp", "pop3d": "pop3"}.get(name, "imap")])))
            else:
                wait_for(lambda: any(f.startswith(name + ".") or (name == "submitd" and f == "submit")
                                     for f in os.listdir(suite.run)) if os.path.isdir(suite.run) else 0)
            time.sleep(0.15)
        for name, p in started:
            assert p.poll() is None, f"{name} has gone: {suite.tail()}"
        suite.add("alice", "secret")
        mail_and_read(suite)
    except Exception as e:
        raise AssertionError(f"{e}\n{suite.tail(20)}")
    finally:
        for _, p in reversed(started):
            p.terminate()
        for _, p in started:
            p.wait(10)
        log.close()
        shutil.rmtree(suite.dir, ignore_errors=True)


def unprivileged():
    suite = Suite()
    try:
        said = suite.ctl("start", check=False)
        assert said.returncode == 0, said
        once = (said.stdout + said.stderr + suite.tail(500)).count("not started by root")
        assert once == 1, (once, said)
        rows = suite.status()
        assert rows and all(r["user"] in (str(os.geteuid()), os.environ.get("USER")) or
                            os.geteuid() != USER for r in rows), rows
        suite.add("alice", "secret")
        mail_and_read(suite)
        assert all(r["restarts"] == 0 for r in suite.status())
    except Exception as e:
        raise AssertionError(f"{e}\n{suite.tail(20)}")
    finally:
        suite.stop()


def main():
    r = Report()
    with Suite() as suite:
        suite.add("alice", "secret")
        r.run("under master", mail_and_read, suite)
        r.run("by a supervisor: LISTEN_FDS", by_listen_fds, suite)
        r.run("from inetd", from_inetd, suite)
        r.run("from inetd, on a pipe", from_nowhere, suite)
        with open(suite.conf) as f:
            text = f.read()
        allowed = suite.dir + "/allowed.conf"
        with open(allowed, "w") as f:
            f.write(text.replace("smtpd {", "smtpd {\n  relayclient yes", 1))
        for name, conf, env, relays in (("tcpserver", suite.conf, {}, False),
                                        ("RELAYCLIENT, not allowed", suite.conf, {"RELAYCLIENT": ""}, False),
                                        ("RELAYCLIENT, allowed", allowed, {"RELAYCLIENT": ""}, True),
                                        ("allowed, not set", allowed, {}, False)):
            r.run(name, from_tcpserver, suite, conf, env, relays)
        if r.failed:
            print(suite.tail(40))
    r.run("by hand, one by one", ordinary, by_hand)
    r.run("the suite of an ordinary user", ordinary, unprivileged)
    r.end()


if __name__ == "__main__":
    main()
