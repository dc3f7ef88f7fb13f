"""The IMAP servers that bench_imap.py compares, each with a directory and a cgroup of its own: Bulkhead, Dovecot (installed),
Courier and Cyrus (whose packages refuse to be installed beside Dovecot: they are fetched, unpacked and run in a mount
namespace where they lie over /usr and /etc).

Each has the accounts bench0, bench1, ... with the password x. It is hashed with the same cheap method in all (Cyrus has it
in clear), so that hashing is not what is measured. Dovecot, Courier and Bulkhead get copies of the same Maildir; Cyrus gets the
files in its own layout, and makes its index of them (reconstruct)."""
import glob
import itertools
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, ".."))
from harness import Suite, free_ports, make_certificate, wait_for  # noqa: E402
from mta import need_users  # noqa: E402
from mta import Cgroup  # noqa: E402

UID = 65533
NUMBERS = itertools.count()
HASH = subprocess.run(["openssl", "passwd", "-1", "x"], capture_output=True, text=True, check=True).stdout.strip()


def receive(sock, n):
    """Acknowledged at once: Courier and Cyrus leave Nagle's algorithm on, and would wait 40 ms for it."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
    return sock.recv(n)


class Client:
    def __init__(self, port):
        self.sock, self.count = socket.create_connection(("127.0.0.1", port)), 0
        self.sock.settimeout(900)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock.recv(4096)

    def until(self, tag):
        tail = b""
        while True:
            data = receive(self.sock, 1 << 20)
            if not data:
                raise EOFError(tail)
            tail = (tail + data)[-4000:]
            if tail.endswith(b"\r\n"):
                last = tail[:-2].rsplit(b"\n", 1)[-1]
                if last.startswith(tag + b" "):
                    return last

    def run(self, command, literal=None):
        """Milliseconds until the tagged OK."""
        self.count += 1
        tag = b"x%d" % self.count
        begin = time.perf_counter()
        if literal is None:
            self.sock.sendall(tag + b" " + command.encode() + b"\r\n")
        else:  # Courier has no LITERAL+
            self.sock.sendall(tag + b" " + command.encode() + b" {%d}\r\n" % len(literal))
            said = receive(self.sock, 1000)
            if not said.startswith(b"+"):
                raise RuntimeError("%s: %s" % (command, said))
            self.sock.sendall(literal + b"\r\n")
        last = self.until(tag)
        took = (time.perf_counter() - begin) * 1000
        if not last.startswith(tag + b" OK"):
            raise RuntimeError("%s: %s" % (command, last))
        return took

    def close(self):
        self.sock.close()


class Pop:
    """A POP3 session; run() gives milliseconds until the end of the answer."""

    def __init__(self, port, user):
        self.sock = socket.create_connection(("127.0.0.1", port))
        self.sock.settimeout(900)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock.recv(4096)
        self.run("USER " + user)
        self.run("PASS x")

    def run(self, command, many=False):
        begin = time.perf_counter()
        self.sock.sendall(command.encode() + b"\r\n")
        data = b""
        while not (data.endswith(b"\r\n.\r\n") if many else data.endswith(b"\r\n")):
            more = receive(self.sock, 1 << 20)
            if not more:
                raise EOFError(command)
            data = (data + more)[-10000:]
        return (time.perf_counter() - begin) * 1000

    def retrieve(self, n):
        """All of 1..n, asked in turn, RETR by RETR."""
        begin = time.perf_counter()
        for i in range(1, n + 1):
            self.run("RETR %d" % i, many=True)
        return (time.perf_counter() - begin) * 1000

    def close(self):
        self.sock.close()


def pss_kib(pids):
    """What these processes hold, pages shared by several divided among them."""
    total = 0
    for pid in pids:
        try:
            with open(f"/proc/{pid}/smaps_rollup") as f:
                total += sum(int(line.split()[1]) for line in f if line.startswith("Pss:"))
        except OSError:
            pass
    return total


def needs(package):
    """What apt would install for it if Dovecot were not here."""
    p = subprocess.run(["apt-get", "install", "-s", "--no-install-recommends", *package, "dovecot-imapd-", "dovecot-pop3d-"],
                       capture_output=True, text=True)
    return re.findall(r"(?m)^Inst (\S+)", p.stdout)


def unpacked(name, packages, also=()):
    """A directory with the files of these packages and of all they need that is not installed; kept for the next time."""
    top = os.path.join(os.environ.get("BULKHEAD_PEERS", "/var/tmp/bulkhead-peers"), name)
    if os.path.exists(top + "/done"):
        return top
    shutil.rmtree(top, ignore_errors=True)
    os.makedirs(top + "/debs")
    want = needs(packages) or list(packages)
    p = subprocess.run(["apt-get", "download", *want, *also], cwd=top + "/debs", capture_output=True, text=True)
    if p.returncode:
        raise RuntimeError(f"apt-get download: {p.stderr[-300:]}")
    for deb in glob.glob(top + "/debs/*.deb"):
        subprocess.run(["dpkg", "-x", deb, top], check=True)
    open(top + "/done", "w").close()
    return top


def remove(directory):
    """Also while the last session is still at work in it."""
    while os.path.exists(directory):
        shutil.rmtree(directory, ignore_errors=True)
        time.sleep(0.1)


class Peer:
    uses_maildir = True

    def __init__(self, users):
        self.users = users
        self.dir = tempfile.mkdtemp(prefix=f"bulkhead-{self.name.lower()}-")
        os.chmod(self.dir, 0o755)
        self.port, self.pop_port, self.tls_port = free_ports(3)
        self.cgroup = Cgroup(f"{self.name.lower()}-{next(NUMBERS)}")
        self.process = None
        try:
            self.start()
        except BaseException:
            self.stop()
            raise

    def spawn(self, *args, namespace=False):
        args = ["unshare", "-m", "-p", "-f", "--kill-child", "--mount-proc", *args] if namespace else list(args)
        with open(self.dir + "/log", "ab") as log:
            self.process = subprocess.Popen(args, stdout=log, stderr=log, preexec_fn=self.cgroup.enter, start_new_session=True)
        wait_for(self.answers, 30)

    def answers(self):
        if self.process and self.process.poll() is not None:
            with open(self.dir + "/log", errors="replace") as f:
                raise RuntimeError(f"{self.name} has ended: {f.read()[-800:]}")
        try:
            with socket.create_connection(("127.0.0.1", self.port), 2) as s:
                s.settimeout(2)
                return s.recv(4) == b"* OK"
        except OSError:
            return False

    def pids(self):
        with open(self.cgroup.path + "/cgroup.procs") as f:
            return [int(x) for x in f.read().split()]

    def open(self, user=0):
        c = Client(self.port)
        c.run(f"LOGIN bench{user} x")
        return c

    def fill(self, user, source):
        """A copy of the Maildir as that user's INBOX."""
        d = self.maildir(user)
        remove(d)
        os.makedirs(os.path.dirname(d), exist_ok=True)
        subprocess.run(["cp", "-a", source, d], check=True)
        subprocess.run(["chown", "-R", f"{UID}:{UID}", os.path.dirname(d)], check=True)

    def forget(self, user=0):
        """Remove what can be made anew of the INBOX. False: that is not foreseen."""
        for f in os.listdir(self.maildir(user)):
            if f.startswith(self.disposable):
                os.unlink(os.path.join(self.maildir(user), f))
        return True

    def end_sessions(self):
        """What a session is still at when its client has left."""

    def stop(self):
        if self.process:
            self.process.terminate()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        for pid in self.pids():  # a namespace's first process does not die with unshare once it has changed its user
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        shutil.rmtree(self.dir, ignore_errors=True)


