#!/usr/bin/env python3
"""bulkhead.service under the real systemd, booted in a container that is a throwaway copy of this system (an overlay, a network of its own):
installed with install.sh; beside another mail server; reload, stop, restart, a bad configuration, a killed master, the next boot, and removed.

Needs root. Ends with "N passed, N failed"."""
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from harness import ROOT, Report, wait_for  # noqa: E402

CONF = "/etc/bulkhead/bulkhead.conf"
LANDLOCK = "landlock_create_ruleset landlock_add_rule landlock_restrict_self"  # which systemd-nspawn would refuse


class Container:
    def __init__(self):
        self.top = tempfile.mkdtemp(prefix="bulkhead-systemd-")
        self.root = self.top + "/root"
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", self.top], check=True)
        for name in ("upper", "work", "root"):
            os.mkdir(f"{self.top}/{name}", 0o755)
        subprocess.run(["mount", "-t", "overlay", "overlay", "-o",
                        f"lowerdir=/,upperdir={self.top}/upper,workdir={self.top}/work", self.root], check=True)
        units = self.root + "/etc/systemd/system"
        for name in os.listdir(units):  # what this system starts at boot is not asked for
            if name.endswith(".wants"):
                shutil.rmtree(f"{units}/{name}")
        for path in ("/etc/bulkhead", "/var/lib/bulkhead", "/var/spool/bulkhead", "/var/mail/bulkhead", "/var/log/bulkhead.log"):
            subprocess.run(["rm", "-rf", self.root + path], check=True)
        with open(self.root + "/etc/aliases", "w", encoding="utf-8") as f:
            f.write("root: admin\n")
        shutil.copytree(ROOT, self.root + "/root/bulkhead", symlinks=True, ignore=shutil.ignore_patterns(".git", "build-*"))
        self.nspawn = None

    def boot(self):
        self.nspawn = subprocess.Popen(
            ["systemd-nspawn", "-q", "-D", self.root, "--boot", "--register=no", "--keep-unit", "--console=pipe", "--private-network",
             "--link-journal=no", "--system-call-filter=" + LANDLOCK],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=open(self.top + "/nspawn", "ab"))
        wait_for(lambda: self.init() and self.run("systemctl is-system-running").stdout.strip() in ("running", "degraded"), 60)

    def init(self):
        """The number that the container's first process has here."""
        with open(f"/proc/{self.nspawn.pid}/task/{self.nspawn.pid}/children", encoding="ascii") as f:
            for pid in f.read().split():
                with open(f"/proc/{pid}/status", encoding="utf-8") as status:
                    if any(x.startswith("NSpid:") and x.split()[-1] == "1" for x in status):
                        return pid
        return None

    def run(self, command, seconds=120):
        return subprocess.run(["nsenter", "-t", self.init(), "-m", "-p", "-n", "-u", "-i", "sh", "-c", command], text=True,
                              capture_output=True, timeout=seconds, env={"PATH": os.environ["PATH"], "LC_ALL": "C"})

    def active(self):
        return self.run("systemctl is-active bulkhead").stdout.strip()

    def ready(self):
        return self.run("bulkhead status").returncode == 0

    def halt(self):
        self.run("systemctl poweroff")
        self.nspawn.wait(60)

    def end(self):
        if self.nspawn and self.nspawn.poll() is None:
            self.nspawn.terminate()
            try:
                self.nspawn.wait(20)
            except subprocess.TimeoutExpired:
                self.nspawn.kill()
                self.nspawn.wait()
        subprocess.run(["umount", self.root], check=False)
        subprocess.run(["umount", self.top], check=False)
        os.rmdir(self.top)


def install(r, c):
    """First beside somebody who has port 25."""
    listener = ("import socket,time\ns=socket.socket()\ns.setsockopt(1,2,1)\ns.bind(('',25))\ns.listen()\n"
                "print(flush=True)\ntime.sleep(600)")
    other = subprocess.Popen(["nsenter", "-t", c.init(), "-m", "-n", "python3", "-c", listener], stdout=subprocess.PIPE)
    other.stdout.readline()
    p = c.run("cd /root/bulkhead && ./install.sh --hostname mx.example.org", 600)
    r.check("beside another mail server: says why it does not start", p.returncode == 1 and
            "port 25: Address already in use" in p.stderr, p.stdout[-500:] + p.stderr[-500:])
    r.check("and does not lie in wait for its port", c.active() == "inactive" and
            c.run("systemctl is-enabled bulkhead").stdout.strip() == "disabled", c.active())
    other.kill()
    other.wait()
    p = c.run("cd /root/bulkhead && ./install.sh --hostname mx.example.org", 600)
    r.check("install.sh", p.returncode == 0 and "Bulkhead works." in p.stdout, p.stdout[-500:] + p.stderr[-500:])
    r.check("the service runs", c.active() == "active")
    p = c.run("cd /root/bulkhead && ./install.sh", 600)
    r.check("install.sh again, while it runs", p.returncode == 0 and "Bulkhead works." in p.stdout and c.active() == "active" and
            c.run("bulkhead account list").stdout.count("admin") == 2, p.stdout[-500:] + p.stderr[-500:])


