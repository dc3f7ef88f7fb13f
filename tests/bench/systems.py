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
sys.path.insert(0, os.path.join(HERE, ".."))
import mta  # noqa: E402
from harness import BIN, Suite, free_ports, wait_for  # noqa: E402

SINK = "sink@example.org"
BARE = os.path.join(os.path.dirname(BIN), "bare_server")


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
        self.cgroup = mta.Cgroup(f"{self.name}-{way}".lower())
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
        return mta.greets(self.port)

    def stop(self):
        if self.sink:
            self.sink.stop()
        self.end()


class Bulkhead(System):
    name = "Bulkhead"

    def start(self):
        relay = [f"via 127.0.0.1 port {self.sink.port}", "tls no"] if self.sink else []
        self.suite = Suite(tls=False, queue="local-deliveries 40\nrelay-sessions 100\ndestination-sessions 20",
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
        mta.Private.__init__(self, self.name)
        os.mkdir(self.dir + "/mail")
        self.maildir = self.dir + "/mail/sink"
        super().__init__(way)

    def end(self):
        self.halt()
        self.remove()


class Postfix(Private, mta.Postfix):
    name = "Postfix"

    def start(self):
        relay = f"relayhost = [127.0.0.1]:{self.sink.port}\n" if self.sink else ""
        self.postfix_files(self.dir, f"""virtual_mailbox_maps = static:sink/
virtual_mailbox_limit = 0
message_size_limit = 52428800
default_process_limit = 600
smtpd_client_connection_count_limit = 1000
smtpd_client_connection_rate_limit = 0
minimal_backoff_time = 1h
{relay}""")
        os.mkdir(self.dir + "/spool")
        shutil.chown(f"{self.dir}/mail", "nobody", "nogroup")
        self.cgroup.run(lambda: self.postfix("start"))

    def hold(self):
        with open(f"{self.dir}/spool/pid/master.pid") as f:
            master = f.read().strip()

        def deliverer():
            return subprocess.run(["pgrep", "-P", master, "-x", "virtual"], capture_output=True, text=True).stdout.strip()
        subprocess.run(["postconf", "-c", self.etc, "virtual_destination_concurrency_limit=1"], check=True)
        self.postfix("reload")
        time.sleep(1)
        self.source("-m", "1")
        self.held = int(wait_for(deliverer))
        os.kill(self.held, signal.SIGSTOP)

    def halt(self):
        if hasattr(self, "held"):
            os.kill(self.held, signal.SIGKILL)
        subprocess.run(["postfix", "-c", self.etc, "stop"], capture_output=True)


class Exim(Private, mta.Exim):
    name = "Exim"

    def start(self):
        self.exim_files(self.dir, self.sink.port if self.sink else 1, """box:
  driver = accept
  domains = example.org
  local_parts = sink
  transport = maildir""", "1h", """acl_smtp_rcpt = rcpt
smtp_accept_max = 1000
smtp_accept_max_per_host = 1000
smtp_connect_backlog = 500
remote_max_parallel = 20
begin acl
rcpt:
  accept domains = example.org
         local_parts = sink
  accept domains = far.example
  deny""")
        self.exim_owns(self.dir, "spool", "mail")
        self.daemon()

    def daemon(self, *more):
        self.cgroup.run(lambda: subprocess.Popen([self.exim, "-C", self.conf, "-bd", *more], stderr=subprocess.DEVNULL,
                                                 **self.as_exim()).wait())

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


class OpenSMTPD(Private, mta.OpenSMTPD):
    name = "OpenSMTPD"

    def start(self):
        shutil.chown(f"{self.dir}/mail", "nobody", "nogroup")
        os.mkdir(self.dir + "/spool")
        os.chmod(self.dir + "/spool", 0o711)
        self.write("recipients", "sink@example.org sink\n")
        self.write("users", f"sink 65534:65534:{self.maildir}\n")
        # It asks for the name of each client; names come from /etc/hosts here, and no name server makes it wait.
        self.write("resolv.conf", "lookup file\n")
        self.opensmtpd_files(self.dir, f"""smtp limit max-mails 1000000
listen on 127.0.0.1 port {self.port} hostname mx.example.org
table recipients file:{self.dir}/recipients
table users file:{self.dir}/users
action "box" maildir "%{{user.directory}}" userbase <users> virtual <recipients>
action "far" relay host smtp://127.0.0.1:{self.sink.port if self.sink else 1}
match from any for domain "example.org" action "box"
match from any for any action "far"
""", f"mount --bind {self.dir}/resolv.conf /etc/resolv.conf")

        def begin():
            self.write("pid", str(self.opensmtpd_begins().pid))
        self.cgroup.run(begin)
        with open(self.dir + "/pid") as f:
            self.pid = int(f.read())

    def hold(self):
        if self.smtpctl(self.pid, "pause", "mda").returncode:
            raise RuntimeError("OpenSMTPD: pause mda fails")

    def halt(self):
        try:
            os.killpg(self.pid, signal.SIGTERM)
        except ProcessLookupError:
            pass
        time.sleep(1)


class Bare(System):
    """bare_server.c: no mail system, but what a process for each connection costs at least."""
    name = "Bare"

    def start(self):
        self.dir = tempfile.mkdtemp(prefix="bench-bare-")
        self.maildir = self.dir
        for d in ("tmp", "new"):
            os.mkdir(f"{self.dir}/{d}")
        self.port, = free_ports(1)
        self.cgroup.run(lambda: self.write_pid(subprocess.Popen([BARE, str(self.port), self.dir])))
        with open(self.dir + "/pid") as f:
            self.pid = int(f.read())

    def write_pid(self, process):
        with open(self.dir + "/pid", "w") as f:
            f.write(str(process.pid))

    def hold(self):
        pass

    def end(self):
        os.kill(self.pid, signal.SIGKILL)
        shutil.rmtree(self.dir, ignore_errors=True)


SYSTEMS = (Bulkhead, Postfix, Exim, OpenSMTPD, Bare)
