#!/usr/bin/env python3
"""Mistakes of the operator: configuration, users, directories, ports, accounts, aliases. Each gets a
clear error, and nothing is lost. Ends with "N passed, N failed"."""
import imaplib
import os
import smtplib
import socket
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from harness import Report, Suite, wait_for  # noqa: E402


def send(suite, to, token):
    with smtplib.SMTP("127.0.0.1", suite.port["smtp"], timeout=20) as c:
        c.sendmail("s@client.example", [to], f"Subject: {token}\r\n\r\nx\r\n")


def rcpt(suite, to):
    with smtplib.SMTP("127.0.0.1", suite.port["smtp"], timeout=20) as c:
        c.ehlo("client.example")
        c.mail("s@client.example")
        return c.rcpt(to)[0]


def login(suite, user, password="secret"):
    c = imaplib.IMAP4("127.0.0.1", suite.port["imap"])
    c.starttls()
    try:
        c.login(user, password)
        return True
    except imaplib.IMAP4.error:
        return False
    finally:
        c.logout()


def refused(suite, *texts, status=None, command="start"):
    p = suite.ctl(command, check=False)
    said = p.stdout + p.stderr
    assert p.returncode != 0 and (status is None or p.returncode == status), (p.returncode, said)
    for t in texts:
        assert t in said, (t, said)
    assert not suite.status(), "something runs"
    assert suite.ctl("stop", check=False).returncode in (69, 78)


def edit(path, old, new):
    with open(path) as f:
        text = f.read()
    assert old in text
    with open(path, "w") as f:
        f.write(text.replace(old, new, 1))


def configuration():
    s = Suite()
    try:
        edit(s.conf, "hostname ", "hostnam ")
        edit(s.conf, "smtpd {", "smptd {")
        edit(s.conf, "queue {\n\n}", "queue {\n retry never\n retries 5\n}")
        for command in ("check", "start"):
            refused(s, f"{s.conf}:2:1: unknown word \"hostnam\"; did you mean \"hostname\"?",
                    "did you mean \"smtpd\"?", "\"never\" is not a number",
                    "unknown word \"retries\" in block queue", "hostname is missing", status=78,
                    command=command)
        assert not os.path.exists(s.run) and not os.path.exists(s.dir + "/queue")
        os.unlink(s.conf)
        refused(s, s.conf, "No such file", status=78)
    finally:
        s.stop()


def no_user():
    s = Suite()
    try:
        edit(s.conf, "users-prefix bht-", "users-prefix nobody-such-")
        refused(s, "user nobody-such-authd does not exist", status=78)
        assert not os.path.exists(s.dir + "/queue")
    finally:
        s.stop()


def directories():
    """E5."""
    s = Suite()
    try:
        s.start()
        s.ctl("stop")
        for name in ("run", "run/empty", "queue", "state", "mail"):
            path = f"{s.dir}/{name}"
            mode = os.stat(path).st_mode & 0o7777
            for bad in (mode | 0o002, mode | 0o020):
                os.chmod(path, bad)
                refused(s, f"{path}: others may write to it")
            os.chmod(path, mode)
        for name in ("queue", "state"):
            path = f"{s.dir}/{name}"
            st = os.stat(path)
            os.chown(path, 65534, 65534)
            refused(s, f"{path}: belongs to user 65534")
            os.chown(path, st.st_uid, st.st_gid)
            os.rename(path, path + ".away")
            os.symlink(path + ".away", path)
            refused(s, path)
            os.unlink(path)
            os.rename(path + ".away", path)
        os.chmod(s.dir, 0o777)
        refused(s, f"{s.dir}: everybody may write to it")
        os.chmod(s.dir, 0o755)
        s.ctl("start")
    finally:
        s.stop()


def port_taken():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        s = Suite(ports={"imap": port})
        try:
            refused(s, f"listen on 127.0.0.1 port {port}: Address already in use")
        finally:
            s.stop()


def no_certificate():
    s = Suite()
    try:
        edit(s.conf, "/key.pem", "/nothing.pem")
        p = s.ctl("start", check=False)
        assert p.returncode == 78 and "/nothing.pem: No such file" in p.stderr, p
        assert "not running" in s.ctl("status", check=False).stderr
    finally:
        s.stop()


def accounts(suite, line):
    path = suite.dir + "/state/accounts"
    with open(path) as f:
        good = f.read()
    with open(path, "w") as f:
        f.write(good + line)
    suite.ctl("reload")
    wait_for(lambda: rcpt(suite, "nobody@example.org") == 451)
    assert login(suite, "alice") and not login(suite, "alice", "wrong")
    assert rcpt(suite, "alice@example.org") == 250
    p = suite.ctl("account", "add", "new", input="secret\n", check=False)
    assert p.returncode == 69 and "1 bad lines (see the log): mend it first" in p.stderr, p
    assert f"accounts:{good.count(chr(10)) + 1}:" in suite.tail(60)
    with open(path) as f:
        assert f.read() == good + line, "the file was written over"
    with open(path, "w") as f:
        f.write(good)
    p = suite.ctl("account", "add", "new", input="secret\n", check=False)
    assert p.returncode == 69, p
    suite.ctl("reload")
    wait_for(lambda: rcpt(suite, "nobody@example.org") == 550)
    suite.ctl("account", "add", "new", input="secret\n")
    assert login(suite, "new")
    suite.ctl("account", "remove", "new@example.org")
    assert not login(suite, "new")
    if os.geteuid() == 0:
        mail_is_not_inherited(suite)


