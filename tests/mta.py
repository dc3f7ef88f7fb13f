"""Postfix, Exim and OpenSMTPD of Debian, each in a private directory, and groups of processes: what the fault rigs and the
benches share. Exim and OpenSMTPD are not installed: their packages are fetched with apt-get download and unpacked below a
directory of ours."""
import contextlib
import glob
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time

from harness import free_ports


def run(*args, **more):
    return subprocess.run(args, capture_output=True, text=True, **more)


def need_users(*names):
    for n in names:
        if run("id", n).returncode:
            subprocess.run(["useradd", "--system", "--no-create-home", "--shell", "/usr/sbin/nologin", "--user-group", n],
                           check=True)


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


def greets(port):
    try:
        with socket.create_connection(("127.0.0.1", port), 2) as s:
            s.settimeout(5)
            return s.recv(3) == b"220"
    except OSError:
        return False


class Cgroup:
    """The processes of a system: their CPU seconds, and their end all at once. It is started through run() or inside()."""

    def __init__(self, name):
        self.path = None
        for base in ("/sys/fs/cgroup", "/sys/fs/cgroup/unified"):
            if os.path.exists(f"{base}/cgroup.procs"):
                try:
                    self.path = f"{base}/bulkhead-{name}-{os.getpid()}"
                    os.mkdir(self.path)
                    return
                except OSError:
                    self.path = None
        mount = tempfile.mkdtemp(prefix="bulkhead-cgroup-")
        if subprocess.run(["mount", "-t", "cgroup2", "none", mount], capture_output=True).returncode == 0:
            self.path = f"{mount}/bulkhead-{name}-{os.getpid()}"
            os.mkdir(self.path)

    def enter(self):
        if self.path:
            with open(f"{self.path}/cgroup.procs", "w") as f:
                f.write(str(os.getpid()))

    def cpu(self):
        if not self.path:
            return float("nan")
        with open(f"{self.path}/cpu.stat") as f:
            for line in f:
                if line.startswith("usage_usec"):
                    return int(line.split()[1]) / 1e6
        return float("nan")

    @contextlib.contextmanager
    def inside(self):
        """This process is in the group meanwhile, and what it starts stays there."""
        with open("/proc/self/cgroup") as f:
            home = next(line.split("::")[1].strip() for line in f if line.startswith("0::"))
        self.enter()
        try:
            yield
        finally:
            with open(os.path.dirname(self.path) + home.rstrip("/") + "/cgroup.procs", "w") as f:
                f.write(str(os.getpid()))

    def kill(self):
        """All of it, with SIGKILL, at one instant; gone when this returns."""
        with open(f"{self.path}/cgroup.kill", "w") as f:
            f.write("1")
        with open(f"{self.path}/cgroup.events") as f:
            while "populated 1" in f.read():
                time.sleep(0.005)
                f.seek(0)

    def run(self, fn):
        """Run fn() in a child inside the group (what it starts stays there)."""
        pid = os.fork()
        if pid == 0:
            try:
                self.enter()
                fn()
                os._exit(0)
            except BaseException as e:  # noqa: BLE001
                print(e, file=sys.stderr)
                os._exit(1)
        _, status = os.waitpid(pid, 0)
        assert status == 0


class Private:
    """A directory and a port of its own."""

    def __init__(self, name):
        self.dir = tempfile.mkdtemp(prefix=f"bulkhead-{name}-".lower())
        os.chmod(self.dir, 0o755)
        self.port, = free_ports(1)

    def write(self, path, text):
        path = os.path.join(self.dir, path)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w") as f:
            f.write(text)
        return path

    def answers(self):
        return greets(self.port)

    def remove(self):
        shutil.rmtree(self.dir, ignore_errors=True)


