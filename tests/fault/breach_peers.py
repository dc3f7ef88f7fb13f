"""The figures at the end of check_breach.py: what the processes of Bulkhead, and of Postfix with Dovecot from Debian, may
reach, measured by one probe: of each running process its user, capabilities, seccomp mode and root directory from /proc,
and which of four files (a mailbox, a queue file, a private key, the password hashes) its user opens under that root."""
import glob
import imaplib
import os
import poplib
import re
import shutil
import smtplib
import socket
import ssl
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import harness  # noqa: E402
from harness import make_certificate, wait_for  # noqa: E402

SECRETS = ["mailbox", "queue", "key", "hashes"]


def fields(pid):
    with open(f"/proc/{pid}/status") as f:
        return dict(line.rstrip("\n").split(":\t", 1) for line in f if ":\t" in line)


def below(*tops):
    """These processes and all that they started."""
    parents = {}
    for p in os.listdir("/proc"):
        if p.isdigit():
            try:
                parents[int(p)] = int(fields(p)["PPid"])
            except (OSError, KeyError):
                pass
    found = set(t for t in tops if t in parents)
    grown = True
    while grown:
        new = {p for p, parent in parents.items() if parent in found} - found
        found |= new
        grown = bool(new)
    return sorted(found)


def opens(pid, path):
    """Whether a process with the user, groups, capabilities (all of root's, or none) and root directory of pid opens path:
    in a child that takes them on."""
    f = fields(pid)
    root = os.open(f"/proc/{pid}/root", os.O_PATH)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.fchdir(root)
            os.chroot(".")
            os.setgroups([int(g) for g in f["Groups"].split()])
            gid, uid = int(f["Gid"].split()[1]), int(f["Uid"].split()[1])
            os.setresgid(gid, gid, gid)
            os.setresuid(uid, uid, uid)
            os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK))
            status = 0
        finally:
            os._exit(status)
    os.close(root)
    return os.waitpid(child, 0)[1] == 0


def under_root(pid, path):
    """The path as the process would say it."""
    root = os.readlink(f"/proc/{pid}/root").rstrip("/")
    return path[len(root):] or "/" if path.startswith(root + "/") else path


def measure(pids, files, users):
    """Rows: name, user, processes, capabilities, filters, calls; and for each secret the set of users that open it."""
    readers = {s: set() for s in SECRETS}
    rows = {}
    for pid in pids:
        try:
            f = fields(pid)
            uid = int(f["Uid"].split()[1])
            name = f["Name"]
            row = rows.setdefault((name, uid), {"n": 0, "caps": f["CapEff"], "seccomp": f["Seccomp"],
                                                "root": os.readlink(f"/proc/{pid}/root")})
            row["n"] += 1
            for secret, path in files.items():
                if path and opens(pid, under_root(pid, path)):
                    readers[secret].add(users.get(uid, str(uid)))
        except (OSError, KeyError):
            continue
    return rows, readers


def names():
    import pwd
    return {p.pw_uid: p.pw_name for p in pwd.getpwall()}


def show(title, rows, readers, users):
    print(f"\n{title}\n  {'process':<14} {'user':<12} {'n':>3}  {'capabilities':<12} {'seccomp':<8} system calls")
    for (name, uid), row in sorted(rows.items()):
        caps = bin(int(row["caps"], 16)).count("1")
        print(f"  {name:<14} {users.get(uid, uid):<12} {row['n']:>3}  {caps or 'none':<12} "
              f"{'filter' if row['seccomp'] == '2' else 'none':<8} {row.get('calls', 'all')}")
    for s in SECRETS:
        print(f"  users whose processes open the {s}: {len(readers[s])} ({', '.join(sorted(readers[s])) or 'none'})")


def first(pattern):
    found = glob.glob(pattern, recursive=True)
    return next((f for f in found if os.path.isfile(f)), None)