def mail_is_not_inherited(suite):
    """Who gets the name of a removed account gets another user ID, and its mail only when that is asked for."""
    directory = suite.dir + "/mail/example.org/new"
    owner = str(os.stat(directory).st_uid)
    for args in ((), ("-d", directory)):
        p = suite.ctl("account", "add", "New@Example.org", *args, input="secret\n", check=False)
        assert p.returncode == 73 and directory in p.stderr and f"-u {owner}" in p.stderr, p
    suite.ctl("account", "add", "new", "-u", owner, input="secret\n")
    assert login(suite, "new")
    suite.ctl("account", "remove", "new")
    os.rename(directory, f"{suite.dir}/old-mail-{owner}")
    suite.ctl("account", "add", "new", input="secret\n")
    assert login(suite, "new") and os.stat(directory).st_uid > int(owner)
    suite.ctl("account", "remove", "new")
    os.rename(directory, f"{suite.dir}/new-mail-{owner}")


def aliases(suite, line):
    """A line without a name: nobody can be called unknown. A name whose targets are bad: mail for it
    waits, and goes out when it is mended. Others notice nothing."""
    name = line.split(":")[0] if ":" in line[1:] and not line.startswith("team") else None
    with open(suite.dir + "/aliases", "w") as f:
        f.write("team: alice, bob\n" + line + "\n")
    suite.ctl("reload")
    wait_for(lambda: "aliases:2:" in suite.tail(60))
    token = f"bad-alias-{hash(line)}."
    if name:
        assert rcpt(suite, "nobody@example.org") == 550
        wait_for(lambda: rcpt(suite, name + "@example.org") == 250)
        send(suite, name + "@example.org", "later-" + token)
        wait_for(lambda: "bad line" in suite.ctl("queue", "list"))
    else:
        wait_for(lambda: rcpt(suite, "nobody@example.org") == 451)
    send(suite, "team@example.org", token)
    wait_for(lambda: any(token.encode() in m for m in suite.messages("alice")))
    assert login(suite, "alice")
    with open(suite.dir + "/aliases", "w") as f:
        f.write("team: alice, bob\n" + (f"{name}: bob\n" if name else ""))
    suite.ctl("reload")
    wait_for(lambda: rcpt(suite, "nobody@example.org") == 550)
    if name:
        # As long as it takes: a process of local that began before the reload may have it once more.
        wait_for(lambda: any(b"later-" + token.encode() in m for m in suite.messages("bob"))
                 or suite.ctl("queue", "retry", "all") is None)


def circles(suite):
    with open(suite.dir + "/aliases", "w") as f:
        f.write("a: b\nb: a\nself: self\nalice: alice, bob\nc: c2, bob\nc2: c\n")
    suite.ctl("reload")
    wait_for(lambda: rcpt(suite, "a@example.org") == 250)
    send(suite, "alice@example.org", "to-itself.")
    send(suite, "c@example.org", "circle-with-an-end.")
    send(suite, "a@example.org", "circle-without.")
    for who, token in (("alice", b"to-itself."), ("bob", b"to-itself."), ("bob", b"circle-with-an-end.")):
        wait_for(lambda: [m for m in suite.messages(who) if token in m])
    wait_for(lambda: "lead in a circle" in suite.tail(60))
    for who, token in (("alice", b"to-itself."), ("bob", b"to-itself."), ("bob", b"circle-with-an-end.")):
        assert len([m for m in suite.messages(who) if token in m]) == 1, (who, token)


def main():
    r = Report()
    r.run("configuration: all errors, nothing started", configuration)
    if os.geteuid() == 0:
        r.run("a missing user", no_user)
        r.run("directories that others may write to", directories)
    r.run("a port that is taken", port_taken)
    r.run("a key that is not there", no_certificate)
    with Suite() as suite:
        suite.add("alice", "secret")
        suite.add("bob", "secret")
        for line in ("nonsense\n", "mallory:0:0:/root:$y$x\n", "eve:2001:2001:/m/eve:$y$x", "\0\xff\n"):
            r.run(f"accounts with a bad line {line!r}", accounts, suite, line)
        for line in ("nonsense", "x: |/bin/sh", "y: /etc/passwd", "z: <a>", "team: bob",
                     "w: " + "a" * 400):
            r.run(f"aliases with a bad line {line[:12]!r}", aliases, suite, line)
        r.run("aliases in circles", circles, suite)
        r.check("nothing has restarted", all(x["restarts"] == 0 for x in suite.status()),
                str(suite.status()))
        if r.failed:
            print(suite.tail(40))
    r.end()


if __name__ == "__main__":
    main()
