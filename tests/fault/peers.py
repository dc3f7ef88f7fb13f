"""Mail systems as the rigs see them: queue and mailboxes on a disk of their own (the directory `disk`), the recipients of
rig.py, another host. Bulkhead here; those of Debian in peers_debian.py."""
import os
import shutil
import subprocess

import peers_debian
from rig import Instance, programs_of


class Disked(Instance):
    """An instance whose queue and mail are below DIR/disk."""

    def __init__(self, extra=""):
        super().__init__(queue="retry 1s\nretry-max 1s", extra=extra)
        self.disk = self.dir + "/disk"
        os.mkdir(self.disk)
        with open(self.conf) as f:
            text = f.read()
        for part in ("queue", "mail"):
            text = text.replace(f" {part} {self.dir}/{part}\n", f" {part} {self.disk}/{part}\n")
        with open(self.conf, "w") as f:
            f.write(text)

    def maildir(self, name):
        return os.path.join(self.disk, "mail", self.domains[0], name)

    def queue_dir(self):
        return self.disk + "/queue"


class Bulkhead:
    name = "bulkhead"
    promises_once = True

    def __init__(self, extra=""):
        self.suite = Disked(extra)
        self.disk, self.host, self.port = self.suite.disk, self.suite.host, self.suite.port["smtp"]
        # Accounts lie beside the disk, not on it.
        self.suite.start()
        self.suite.accounts()
        self.suite.ctl("stop")
        for name in os.listdir(self.disk):
            shutil.rmtree(f"{self.disk}/{name}")
        self.up = False

    places = {}

    def roots(self):
        """Where it keeps mail."""
        return [self.disk + "/queue", self.disk + "/mail"]

    def processes(self):
        """Those that touch mail, as trace wants them."""
        self.suite.ready()
        return programs_of(self.suite)

    def mend(self):
        """What an operator may have to do by hand after a crash: nothing."""
        return False

    def restarts(self):
        return sum(r["restarts"] for r in self.suite.status())

    def prepare(self):
        """The empty directories on the fresh disk, as the first start makes them."""
        self.suite.ctl("start")
        self.suite.ready()
        self.suite.ctl("stop")
        subprocess.run(["sync", "-f", self.disk], check=True)

    def start(self):
        self.host.seen.clear()
        self.suite.ctl("start")
        self.up = True

    def send(self, client, token, rcpts, size):
        self.host.seen.clear()
        return client.send(token, rcpts, size)

    def queued(self):
        return self.suite.queued()

    def drain(self, seconds):
        return self.suite.drain(seconds)

    def stop(self):
        if self.up:
            self.suite.ctl("stop", check=False)
        self.up = False

    def boxes(self):
        return {n: self.suite.messages(n) for n in ("box", "bin")}

    def remove(self):
        self.suite.stop()


PEERS = {"bulkhead": Bulkhead, **peers_debian.PEERS}