class Bulkhead(Peer):
    name = "Bulkhead"
    disposable = ("bulkhead.index", "bulkhead.cache")

    def start(self):
        limits = ["sessions 4000", "sessions-per-address 4000"]
        self.suite = Suite(blocks={"imapd": limits, "pop3d": limits})
        self.port, self.pop_port = self.suite.port["imap"], self.suite.port["pop3"]
        self.tls_port = self.suite.port["imaps"]
        self.cgroup.run(lambda: self.suite.ctl("start"))
        self.suite.add("bench0", "x")
        path = os.path.join(self.suite.dir, "state", "accounts")
        with open(path) as f:
            text = f.read()
        line = next(x for x in text.splitlines() if x.startswith("bench0"))
        name, _, _, directory, _ = line.split(":", 4)
        lines = [f"{name.replace('bench0', f'bench{i}')}:{UID - i}:{UID - i}:{directory.replace('bench0', f'bench{i}')}:{HASH}"
                 for i in range(self.users)]
        with open(path, "r+") as f:
            f.write(text.replace(line, "\n".join(sorted(lines))))
            f.truncate()
        self.suite.ctl("reload")
        wait_for(self.answers, 20)

    def maildir(self, user):
        return self.suite.maildir(f"bench{user}")

    def fill(self, user, source):
        d = self.maildir(user)
        remove(d)
        os.makedirs(os.path.dirname(d), exist_ok=True)
        subprocess.run(["cp", "-a", source, d], check=True)
        subprocess.run(["chown", "-R", f"{UID - user}:{UID - user}", d], check=True)

    def stop(self):
        if hasattr(self, "suite"):
            self.suite.stop()
        shutil.rmtree(self.dir, ignore_errors=True)


