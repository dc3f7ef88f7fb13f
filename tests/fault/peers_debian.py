"""Postfix, Exim and OpenSMTPD of Debian, each in a private directory, with queue and mailboxes on a disk of their own, for
check_powercut.py --peer. Exim and OpenSMTPD are not installed: their packages are fetched with apt-get download and unpacked
below a directory of ours. The settings are the defaults but for what the rig needs: addresses, short retries, Maildirs."""
import glob
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time

from rig import Host, free_ports, wait_for

LIST = {"team": "box bin far@far.example", "slow": "slow@far.example", "gone": "gone@far.example",
        "both": "box bin far@far.example slow@far.example"}


def need_users(*names):
    for n in names:
        if run("id", n).returncode:
            subprocess.run(["useradd", "--system", "--no-create-home", "--shell", "/usr/sbin/nologin", "--user-group", n],
                           check=True)


def run(*args, **more):
    return subprocess.run(args, capture_output=True, text=True, **more)


def unpacked(*packages):
    """A directory with the files of these packages."""
    top = os.path.join(os.environ.get("BULKHEAD_PEERS", "/var/tmp/bulkhead-peers"), packages[0])
    if not os.path.isdir(top):
        os.makedirs(top)
        for p in packages:
            if run("apt-get", "download", p, cwd=top).returncode:
                shutil.rmtree(top)
                raise RuntimeError(f"apt-get download {p} fails")
        for deb in glob.glob(top + "/*.deb"):
            subprocess.run(["dpkg", "-x", deb, top], check=True)
    return top


class Peer:
    """What all of them share. promises_once: never twice in a Maildir."""

    promises_once = False

    def __init__(self):
        self.dir = tempfile.mkdtemp(prefix="bulkhead-peer-")
        os.chmod(self.dir, 0o755)
        self.disk = self.dir + "/disk"
        os.mkdir(self.disk)
        self.host = Host()
        self.port, = free_ports(1)
        self.up = False
        self.configure()

    def write(self, path, text):
        path = os.path.join(self.dir, path)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w") as f:
            f.write(text)
        return path

    def send(self, client, token, rcpts, size):
        self.host.seen.clear()
        return client.send(token, rcpts, size)

    def drain(self, seconds):
        end, asked = time.monotonic() + seconds, 0.0
        quiet = 0
        while quiet < 3:
            if time.monotonic() > end:
                return False
            quiet = quiet + 1 if not self.queued() else 0
            if self.queued() and time.monotonic() > asked + 0.5:
                self.flush()
                asked = time.monotonic()
            time.sleep(0.05)
        return True

    def boxes(self):
        out = {}
        for name in ("box", "bin"):
            out[name] = []
            for sub in ("new", "cur"):
                for p in glob.glob(f"{self.disk}/mail/{name}/{sub}/*"):
                    with open(p, "rb") as f:
                        out[name].append(f.read())
        return out

    def answers(self):
        import socket
        try:
            with socket.create_connection(("127.0.0.1", self.port), 2) as s:
                s.settimeout(5)
                return s.recv(3) == b"220"
        except OSError:
            return False

    def remove(self):
        self.stop()
        self.host.stop()
        shutil.rmtree(self.dir, ignore_errors=True)


