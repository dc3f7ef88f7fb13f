"""The mail systems that bench_smtp.py compares, each in a private directory and a cgroup of its own: Bulkhead, Postfix
(installed), Exim and OpenSMTPD (unpacked from their Debian packages).

What each does with a message is one of three ways: "accept": taken into the queue, and delivery is stopped; "maildir":
delivered to the Maildir of sink@example.org; "relay": sent on to smtp-sink. All sync a message before its 250, log a line or
more for it to a file, count the connections of an address with a limit (1,000) that is not reached, and look the recipient up."""
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.join(HERE, ".."), os.path.join(HERE, "..", "fault")]
from harness import Suite, free_ports, wait_for  # noqa: E402

SINK = "sink@example.org"


class Cgroup:
    """CPU seconds of a system; started through run()."""

    def __init__(self, name):
        self.path = None
        for base in ("/sys/fs/cgroup", "/sys/fs/cgroup/unified"):
            if os.path.exists(f"{base}/cgroup.procs"):
                try:
                    self.path = f"{base}/bulkhead-bench-{name}-{os.getpid()}"
                    os.mkdir(self.path)
                    return
                except OSError:
                    self.path = None
        mount = tempfile.mkdtemp(prefix="bench-cgroup-")
        if subprocess.run(["mount", "-t", "cgroup2", "none", mount], capture_output=True).returncode == 0:
            self.path = f"{mount}/bulkhead-bench-{name}-{os.getpid()}"
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


class Sink:
    """smtp-sink, and how many messages it has had."""

    def __init__(self):
        self.port, = free_ports(1)
        self.out = tempfile.TemporaryFile()
        self.p = subprocess.Popen(["smtp-sink", "-c", "-u", "nobody", f"127.0.0.1:{self.port}", "1000"], stdout=self.out,
                                  stderr=subprocess.DEVNULL)

    def count(self):
        size = self.out.seek(0, os.SEEK_END)
        self.out.seek(max(0, size - 200))
        found = re.findall(rb"mesg=(\d+)\s*\r", self.out.read())
        return int(found[-1]) if found else 0

    def stop(self):
        self.p.kill()
        self.p.wait()


class System:
    def __init__(self, way):
        self.way = way
        self.rcpt = "someone@far.example" if way == "relay" else SINK
        self.sink = Sink() if way == "relay" else None
        self.cgroup = Cgroup(f"{self.name}-{way}".lower())
        self.start()
        self.warm_up()
        if way == "accept":
            self.hold()

    def delivered(self):
        if self.sink:
            return self.sink.count()
        try:
            return sum(1 for _ in os.scandir(self.maildir + "/new"))
        except FileNotFoundError:
            return 0

    def source(self, *more, rcpt=None):
        p = subprocess.run(["smtp-source", "-f", "sender@client.example", "-t", rcpt or self.rcpt, *more,
                            f"inet:127.0.0.1:{self.port}"], capture_output=True, text=True, timeout=600)
        if p.returncode:
            raise RuntimeError(f"{self.name}: smtp-source: {p.stderr[-500:]}")

    def warm_up(self):
        wait_for(lambda: self.answers(), 20)
        self.source("-m", "1")
        wait_for(lambda: self.delivered() == 1, 20)

    def answers(self):
        import socket
        try:
            with socket.create_connection(("127.0.0.1", self.port), 2) as s:
                s.settimeout(5)
                return s.recv(3) == b"220"
        except OSError:
            return False

    def stop(self):
        if self.sink:
            self.sink.stop()
        self.end()


class Bulkhead(System):
    name = "Bulkhead"

    def start(self):
        relay = [f"via 127.0.0.1 port {self.sink.port}", "tls no"] if self.sink else []
        self.suite = Suite(tls=False, queue="local-deliveries 20\nrelay-sessions 100\ndestination-sessions 20",
                           blocks={"smtpd": ["sessions-per-address 1000", "sessions 1000", "relay-from 127.0.0.1"],
                                   "relay": relay})
        self.cgroup.run(lambda: self.suite.ctl("start"))
        self.suite.add("sink", "secret")
        self.port = self.suite.port["smtp"]
        self.maildir = f"{self.suite.dir}/mail/example.org/sink"

    def hold(self):
        """Local's listener and the sessions it has."""
        local = next(r["pid"] for r in self.suite.status() if r["program"] == "local")
        kids = subprocess.run(["pgrep", "-P", str(local)], capture_output=True, text=True).stdout.split()
        self.held = [local, *map(int, kids)]
        for pid in self.held:
            os.kill(pid, signal.SIGSTOP)

    def end(self):
        for pid in getattr(self, "held", ()):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        self.suite.stop()


