"""Postfix, Exim and OpenSMTPD of Debian with queue and mailboxes on a disk of their own, for check_powercut.py --peer. The
settings are the defaults but for what the rig needs: addresses, short retries, Maildirs."""
import glob
import os
import shutil
import signal
import subprocess
import time

from rig import Client, Host, all_below, wait_for

import mta  # rig has said where

LIST = {"team": "box bin far@far.example", "slow": "slow@far.example", "gone": "gone@far.example",
        "both": "box bin far@far.example slow@far.example"}


def lists(form, among=", "):
    """The aliases; form has %s for the name and for its addresses."""
    return "".join(form % (name, among.join(a if "@" in a else a + "@example.org" for a in to.split())) + "\n"
                   for name, to in LIST.items())


class Peer:
    """What all of them share. promises_once: never twice in a Maildir."""

    promises_once = False

    def __init__(self):
        super().__init__(self.name)
        self.disk = self.dir + "/disk"
        os.mkdir(self.disk)
        self.host = Host()
        self.up = False
        self.configure()

    def prepare(self):
        self.make_directories()
        self.start()
        self.stop()
        subprocess.run(["sync", "-f", self.disk], check=True)

    def start(self):
        self.host.seen.clear()
        self.begin()
        self.up = True
        wait_for(self.answers)

    def roots(self):
        """Where it keeps mail."""
        return [self.disk + "/spool", self.disk + "/mail"]

    @property
    def places(self):
        """Where its processes see it, if elsewhere."""
        return {}

    def processes(self):
        """All of its processes, as trace wants them."""
        return all_below(self.pid())

    def mend(self):
        """What an operator may have to do by hand before mail goes on; whether there was anything. It runs again then."""
        return False

    def restarts(self):
        """How often something of it was started anew: unknown."""
        return 0

    def stop(self):
        if self.up:
            self.end()
        self.up = False

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

    def remove(self):
        self.stop()
        self.host.stop()
        super().remove()


class Postfix(Peer, mta.Postfix):
    name = "postfix"

    def configure(self):
        self.postfix_files(self.disk, f"""virtual_mailbox_maps = inline:{{ {{box@example.org=box/}}, {{bin@example.org=bin/}} }}
virtual_alias_maps = texthash:{self.dir}/etc/virtual
relayhost = [127.0.0.1]:{self.host.port}
minimal_backoff_time = 1s
maximal_backoff_time = 1s
queue_run_delay = 1s
smtpd_client_connection_count_limit = 0
""")
        self.write("etc/virtual", lists("%s@example.org %s"))

    def make_directories(self):
        os.mkdir(self.disk + "/spool")
        os.mkdir(self.disk + "/mail")
        shutil.chown(self.disk + "/mail", "nobody", "nogroup")

    def begin(self):
        self.postfix("start")

    def pid(self):
        with open(f"{self.disk}/spool/pid/master.pid") as f:
            return int(f.read())

    def queued(self):
        """Whole ones: a file that is not executable was never finished, one with a dot in its name never named; both wait to
        be swept."""
        out = []
        for d in ("incoming", "active", "deferred", "maildrop", "hold"):
            for top, _, files in os.walk(f"{self.disk}/spool/{d}"):
                for name in files:
                    try:
                        if os.stat(f"{top}/{name}").st_mode & 0o100 and "." not in name:
                            out.append(name)
                    except OSError:
                        pass
        return out

    def flush(self):
        mta.run("timeout", "10", "postqueue", "-c", self.etc, "-f")

    def end(self):
        mta.run("postfix", "-c", self.etc, "stop")