class Postfix(Peer):
    name = "postfix"

    def configure(self):
        self.etc = self.dir + "/etc"
        lists = "\n".join(f"{k}@example.org {', '.join(a if '@' in a else a + '@example.org' for a in v.split())}"
                          for k, v in LIST.items())
        self.write("etc/virtual", lists + "\n")
        self.write("etc/main.cf", f"""compatibility_level = 3.6
myhostname = mx.example.org
mydestination =
inet_interfaces = loopback-only
inet_protocols = ipv4
queue_directory = {self.disk}/spool
data_directory = {self.dir}/data
virtual_mailbox_domains = example.org
virtual_mailbox_base = {self.disk}/mail
virtual_mailbox_maps = inline:{{ {{box@example.org=box/}}, {{bin@example.org=bin/}} }}
virtual_alias_maps = texthash:{self.etc}/virtual
virtual_uid_maps = static:65534
virtual_gid_maps = static:65534
mynetworks = 127.0.0.0/8
alias_maps =
alias_database =
relayhost = [127.0.0.1]:{self.host.port}
minimal_backoff_time = 1s
maximal_backoff_time = 1s
queue_run_delay = 1s
smtpd_client_connection_count_limit = 0
in_flow_delay = 0
maillog_file = {self.dir}/log
maillog_file_prefixes = {self.dir}
""")
        source = next(p for p in ("/usr/share/postfix/master.cf.dist", "/etc/postfix/master.cf") if os.path.exists(p))
        with open(source) as f:
            text = f.read()
        text = re.sub(r"(?m)^smtp\s+inet.*$", f"127.0.0.1:{self.port} inet n - n - - smtpd", text)
        text = re.sub(r"(?m)^(\S+\s+(?:unix|fifo|inet)\s+\S+\s+\S+\s+)y", r"\1n", text)
        self.write("etc/master.cf", text)
        os.mkdir(self.dir + "/data")
        shutil.chown(self.dir + "/data", "postfix")
        os.chmod(self.write("log", ""), 0o666)

    def prepare(self):
        os.mkdir(self.disk + "/spool")
        os.mkdir(self.disk + "/mail")
        shutil.chown(self.disk + "/mail", "nobody", "nogroup")
        self.start()
        self.stop()
        subprocess.run(["sync", "-f", self.disk], check=True)

    def start(self):
        self.host.seen.clear()
        p = run("postfix", "-c", self.etc, "start")
        if p.returncode:
            raise RuntimeError("postfix start: " + p.stdout + p.stderr)
        self.up = True
        wait_for(self.answers)

    def queued(self):
        """Whole ones: a file that is not executable was never finished, and waits to be swept."""
        out = []
        for d in ("incoming", "active", "deferred", "maildrop", "hold"):
            for top, _, files in os.walk(f"{self.disk}/spool/{d}"):
                for name in files:
                    try:
                        if os.stat(f"{top}/{name}").st_mode & 0o100:
                            out.append(name)
                    except OSError:
                        pass
        return out

    def flush(self):
        run("postqueue", "-c", self.etc, "-f")

    def stop(self):
        if self.up:
            run("postfix", "-c", self.etc, "stop")
        self.up = False


class Exim(Peer):
    """As one user, whom the daemon never leaves: it has no set-uid file here."""

    name = "exim"
    user = "Debian-exim"

    def configure(self):
        self.top = unpacked("exim4-daemon-light", "exim4-base")
        need_users("Debian-exim")  # compiled in
        self.exim = self.top + "/usr/sbin/exim4"
        aliases = "\n".join(f"{k}: {', '.join(a if '@' in a else a + '@example.org' for a in v.split())}"
                            for k, v in LIST.items())
        self.write("aliases", aliases + "\n")
        self.conf = self.write("exim.conf", f"""exim_path = {self.exim}
exim_user = {self.user}
exim_group = {self.user}
primary_hostname = mx.example.org
spool_directory = {self.disk}/spool
log_file_path = {self.disk}/log-%slog
pid_file_path = {self.dir}/run/exim.pid
local_interfaces = 127.0.0.1
daemon_smtp_ports = {self.port}
hostlist relay_from = 127.0.0.1
acl_smtp_rcpt = accept
deliver_drop_privilege = true
smtp_accept_max = 200
smtp_accept_max_per_host = 200
smtp_accept_queue_per_connection = 0
queue_run_in_order = false
keep_environment =
tls_advertise_hosts =
dsn_advertise_hosts =
timeout_frozen_after = 0s
begin routers
aliases:
  driver = redirect
  domains = example.org
  data = ${{lookup{{$local_part}}lsearch{{{self.dir}/aliases}}}}
boxes:
  driver = accept
  domains = example.org
  local_parts = box : bin
  transport = maildir
others:
  driver = manualroute
  domains = far.example
  route_list = * 127.0.0.1
  self = send
  transport = smtp
begin transports
maildir:
  driver = appendfile
  directory = {self.disk}/mail/$local_part_data
  maildir_format
  create_directory
smtp:
  driver = smtp
  port = {self.host.port}
  allow_localhost
  hosts_avoid_tls = *
begin retry
* * F,1h,1s
""")
        os.mkdir(self.dir + "/run")
        shutil.chown(self.dir + "/run", self.user, self.user)

    def exim_run(self, *args):
        return run(self.exim, "-C", self.conf, *args, user=self.user, group=self.user, extra_groups=[])

    def prepare(self):
        for d in ("spool", "mail"):
            os.mkdir(f"{self.disk}/{d}")
            shutil.chown(f"{self.disk}/{d}", self.user, self.user)
        shutil.chown(self.disk, self.user, self.user)
        self.start()
        self.stop()
        subprocess.run(["sync", "-f", self.disk], check=True)

    def start(self):
        self.host.seen.clear()
        with open(self.dir + "/errors", "ab") as errors:
            self.daemon = subprocess.Popen([self.exim, "-C", self.conf, "-bdf", "-q1s"], stdout=errors, stderr=errors,
                                           start_new_session=True, user=self.user, group=self.user, extra_groups=[])
        self.up = True
        wait_for(self.answers)

    def queued(self):
        return glob.glob(self.disk + "/spool/input/*-H") + glob.glob(self.disk + "/spool/input/*/*-H")

    def flush(self):
        self.exim_run("-qff")

    def stop(self):
        if self.up:
            try:
                os.killpg(self.daemon.pid, signal.SIGTERM)
                self.daemon.wait(10)
            except (OSError, subprocess.TimeoutExpired):
                os.killpg(self.daemon.pid, signal.SIGKILL)
                self.daemon.wait(10)
            time.sleep(0.1)
        self.up = False


