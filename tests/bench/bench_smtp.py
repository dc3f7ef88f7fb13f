#!/usr/bin/env python3
"""Messages accepted a second: Bulkhead beside Postfix, and what the disk gives, in one run.

smtp-source (from Debian's postfix) brings messages of 4 KiB, one a connection, with 1, 20 and 100
sessions; rounds are interleaved and the median is told. Durability is the same for both: the message
is synced before 250 (Postfix: one fsync of the file; Bulkhead: the file and its directory's name).
Neither delivers meanwhile: the delivery agent of each (Bulkhead's local, Postfix's virtual) is stopped
(SIGSTOP) with the first message in its hands, so both queue managers take messages in and schedule them.
The bare loop: P processes create, write 4 KiB, fsync, rename, and sync the directory.
Both count the connections of an address, with a limit (1,000) that is not reached.
CPU: of all processes of each system, ended ones too (a cgroup each).
"""
import argparse
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from harness import Suite, free_ports, wait_for  # noqa: E402

SIZE = 4096


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


class Bulkhead:
    name = "Bulkhead"

    def __init__(self):
        self.cgroup = Cgroup("bulkhead")
        self.suite = Suite(tls=False, queue="local-deliveries 1",
                           blocks={"smtpd": ["sessions-per-address 1000", "sessions 1000"]})
        self.cgroup.run(lambda: self.suite.ctl("start"))
        self.suite.add("sink", "secret")
        self.local = next(r["pid"] for r in self.suite.status() if r["program"] == "local")
        os.kill(self.local, signal.SIGSTOP)
        self.port = self.suite.port["smtp"]

    rcpt = "sink@example.org"

    def settle(self):
        time.sleep(1)

    def stop(self):
        os.kill(self.local, signal.SIGKILL)
        self.suite.stop()


class Postfix:
    name = "Postfix"
    rcpt = "sink@example.org"

    def __init__(self):
        self.cgroup = Cgroup("postfix")
        self.port, = free_ports(1)
        self.dir = tempfile.mkdtemp(prefix="bench-postfix-")
        os.chmod(self.dir, 0o755)
        for sub in ("etc", "spool", "data"):
            os.mkdir(f"{self.dir}/{sub}")
        shutil.chown(f"{self.dir}/data", "postfix")
        self.etc = f"{self.dir}/etc"
        with open(f"{self.etc}/main.cf", "w") as f:
            f.write(f"compatibility_level = 3.6\nmyhostname = mx.example.org\nmydestination =\n"
                    f"inet_interfaces = loopback-only\ninet_protocols = ipv4\nqueue_directory = {self.dir}/spool\n"
                    f"data_directory = {self.dir}/data\nvirtual_mailbox_domains = example.org\n"
                    f"virtual_mailbox_base = {self.dir}/mail\nvirtual_mailbox_maps = static:sink/\n"
                    "virtual_uid_maps = static:65534\nvirtual_gid_maps = static:65534\n"
                    "virtual_destination_concurrency_limit = 1\nmynetworks = 127.0.0.0/8\nalias_maps =\nalias_database =\n"
                    "default_process_limit = 200\nsmtpd_client_connection_count_limit = 1000\n"
                    "smtpd_client_connection_rate_limit = 0\nin_flow_delay = 0\n"
                    f"minimal_backoff_time = 1h\nmaillog_file = {self.dir}/log\nmaillog_file_prefixes = {self.dir}\n")
        text = open("/usr/share/postfix/master.cf.dist").read() \
            if os.path.exists("/usr/share/postfix/master.cf.dist") else open("/etc/postfix/master.cf").read()
        import re
        text = re.sub(r"(?m)^smtp\s+inet.*$", f"127.0.0.1:{self.port} inet n - n - - smtpd", text)
        text = re.sub(r"(?m)^(\S+\s+(?:unix|fifo|inet)\s+\S+\s+\S+\s+)y", r"\1n", text)
        with open(f"{self.etc}/master.cf", "w") as f:
            f.write(text)
        os.mkdir(f"{self.dir}/mail")
        shutil.chown(f"{self.dir}/mail", "nobody", "nogroup")
        self.cgroup.run(lambda: subprocess.run(["postfix", "-c", self.etc, "start"], check=True,
                                               capture_output=True))
        time.sleep(1)
        subprocess.run(["smtp-source", "-m", "1", "-f", "a@client.example", "-t", self.rcpt,
                        f"inet:127.0.0.1:{self.port}"], check=True, capture_output=True)
        master = int(open(f"{self.dir}/spool/pid/master.pid").read())
        self.agent = int(wait_for(lambda: subprocess.run(
            ["pgrep", "-P", str(master), "-x", "virtual"], capture_output=True, text=True).stdout.strip()))
        os.kill(self.agent, signal.SIGSTOP)

    def settle(self):
        time.sleep(1)

    def stop(self):
        os.kill(self.agent, signal.SIGKILL)
        subprocess.run(["postfix", "-c", self.etc, "stop"], capture_output=True)
        shutil.rmtree(self.dir, ignore_errors=True)