def used_calls(b):
    """The system calls of each role after its confinement, in a run with a bit of everything: {role: (listener's, session's)}."""
    s, seen = b.suite, {}
    b.set_jobs([], "")
    trace = s.dir + "/trace"
    strace = subprocess.Popen(["strace", "-f", "-qq", "-e", "signal=none", "-o", trace, harness.BIN + "/bulkhead", "-f",
                               s.conf, "start"], stdout=subprocess.DEVNULL)
    try:
        wait_for(lambda: s.status() and all(r["state"] == "ready" for r in s.status()), 60)
        before = len(s.messages("bob"))
        context = ssl._create_unverified_context()
        with smtplib.SMTP("127.0.0.1", s.port["smtp"], timeout=60) as c:
            c.starttls(context=context)
            c.sendmail("a@far.example", ["bob@example.org"], "Subject: x\r\n\r\n" + "x\r\n" * 80000)
            c.sendmail("a@far.example", ["x@far.example"], "Subject: x\r\n\r\nx\r\n")
        with smtplib.SMTP("127.0.0.1", s.port["submission"], timeout=60) as c:
            c.starttls(context=context)
            c.login("bob", "secret")
            c.sendmail("bob@example.org", ["bob@example.org"], "Subject: x\r\n\r\nx\r\n")
        wait_for(lambda: len(s.messages("bob")) >= before + 2, 60)
        with imaplib.IMAP4("127.0.0.1", s.port["imap"]) as c:
            c.login("bob", "secret")
            c.select()
            c.search(None, "TEXT", "x")
            c.fetch("1", "(FLAGS ENVELOPE BODYSTRUCTURE)")
            c.store("1", "+FLAGS", "(\\Seen)")
            c.append("INBOX", None, None, b"Subject: y\r\n\r\ny\r\n")
        p = poplib.POP3("127.0.0.1", s.port["pop3"], timeout=60)
        p.user("bob")
        p.pass_("secret")
        p.retr(1)
        p.quit()
    finally:
        s.ctl("stop", check=False)
        strace.wait(30)
    role, stage, pending = {}, {}, {}
    with open(trace, errors="replace") as f:
        text = f.read()
    parents = {child: parent for parent, child in  # a child may speak before its parent's call has returned
               re.findall(r"^(\d+) +(?:<\.\.\. )?(?:clone3?|v?fork)\b.*= (\d+)$", text, re.M)}
    for line in text.splitlines():
        m = re.match(r"(\d+) +(?:<\.\.\. )?(\w+)(.*)", line)
        if not m:
            continue
        pid, call, rest = m[1], m[2], m[3]
        if pid not in role:
            role[pid], stage[pid] = role.get(parents.get(pid)), stage.get(parents.get(pid), 0)
        if call in ("execve", "execveat"):
            path = re.search(r'"/[^"]*/([\w-]+)"|\["([\w-]+)"', rest)
            pending[pid] = (path[1] or path[2]) if path else pending.get(pid)
            if rest.endswith("= 0"):
                role[pid], stage[pid] = pending[pid], 0
        if stage.get(pid):
            seen.setdefault(role[pid], (set(), set()))[stage[pid] > 1].add(call)
        if call == "seccomp" and "= 0" in rest:
            stage[pid] = stage.get(pid, 0) + 1
    return seen


def of_bulkhead(b, figures):
    s = b.suite
    b.set_jobs([], "")
    b.other_host.close()  # so that the queue has a message
    used = used_calls(b)
    s.start()
    try:
        with smtplib.SMTP("127.0.0.1", s.port["smtp"], timeout=60) as c:
            c.sendmail("a@far.example", ["x@far.example"], "Subject: x\r\n\r\nx\r\n")
        wait_for(lambda: first(s.dir + "/queue/[nc]*/**/*"))
        held = [socket.create_connection(("127.0.0.1", s.port[x]), timeout=20) for x in ("smtp", "submission", "pop3", "imap")]
        for c in held:
            c.recv(999)
        held[3].sendall(b"a LOGIN bob secret\r\n")
        held[3].recv(999)
        files = {"mailbox": first(s.maildir("bob") + "/new/*") or first(s.maildir("bob") + "/cur/*"),
                 "queue": first(s.dir + "/queue/[nc]*/**/*"), "key": s.dir + "/key.pem", "hashes": s.dir + "/state/accounts"}
        top = [r["pid"] for r in s.status() if r["program"] == "master"]
        rows, readers = measure(below(*top), files, names())
        for (name, uid), row in rows.items():
            fig = figures.get(name)
            if fig and "calls" in fig:
                listener, session = used.get(name, ((), ()))
                row["calls"] = f"{fig['calls']} (used {len(listener)})" + (
                    f", in a session {fig['session']} (used {len(session)})" if session else "")
        show("Bulkhead", rows, readers, names())
        print("\n  taken: role, files opened of the 10,000 paths, messages taken of those forged, TCP ports of this host reached")
        for role, fig in sorted(figures.items()):
            print(f"  {role:<14} {fig.get('files', '-'):>6} {fig.get('messages', '-'):>6} {fig.get('ports', '-'):>6}")
    finally:
        s.ctl("stop", check=False)