class Postfix(Private):
    def postfix_files(self, disk, more):
        """Its configuration in etc/; spool and mail below `disk`; `more`: main.cf's lines for the mail of example.org."""
        self.etc = self.dir + "/etc"
        self.write("etc/main.cf", f"""compatibility_level = 3.6
myhostname = mx.example.org
mydestination =
inet_interfaces = loopback-only
inet_protocols = ipv4
queue_directory = {disk}/spool
data_directory = {self.dir}/data
virtual_mailbox_domains = example.org
virtual_mailbox_base = {disk}/mail
virtual_uid_maps = static:65534
virtual_gid_maps = static:65534
mynetworks = 127.0.0.0/8
alias_maps =
alias_database =
in_flow_delay = 0
maillog_file = {self.dir}/log
maillog_file_prefixes = {self.dir}
{more}""")
        source = next(p for p in ("/usr/share/postfix/master.cf.dist", "/etc/postfix/master.cf") if os.path.exists(p))
        with open(source) as f:
            text = f.read()
        text = re.sub(r"(?m)^smtp\s+inet.*$", f"127.0.0.1:{self.port} inet n - n - - smtpd", text)
        text = re.sub(r"(?m)^(\S+\s+(?:unix|fifo|inet)\s+\S+\s+\S+\s+)y", r"\1n", text)
        self.write("etc/master.cf", text)
        os.mkdir(self.dir + "/data")
        shutil.chown(self.dir + "/data", "postfix")
        os.chmod(self.write("log", ""), 0o666)

    def postfix(self, *args):
        p = run("postfix", "-c", self.etc, *args)
        if p.returncode:
            raise RuntimeError(f"postfix {args}: {p.stdout}{p.stderr}")


class Exim(Private):
    """As one user, whom the daemon never leaves: it has no set-uid file here."""

    user = "Debian-exim"  # compiled in

    def exim_files(self, disk, far_port, routers, retry, more):
        """Its configuration; spool and mail below `disk`; `more`: lines of the main part, and the ACLs."""
        need_users(self.user)
        self.exim = unpacked("exim4-daemon-light", "exim4-base") + "/usr/sbin/exim4"
        os.mkdir(self.dir + "/run")
        shutil.chown(self.dir + "/run", self.user, self.user)
        self.conf = self.write("exim.conf", f"""exim_path = {self.exim}
exim_user = {self.user}
exim_group = {self.user}
primary_hostname = mx.example.org
spool_directory = {disk}/spool
log_file_path = {disk}/log-%slog
pid_file_path = {self.dir}/run/exim.pid
local_interfaces = 127.0.0.1
daemon_smtp_ports = {self.port}
deliver_drop_privilege = true
smtp_accept_queue_per_connection = 0
keep_environment =
tls_advertise_hosts =
{more}
begin routers
{routers}
far:
  driver = manualroute
  domains = far.example
  route_list = * 127.0.0.1
  self = send
  transport = smtp
begin transports
maildir:
  driver = appendfile
  directory = {disk}/mail/$local_part_data
  maildir_format
  create_directory
smtp:
  driver = smtp
  port = {far_port}
  allow_localhost
  hosts_avoid_tls = *
begin retry
* * F,1h,{retry}
""")

    def exim_owns(self, disk, *subs):
        for path in (disk, *(f"{disk}/{sub}" for sub in subs)):
            os.makedirs(path, exist_ok=True)
            shutil.chown(path, self.user, self.user)

    def as_exim(self):
        return {"user": self.user, "group": self.user, "extra_groups": []}


class OpenSMTPD(Private):
    """Its paths are compiled in: it runs in a mount namespace of its own, where they lead to ours."""

    def opensmtpd_files(self, disk, actions, more=""):
        """Its configuration, with the tables that this class wrote; spool below `disk`; `more`: mounts."""
        self.top = unpacked("opensmtpd")
        need_users("opensmtpd", "opensmtpq")
        self.write("smtpd.conf", actions)
        self.inside = self.write("inside", f"""set -e
mount --make-rprivate /
mount --bind {self.top}/usr/libexec /usr/libexec
for d in /var/spool /var/lib /run; do mount -t tmpfs none $d; done
mkdir -p /var/spool/smtpd /var/lib/opensmtpd/empty
mount --bind {disk}/spool /var/spool/smtpd
{more}
exec {self.top}/usr/sbin/smtpd -d -f {self.dir}/smtpd.conf
""")

    def opensmtpd_begins(self):
        with open(self.dir + "/log", "ab") as log:
            return subprocess.Popen(["unshare", "-m", "sh", self.inside], stdout=log, stderr=log, start_new_session=True)

    def smtpctl(self, pid, *args):
        """One whose processes have had a fault may never answer it."""
        return run("timeout", "10", "nsenter", "-m", "-t", str(pid), "setpriv", "--regid=opensmtpq", "--clear-groups",
                   self.top + "/usr/sbin/smtpctl", *args)