class OpenSMTPD(Peer):
    """Its paths are compiled in: it runs in a mount namespace of its own, where they lead to ours."""

    name = "opensmtpd"

    def configure(self):
        self.top = unpacked("opensmtpd")
        need_users("opensmtpd", "opensmtpq")
        lists = "".join(f"{k}@example.org {', '.join(a if '@' in a else a + '@example.org' for a in v.split())}\n"
                        for k, v in LIST.items())
        self.write("virtual", lists + "box@example.org box\nbin@example.org bin\n")
        self.write("users", "".join(f"{n} 65534:65534:{self.disk}/mail/{n}\n" for n in ("box", "bin")))
        self.conf = self.write("smtpd.conf", f"""listen on 127.0.0.1 port {self.port} hostname mx.example.org
table lists file:{self.dir}/virtual
table users file:{self.dir}/users
action "boxes" maildir "%{{user.directory}}" userbase <users> virtual <lists>
action "others" relay host smtp://127.0.0.1:{self.host.port}
match from any for domain "example.org" action "boxes"
match from any for any action "others"
""")
        self.inside = self.write("inside", f"""set -e
mount --make-rprivate /
mount --bind {self.top}/usr/libexec /usr/libexec
for d in /var/spool /var/lib /run; do mount -t tmpfs none $d; done
mkdir -p /var/spool/smtpd /var/lib/opensmtpd/empty
mount --bind {self.disk}/spool /var/spool/smtpd
exec {self.top}/usr/sbin/smtpd -d -f {self.conf}
""")

    def prepare(self):
        os.mkdir(self.disk + "/mail")
        shutil.chown(self.disk + "/mail", "nobody", "nogroup")
        os.mkdir(self.disk + "/spool")
        os.chmod(self.disk + "/spool", 0o711)
        self.start()
        self.stop()
        subprocess.run(["sync", "-f", self.disk], check=True)

    def start(self):
        self.host.seen.clear()
        with open(self.dir + "/log", "ab") as log:
            self.daemon = subprocess.Popen(["unshare", "-m", "sh", self.inside], stdout=log, stderr=log,
                                           start_new_session=True)
        self.up = True
        wait_for(self.answers)

    def queued(self):
        """Its envelopes; an empty one, as a cut may leave it, is never tried."""
        out = []
        for p in glob.glob(self.disk + "/spool/queue/*/*/*"):
            try:
                if os.path.basename(p) != "message" and os.path.getsize(p):
                    out.append(p)
            except OSError:
                pass
        return out

    def flush(self):
        run("nsenter", "-m", "-t", str(self.daemon.pid), "setpriv", "--regid=opensmtpq", "--clear-groups",
            self.top + "/usr/sbin/smtpctl", "schedule", "all")

    def stop(self):
        if self.up:
            self.daemon.terminate()
            try:
                self.daemon.wait(10)
            except subprocess.TimeoutExpired:
                self.daemon.kill()
                self.daemon.wait(10)
            time.sleep(0.2)
        self.up = False


PEERS = {"postfix": Postfix, "exim": Exim, "opensmtpd": OpenSMTPD}