DOVECOT = """
base_dir = %(w)s/run
state_dir = %(w)s/state
log_path = %(w)s/log
protocols = imap
ssl = yes
ssl_cert = <%(w)s/cert.pem
ssl_key = <%(w)s/key.pem
listen = 127.0.0.1
disable_plaintext_auth = no
first_valid_uid = 1
mail_location = maildir:%(m)s
passdb {
  driver = passwd-file
  args = %(w)s/users
}
userdb {
  driver = static
  args = uid=65534 gid=65534 home=%(m)s
}
service imap-login {
  inet_listener imap {
    port = %(p)d
  }
  inet_listener imaps {
    port = 0
  }
}
service stats {
  unix_listener stats-writer {
    mode = 0666
  }
}
"""


def of_peers():
    import peers_debian
    from rig import free_ports
    p = peers_debian.Postfix()
    work = tempfile.mkdtemp(prefix="bulkhead-dovecot-")
    os.chmod(work, 0o755)
    make_certificate(work, ["mx.example.org"])
    with open(work + "/users", "w") as f:
        f.write("box:{PLAIN}secret\n")
    shutil.chown(work + "/users", "root", "dovecot")
    os.chmod(work + "/users", 0o640)
    port, = free_ports(1)
    conf = work + "/dovecot.conf"
    dovecot = None
    try:
        with open(p.etc + "/main.cf", "a") as f:
            f.write(f"smtpd_tls_cert_file = {work}/cert.pem\nsmtpd_tls_key_file = {work}/key.pem\n")
        p.prepare()
        p.start()
        with smtplib.SMTP("127.0.0.1", p.port, timeout=60) as c:
            c.sendmail("a@far.example", ["box@example.org"], "Subject: x\r\n\r\nx\r\n")
            c.sendmail("a@far.example", ["x@slow.example"], "Subject: x\r\n\r\nx\r\n")
        mail = f"{p.disk}/mail/box"
        wait_for(lambda: first(mail + "/new/*"))
        with open(conf, "w") as f:
            f.write(DOVECOT % {"w": work, "m": mail, "p": port})
        dovecot = subprocess.Popen(["dovecot", "-F", "-c", conf], stderr=subprocess.DEVNULL)

        def there():
            try:
                return socket.create_connection(("127.0.0.1", port), timeout=5)
            except OSError:
                return None
        c = wait_for(there)
        c.recv(999)
        c.sendall(b"a LOGIN box secret\r\n")
        c.recv(999)
        before = socket.create_connection(("127.0.0.1", port), timeout=5)
        smtp = socket.create_connection(("127.0.0.1", p.port), timeout=5)
        before.recv(99)
        smtp.recv(99)
        time.sleep(0.3)
        with open(f"{p.disk}/spool/pid/master.pid") as f:
            top = int(f.read())
        # A queue file that stays: its place and mode are what counts.
        queued = first(f"{p.disk}/spool/deferred/**/*") or first(f"{p.disk}/spool/active/*")
        if not queued:
            queued = f"{p.disk}/spool/active/PROBE"
            with open(queued, "w") as f:
                f.write("x")
            shutil.chown(queued, "postfix", "postfix")
            os.chmod(queued, 0o700)
        files = {"mailbox": first(mail + "/new/*") or first(mail + "/cur/*"), "queue": queued,
                 "key": work + "/key.pem", "hashes": work + "/users"}
        users = names()
        rows, readers = measure(below(top, dovecot.pid), files, users)
        show("Postfix and Dovecot of Debian, as they come", rows, readers, users)
    finally:
        if dovecot:
            dovecot.terminate()
            dovecot.wait(10)
        p.remove()
        shutil.rmtree(work, ignore_errors=True)


def figures(b, measured):
    of_bulkhead(b, measured)
    of_peers()