def confined(r, c):
    p = c.run("bulkhead --json privileges")
    seen = json.loads(p.stdout)
    bad = [x["role"] for x in seen["processes"] if x["read_back"] == "differs"]
    r.check("under systemd's filters each process has its own", p.returncode == 0 and seen["inherited_filters"] > 5 and not bad,
            f"{p.returncode} {seen['inherited_filters']} {bad}")
    log = c.run("cat /var/log/bulkhead.log").stdout
    r.check("and Landlock, where the kernel has it", seen["landlock"] == 0 or "no Landlock" not in log)


def operated(r, c):
    p = c.run("systemctl restart bulkhead")
    r.check("restart returns when every program is ready", p.returncode == 0 and c.ready(), p.stderr)
    r.check("reload", c.run("systemctl reload bulkhead").returncode == 0 and c.active() == "active")
    c.run("kill -9 $(systemctl show -p MainPID --value bulkhead)")
    wait_for(lambda: c.active() == "active" and c.ready(), 30)
    r.check("killed: started again", True)
    c.run(f"cp {CONF} /root/good && echo bogus >>{CONF}")
    p = c.run("systemctl reload bulkhead")
    r.check("reload with a bad configuration fails, and nothing changes", p.returncode != 0 and c.active() == "active" and c.ready())
    p = c.run("systemctl restart bulkhead")
    state = c.run("systemctl show -p ActiveState,Result,ExecMainStatus,NRestarts bulkhead").stdout
    r.check("restart with a bad configuration fails, once", p.returncode != 0 and "ActiveState=failed" in state and
            "ExecMainStatus=78" in state and "NRestarts=0" in state, state)
    r.check("the journal has the line", f'{CONF}:' in c.run("journalctl -u bulkhead -o cat --no-pager").stdout)
    c.run(f"cp /root/good {CONF}")
    r.check("mended, it starts", c.run("systemctl start bulkhead").returncode == 0 and c.ready())
    c.run("mv /etc/bulkhead/key.pem /root/key.pem")
    p = c.run("systemctl restart bulkhead")
    rows = {x["program"]: x["state"] for x in json.loads(c.run("bulkhead status --json").stdout)}
    r.check("without its key the rest of it runs", p.returncode == 0 and c.active() == "active" and rows["smtpd"] == "ready" and
            rows["keyd"] != "ready", str(rows))
    c.run("mv /root/key.pem /etc/bulkhead/key.pem; systemctl reload bulkhead")
    wait_for(c.ready, 30)
    r.check("and with it again, after a reload, all", True)


def stopped(r, c):
    p = c.run("bulkhead stop && sleep 5")  # twice the time after which a failed one is started
    r.check("bulkhead stop is the end of it", p.returncode == 0 and c.active() == "inactive", p.stderr)
    c.halt()
    c.boot()
    r.check("after a boot it runs", c.active() == "active" and c.ready(), c.run("systemctl status bulkhead").stdout)
    p = c.run("systemctl stop bulkhead")
    left = c.run("ps -eo user:20,comm | grep -c '^bh-'").stdout.strip()
    r.check("systemctl stop leaves no process", p.returncode == 0 and left == "0", left)
    p = c.run("cd /root/bulkhead && ./install.sh --uninstall")
    r.check("removed", p.returncode == 0 and "not-found" in c.run("systemctl show -p LoadState bulkhead").stdout and
            c.run("ls /etc/bulkhead /var/spool/bulkhead").returncode == 0, p.stderr)


def main():
    r = Report()
    if os.geteuid() != 0:
        print("not run: a container wants root")
        r.end()
    c = Container()
    try:
        c.boot()
        install(r, c)
        confined(r, c)
        operated(r, c)
        stopped(r, c)
    finally:
        c.end()
    r.end()


main()