class Private(System):
    """A peer: its directory."""

    def __init__(self, way):
        self.dir = tempfile.mkdtemp(prefix=f"bench-{self.name}-".lower())
        os.chmod(self.dir, 0o755)
        os.mkdir(self.dir + "/mail")
        self.maildir = self.dir + "/mail/sink"
        self.port, = free_ports(1)
        super().__init__(way)

    def write(self, path, text):
        path = os.path.join(self.dir, path)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w") as f:
            f.write(text)
        return path

    def end(self):
        self.halt()
        shutil.rmtree(self.dir, ignore_errors=True)


class Postfix(Private):
    name = "Postfix"

    def start(self):
        self.etc = self.dir + "/etc"
        for sub in ("spool", "data"):
            os.mkdir(f"{self.dir}/{sub}")
        shutil.chown(f"{self.dir}/data", "postfix")
        shutil.chown(f"{self.dir}/mail", "nobody", "nogroup")
        relay = f"relayhost = [127.0.0.1]:{self.sink.port}\n" if self.sink else ""
        self.write("etc/main.cf", f"""compatibility_level = 3.6
myhostname = mx.example.org
mydestination =
inet_interfaces = loopback-only
inet_protocols = ipv4
queue_directory = {self.dir}/spool
data_directory = {self.dir}/data
virtual_mailbox_domains = example.org
virtual_mailbox_base = {self.dir}/mail
virtual_mailbox_maps = static:sink/
virtual_mailbox_limit = 0
virtual_uid_maps = static:65534
virtual_gid_maps = static:65534
message_size_limit = 52428800
mynetworks = 127.0.0.0/8
alias_maps =
alias_database =
default_process_limit = 600
smtpd_client_connection_count_limit = 1000
smtpd_client_connection_rate_limit = 0
in_flow_delay = 0
minimal_backoff_time = 1h
maillog_file = {self.dir}/log
maillog_file_prefixes = {self.dir}
{relay}""")
        source = next(p for p in ("/usr/share/postfix/master.cf.dist", "/etc/postfix/master.cf") if os.path.exists(p))
        with open(source) as f:
            text = f.read()
        text = re.sub(r"(?m)^smtp\s+inet.*$", f"127.0.0.1:{self.port} inet n - n - - smtpd", text)
        text = re.sub(r"(?m)^(\S+\s+(?:unix|fifo|inet)\s+\S+\s+\S+\s+)y", r"\1n", text)
        self.write("etc/master.cf", text)
        self.cgroup.run(lambda: subprocess.run(["postfix", "-c", self.etc, "start"], check=True, capture_output=True))

    def hold(self):
        with open(f"{self.dir}/spool/pid/master.pid") as f:
            master = int(f.read())
        self.held = int(wait_for(lambda: subprocess.run(["pgrep", "-P", str(master), "-x", "virtual"], capture_output=True,
                                                        text=True).stdout.strip()))
        subprocess.run(["postconf", "-c", self.etc, "virtual_destination_concurrency_limit=1"], check=True)
        subprocess.run(["postfix", "-c", self.etc, "reload"], check=True, capture_output=True)
        time.sleep(1)
        self.source("-m", "1")
        self.held = int(wait_for(lambda: subprocess.run(["pgrep", "-P", str(master), "-x", "virtual"], capture_output=True,
                                                        text=True).stdout.strip()))
        os.kill(self.held, signal.SIGSTOP)

    def halt(self):
        if hasattr(self, "held"):
            os.kill(self.held, signal.SIGKILL)
        subprocess.run(["postfix", "-c", self.etc, "stop"], capture_output=True)