def source(system, sessions, messages):
    """Messages a second, and CPU seconds for 1,000 of them until the system is quiet again."""
    cpu = system.cgroup.cpu()
    start = time.monotonic()
    p = subprocess.run(["smtp-source", "-s", str(sessions), "-m", str(messages), "-l", str(SIZE), "-f", "sender@client.example", "-t", system.rcpt, f"inet:127.0.0.1:{system.port}"],
                       capture_output=True, text=True, timeout=300)
    took = time.monotonic() - start
    if p.returncode:
        raise RuntimeError(f"{system.name}: smtp-source: {p.stderr[-500:]}")
    accept_cpu = system.cgroup.cpu() - cpu
    return messages / took, accept_cpu * 1000 / messages


def bare(processes, files, directory):
    """The same from the disk alone. Files stay until the end: file systems slow down just after
    removals (ext4 without a journal looks for inodes that were not freed recently)."""
    data = b"x" * SIZE
    start = time.monotonic()
    pids = []
    for k in range(processes):
        pid = os.fork()
        if pid == 0:
            fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
            for i in range(files // processes):
                tmp, new = f"t{start}.{k}.{i}", f"n{start}.{k}.{i}"
                f = os.open(tmp, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=fd)
                os.write(f, data)
                os.fsync(f)
                os.rename(tmp, new, src_dir_fd=fd, dst_dir_fd=fd)
                os.fsync(fd)
                os.close(f)
            os._exit(0)
        pids.append(pid)
    for pid in pids:
        os.waitpid(pid, 0)
    return (files // processes) * processes / (time.monotonic() - start)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--messages", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    passed = failed = 0
    systems = [Bulkhead(), Postfix()]
    scratch = tempfile.mkdtemp(prefix="bench-bare-")
    print(f"{SIZE} bytes a message, one message a connection, {args.messages} messages a round, median of "
          f"{args.rounds} rounds\n")
    print(f"{'sessions':>8} {'Bulkhead/s':>11} {'Postfix/s':>10} {'bare/s':>8} {'ratio':>6} {'of bare':>8} "
          f"{'cpu s/1000':>11} {'Postfix cpu':>12} {'ratio':>6}")
    try:
        for sessions in (1, 20, 100):
            n = args.messages if sessions > 1 else args.messages // 4
            rates, cpus, disk = {s.name: [] for s in systems}, {s.name: [] for s in systems}, []
            for r in range(args.rounds + 1):
                for s in systems:
                    rate, cpu = source(s, sessions, n)
                    s.settle()
                    if r:  # the first is a warm-up
                        rates[s.name].append(rate)
                        cpus[s.name].append(cpu)
                if r:
                    disk.append(bare(sessions, n, scratch))
            ours, theirs = statistics.median(rates["Bulkhead"]), statistics.median(rates["Postfix"])
            loop = statistics.median(disk)
            c, pc = statistics.median(cpus["Bulkhead"]), statistics.median(cpus["Postfix"])
            print(f"{sessions:8} {ours:11.0f} {theirs:10.0f} {loop:8.0f} {ours / theirs:6.2f} {ours / loop:7.0%} "
                  f"{c:11.2f} {pc:12.2f} {c / pc:6.2f}", flush=True)
            if sessions == 1:
                continue
            goal = min(1.5 * theirs, 0.6 * loop)
            for ok, what in ((ours >= goal, f"{sessions} sessions: at least {goal:.0f} a second"),
                             (c <= pc / 2, f"{sessions} sessions: at most half of Postfix's CPU a message")):
                passed += ok
                failed += not ok
                print(f"{'ok  ' if ok else 'FAIL'} {what}")
    finally:
        for s in systems:
            s.stop()
        shutil.rmtree(scratch, ignore_errors=True)
    print(f"{passed} passed, {failed} failed")
    sys.exit(1 if failed else 0)


main()