class Exim(Peer, mta.Exim):
    name = "exim"

    def configure(self):
        self.write("aliases", lists("%s: %s"))
        self.exim_files(self.disk, self.host.port, f"""aliases:
  driver = redirect
  domains = example.org
  data = ${{lookup{{$local_part}}lsearch{{{self.dir}/aliases}}}}
boxes:
  driver = accept
  domains = example.org
  local_parts = box : bin
  transport = maildir""", "1s", """hostlist relay_from = 127.0.0.1
acl_smtp_rcpt = accept
smtp_accept_max = 200
smtp_accept_max_per_host = 200
queue_run_in_order = false
dsn_advertise_hosts =
timeout_frozen_after = 0s""")

    def make_directories(self):
        self.exim_owns(self.disk, "spool", "mail")

    def prepare(self):
        """With the hints databases that any host has that has been up for a while: they are made by the first delivery to
        another host, and the first that is put off."""
        self.make_directories()
        self.start()
        assert self.send(Client(self.port), "warm", ("team", "slow"), 200).startswith("250")
        assert self.drain(60)
        self.stop()
        for path in glob.glob(self.disk + "/mail/*"):
            shutil.rmtree(path)
        self.host.got.clear()
        self.host.seen.clear()
        subprocess.run(["sync", "-f", self.disk], check=True)

    def begin(self):
        with open(self.dir + "/errors", "ab") as errors:
            self.daemon = subprocess.Popen([self.exim, "-C", self.conf, "-bdf", "-q1s"], stdout=errors, stderr=errors,
                                           start_new_session=True, **self.as_exim())

    def pid(self):
        return self.daemon.pid

    def queued(self):
        """The header of a message that is done goes last: one without its text is what a kill left of it."""
        headers = glob.glob(self.disk + "/spool/input/*-H") + glob.glob(self.disk + "/spool/input/*/*-H")
        return [h for h in headers if os.path.exists(h[:-1] + "D")]

    flusher = None

    def mend(self):
        """A half made hints database, which all deliveries that want it wait for (docs/RELIABILITY.md)."""
        halves = glob.glob(self.disk + "/spool/db/__db.*")
        self.stop()
        for path in halves:
            os.unlink(path)
        self.start()
        return bool(halves)

    def flush(self):
        """Beside what the daemon runs each second: frozen ones, too. One at a time, and as long as it wants: a run that is
        killed leaves deliveries half done."""
        if not self.flusher or self.flusher.poll() is not None:
            self.flusher = subprocess.Popen([self.exim, "-C", self.conf, "-qff"], stdout=subprocess.DEVNULL,
                                            stderr=subprocess.DEVNULL, start_new_session=True, **self.as_exim())

    def end(self):
        for p in [self.daemon] + [self.flusher] * bool(self.flusher):
            try:
                os.killpg(p.pid, signal.SIGTERM)
                p.wait(10)
            except ProcessLookupError:
                p.wait(10)
            except subprocess.TimeoutExpired:
                os.killpg(p.pid, signal.SIGKILL)
                p.wait(10)
        self.flusher = None
        time.sleep(0.1)


class OpenSMTPD(Peer, mta.OpenSMTPD):
    name = "opensmtpd"

    def configure(self):
        self.write("virtual", lists("%s@example.org %s") + "box@example.org box\nbin@example.org bin\n")
        self.write("users", "".join(f"{n} 65534:65534:{self.disk}/mail/{n}\n" for n in ("box", "bin")))
        self.opensmtpd_files(self.disk, f"""listen on 127.0.0.1 port {self.port} hostname mx.example.org
table lists file:{self.dir}/virtual
table users file:{self.dir}/users
action "boxes" maildir "%{{user.directory}}" userbase <users> virtual <lists>
action "others" relay host smtp://127.0.0.1:{self.host.port}
match from any for domain "example.org" action "boxes"
match from any for any action "others"
""")

    def make_directories(self):
        os.mkdir(self.disk + "/mail")
        shutil.chown(self.disk + "/mail", "nobody", "nogroup")
        os.mkdir(self.disk + "/spool")
        os.chmod(self.disk + "/spool", 0o711)

    @property
    def places(self):
        return {"/var/spool/smtpd": self.disk + "/spool"}

    def begin(self):
        self.daemon = self.opensmtpd_begins()

    def pid(self):
        return self.daemon.pid

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
        self.smtpctl(self.daemon.pid, "schedule", "all")

    def end(self):
        self.daemon.terminate()
        try:
            self.daemon.wait(10)
        except subprocess.TimeoutExpired:
            self.daemon.kill()
            self.daemon.wait(10)
        time.sleep(0.2)


PEERS = {"postfix": Postfix, "exim": Exim, "opensmtpd": OpenSMTPD}