class Dovecot(Peer):
    name = "Dovecot"
    disposable = ("dovecot.index", "dovecot.list")

    def start(self):
        need_users("dovecot", "dovenull")
        chain, key = make_certificate(self.dir, ["localhost"])
        with open(self.dir + "/users", "w") as f:
            for i in range(self.users):
                f.write(f"bench{i}:{{CRYPT}}{HASH}:{UID}:{UID}::{self.dir}/mail/{i}::\n")
        protocols = "imap pop3" if glob.glob("/usr/lib/dovecot/pop3") else "imap"
        with open(self.dir + "/conf", "w") as f:
            f.write(f"""
base_dir = {self.dir}/run
state_dir = {self.dir}/state
log_path = {self.dir}/dovecot.log
protocols = {protocols}
listen = 127.0.0.1
ssl = yes
ssl_cert = <{chain}
ssl_key = <{key}
disable_plaintext_auth = no
first_valid_uid = 1
mail_location = maildir:~/Maildir
mail_max_userip_connections = 4000
default_process_limit = 4000
default_client_limit = 20000
default_vsz_limit = 1G
passdb {{
  driver = passwd-file
  args = {self.dir}/users
}}
userdb {{
  driver = passwd-file
  args = {self.dir}/users
}}
service imap-login {{
  inet_listener imap {{
    port = {self.port}
  }}
  inet_listener imaps {{
    port = {self.tls_port}
    ssl = yes
  }}
}}
service imap {{
  process_limit = 4000
}}
""" + (f"""
service pop3-login {{
  inet_listener pop3 {{
    port = {self.pop_port}
  }}
  inet_listener pop3s {{
    port = 0
  }}
}}
""" if "pop3" in protocols else "") + """
service stats {
  unix_listener stats-writer {
    mode = 0666
  }
}
""")
        if "pop3" not in protocols:
            self.pop_port = None
        for sub in ("run", "state", "mail"):
            os.mkdir(f"{self.dir}/{sub}")
        self.spawn("dovecot", "-F", "-c", self.dir + "/conf")

    def maildir(self, user):
        return f"{self.dir}/mail/{user}/Maildir"


OVER = """set -e
mount --make-rprivate /
mount -t overlay overlay -o lowerdir={top}/usr:/usr /usr
mkdir -p {dir}/etc-up {dir}/etc-work
mount -t overlay overlay -o lowerdir={top}/etc:/etc,upperdir={dir}/etc-up,workdir={dir}/etc-work /etc
mount -t tmpfs none /run
"""


class Courier(Peer):
    name = "Courier"
    disposable = ("courierimapuiddb",)

    def start(self):
        need_users("courier")
        top = unpacked("courier", ("courier-imap", "courier-pop"), ("courier-authlib-userdb",))
        users = "".join(f"bench{i}\tuid={UID}|gid={UID}|home={self.dir}/mail/{i}|mail={self.dir}/mail/{i}/Maildir|"
                        f"imappw={HASH}|pop3pw={HASH}\n" for i in range(self.users))
        with open(self.dir + "/userdb", "w") as f:
            f.write(users)
        with open(self.dir + "/inside", "w") as f:
            f.write(OVER.format(top=top, dir=self.dir) + f"""
mkdir -p /run/courier/authdaemon
chown -R courier:courier /run/courier
cp {self.dir}/userdb /etc/courier/userdb
chmod 700 /etc/courier/userdb
sed -i 's/^authmodulelist=.*/authmodulelist="authuserdb"/' /etc/courier/authdaemonrc
makeuserdb
/usr/lib/courier/courier-authlib/authdaemond &
while [ ! -S /run/courier/authdaemon/socket ]; do sleep 0.1; done
set +e -a
. /etc/courier/imapd
IMAP_ENHANCEDIDLE=0 IMAP_USELOCKS=0 IMAP_TLS_REQUIRED=0 IMAP_STARTTLS=NO POP3_STARTTLS=NO SHELL=/bin/sh
tcpd="/usr/sbin/couriertcpd -address=127.0.0.1 -maxprocs=4000 -maxperip=4000 -maxperc=4000 -nodnslookup -noidentlookup"
$tcpd {self.pop_port} /usr/lib/courier/courier/courierpop3login /usr/lib/courier/courier/courierpop3d Maildir &
exec $tcpd {self.port} /usr/lib/courier/courier/imaplogin /usr/bin/imapd Maildir
""")
        self.tls_port = None
        self.spawn("sh", self.dir + "/inside", namespace=True)

    def end_sessions(self):
        for pid in self.pids():
            with open(f"/proc/{pid}/comm") as f:
                if f.read().strip() == "imapd":
                    os.kill(pid, signal.SIGKILL)

    def maildir(self, user):
        return f"{self.dir}/mail/{user}/Maildir"