class Exim(Private):
    """As one user, whom the daemon never leaves: it has no set-uid file here."""

    name = "Exim"
    user = "Debian-exim"

    def start(self):
        from peers_debian import need_users, unpacked
        need_users(self.user)
        self.exim = unpacked("exim4-daemon-light", "exim4-base") + "/usr/sbin/exim4"
        for sub in ("spool", "log", "run", "mail"):
            os.makedirs(f"{self.dir}/{sub}", exist_ok=True)
            shutil.chown(f"{self.dir}/{sub}", self.user, self.user)
        self.write("exim.conf", f"""exim_path = {self.exim}
exim_user = {self.user}
exim_group = {self.user}
primary_hostname = mx.example.org
spool_directory = {self.dir}/spool
log_file_path = {self.dir}/log/%slog
pid_file_path = {self.dir}/run/exim.pid
local_interfaces = 127.0.0.1
daemon_smtp_ports = {self.port}
acl_smtp_rcpt = rcpt
deliver_drop_privilege = true
smtp_accept_max = 1000
smtp_accept_max_per_host = 1000
smtp_accept_queue_per_connection = 0
smtp_connect_backlog = 500
remote_max_parallel = 20
keep_environment =
tls_advertise_hosts =
begin acl
rcpt:
  accept domains = example.org
         local_parts = sink
  accept domains = far.example
  deny
begin routers
box:
  driver = accept
  domains = example.org
  local_parts = sink
  transport = maildir
far:
  driver = manualroute
  domains = far.example
  route_list = * 127.0.0.1
  self = send
  transport = smtp
begin transports
maildir:
  driver = appendfile
  directory = {self.dir}/mail/$local_part_data
  maildir_format
  create_directory
smtp:
  driver = smtp
  port = {self.sink.port if self.sink else 1}
  allow_localhost
  hosts_avoid_tls = *
begin retry
* * F,1h,1h
""")
        self.daemon()

    def daemon(self, *more):
        self.cgroup.run(lambda: subprocess.Popen([self.exim, "-C", self.dir + "/exim.conf", "-bd", *more], user=self.user,
                                                 group=self.user, extra_groups=[], stderr=subprocess.DEVNULL).wait())

    def hold(self):
        self.halt()
        self.daemon("-odq")
        wait_for(self.answers, 20)

    def halt(self):
        try:
            with open(self.dir + "/run/exim.pid") as f:
                os.kill(int(f.read()), signal.SIGTERM)
        except (OSError, ValueError):
            pass
        time.sleep(1)


class OpenSMTPD(Private):
    """Its paths are compiled in: it runs in a mount namespace of its own, where they lead to ours."""

    name = "OpenSMTPD"

    def start(self):
        from peers_debian import need_users, unpacked
        need_users("opensmtpd", "opensmtpq")
        self.top = unpacked("opensmtpd")
        shutil.chown(f"{self.dir}/mail", "nobody", "nogroup")
        os.mkdir(self.dir + "/spool")
        os.chmod(self.dir + "/spool", 0o711)
        self.write("recipients", "sink@example.org sink\n")
        self.write("users", f"sink 65534:65534:{self.maildir}\n")
        # It asks for the name of each client; names come from /etc/hosts here, and no name server makes it wait.
        self.write("resolv.conf", "lookup file\n")
        self.write("smtpd.conf", f"""smtp limit max-mails 1000000
listen on 127.0.0.1 port {self.port} hostname mx.example.org
table recipients file:{self.dir}/recipients
table users file:{self.dir}/users
action "box" maildir "%{{user.directory}}" userbase <users> virtual <recipients>
action "far" relay host smtp://127.0.0.1:{self.sink.port if self.sink else 1}
match from any for domain "example.org" action "box"
match from any for any action "far"
""")
        self.write("inside", f"""set -e
mount --make-rprivate /
mount --bind {self.top}/usr/libexec /usr/libexec
for d in /var/spool /var/lib /run; do mount -t tmpfs none $d; done
mkdir -p /var/spool/smtpd /var/lib/opensmtpd/empty
mount --bind {self.dir}/spool /var/spool/smtpd
mount --bind {self.dir}/resolv.conf /etc/resolv.conf
exec {self.top}/usr/sbin/smtpd -d -f {self.dir}/smtpd.conf
""")
        log = open(self.dir + "/log", "ab")

        def begin():
            p = subprocess.Popen(["unshare", "-m", "sh", self.dir + "/inside"], stdout=log, stderr=log, start_new_session=True)
            self.write("pid", str(p.pid))
        self.cgroup.run(begin)
        with open(self.dir + "/pid") as f:
            self.pid = int(f.read())

    def hold(self):
        subprocess.run(["nsenter", "-m", "-t", str(self.pid), "setpriv", "--regid=opensmtpq", "--clear-groups",
                        self.top + "/usr/sbin/smtpctl", "pause", "mda"], check=True, capture_output=True)

    def halt(self):
        try:
            os.killpg(self.pid, signal.SIGTERM)
        except ProcessLookupError:
            pass
        time.sleep(1)


SYSTEMS = (Bulkhead, Postfix, Exim, OpenSMTPD)