class Cyrus(Peer):
    name = "Cyrus"
    uses_maildir = False

    def start(self):
        need_users("cyrus")
        # Its library wants the SASL of its own version beside it.
        self.top = unpacked("cyrus", ("cyrus-imapd", "cyrus-pop3d", "sasl2-bin"), ("libsasl2-2", "libsasl2-modules-db"))
        with open(self.dir + "/inside", "w") as f:
            f.write(OVER.format(top=self.top, dir=self.dir) + f"""
mkdir -p /run/cyrus/proc /run/cyrus/lock /run/cyrus/socket {self.dir}/conf {self.dir}/spool
chown -R cyrus /run/cyrus {self.dir}/conf {self.dir}/spool
cat >/etc/imapd.conf <<X
configdirectory: {self.dir}/conf
partition-default: {self.dir}/spool
defaultpartition: default
admins: admin
sasl_pwcheck_method: auxprop
sasl_auxprop_plugin: sasldb
sasl_sasldb_path: {self.dir}/sasldb
sasl_mech_list: PLAIN
allowplaintext: yes
unixhierarchysep: yes
altnamespace: no
popminpoll: 0
proc_path: /run/cyrus/proc
mboxname_lockpath: /run/cyrus/lock
idlesocket: /run/cyrus/socket/idle
notifysocket: /run/cyrus/socket/notify
servername: localhost
X
cat >/etc/cyrus.conf <<X
START {{
  recover cmd="/usr/lib/cyrus/bin/ctl_cyrusdb -r"
}}
SERVICES {{
  imap cmd="imapd" listen="127.0.0.1:{self.port}" prefork=0 maxchild=4000 maxforkrate=10000
  pop3 cmd="pop3d" listen="127.0.0.1:{self.pop_port}" prefork=0 maxchild=4000 maxforkrate=10000
}}
EVENTS {{
}}
X
for u in admin {' '.join(f'bench{i}' for i in range(self.users))}; do
    echo x | saslpasswd2 -p -c -f {self.dir}/sasldb -u localhost $u
done
chown cyrus {self.dir}/sasldb
exec /usr/sbin/cyrmaster -D -M /etc/cyrus.conf -C /etc/imapd.conf -p {self.dir}/pid
""")
        self.tls_port = None
        self.spawn("sh", self.dir + "/inside", namespace=True)

    def fill(self, user, source):
        admin = Client(self.port)
        admin.run("LOGIN admin x")
        try:
            admin.run(f"SETACL user/bench{user} admin lrswipkxtecda")
            admin.run(f"DELETE user/bench{user}")
        except RuntimeError:
            pass
        admin.run(f"CREATE user/bench{user}")
        admin.close()
        cache = glob.glob(f"{self.dir}/spool/**/cyrus.index", recursive=True)
        spool = os.path.dirname(next(x for x in cache if self.is_of(x, user)))
        names = sorted(os.listdir(source + "/cur"))
        for i, name in enumerate(names):
            copy_file(f"{source}/cur/{name}", f"{spool}/{i + 1}.")
        subprocess.run(["chown", "-R", "cyrus", spool], check=True)
        inside = subprocess.run(["pgrep", "-P", str(self.process.pid)], capture_output=True, text=True).stdout.split()[0]
        p = subprocess.run(["nsenter", "-m", "-t", inside, "setpriv", "--reuid=cyrus", "--clear-groups",
                            "/usr/lib/cyrus/bin/reconstruct", "-C", "/etc/imapd.conf", f"user/bench{user}"],
                           capture_output=True, text=True)
        if p.returncode:
            raise RuntimeError(f"reconstruct: {p.stdout}{p.stderr}")
        c = self.open(user)
        c.run("SELECT INBOX")
        for flag in "SFR":
            numbers = [i + 1 for i, n in enumerate(names) if flag in n.partition(":2,")[2]]
            word = {"S": "\\Seen", "F": "\\Flagged", "R": "\\Answered"}[flag]
            for k in range(0, len(numbers), 500):
                c.run(f"STORE {','.join(map(str, numbers[k:k + 500]))} +FLAGS.SILENT ({word})")
        c.close()

    def is_of(self, path, user):
        with open(os.path.join(os.path.dirname(path), "cyrus.header"), "rb") as f:
            return b"N user.bench%d " % user in f.read()

    def forget(self, user=0):
        return False


def copy_file(source, target):
    with open(source, "rb") as f, open(target, "wb") as g:
        g.write(f.read())
    st = os.stat(source)
    os.utime(target, (st.st_atime, st.st_mtime))
