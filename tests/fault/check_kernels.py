#!/usr/bin/env python3
"""The suite on kernels that lack something (a filter answers in their place: oldkernel), and in an unprivileged container
with user namespaces, by the recipe of docs/CONTAINER.md, where the split into users remains.

    check_kernels.py          no Landlock, leases, inotify; no seccomp; the container
    check_kernels.py --all    each version of Landlock, and every other feature by itself
"""
import json
import os
import pwd
import re
import shutil
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import harness  # noqa: E402
from check_loris import whole_work  # noqa: E402
from harness import BIN, PREFIX, ROLES, ROOT, Report, Suite, wait_for  # noqa: E402

OLD = os.path.join(os.path.dirname(BIN), "fault", "oldkernel")
BOX = PREFIX + "box"  # an ordinary user, with other IDs that are his
BOX_FIRST, BOX_COUNT = 1300000, 65536


class OldSuite(Suite):
    """All its commands run as on such a kernel."""

    def __init__(self, lacks, **more):
        self.lacks = lacks
        super().__init__(**more)

    def ctl(self, *args, input=None, check=True):
        p = subprocess.run([OLD, *self.lacks, "--", os.path.join(BIN, "bulkhead"), "-f", self.conf, *args], text=True,
                           input=input, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=60)
        if check and p.returncode:
            raise RuntimeError(f"bulkhead {' '.join(args)}: {p.stdout}\n{self.tail()}")
        return p.stdout if check else p


def without(*lacks):
    """Everything works, and it is said what is not there."""
    version = next((int(x[9:]) for x in lacks if x.startswith("landlock=")), 9)
    with OldSuite(lacks) as s:
        s.add("alice", "secret")
        whole_work(s, "old")
        text = s.tail(400)
        warned = set(re.findall(r"bulkhead/(\w+)\[\d+\]: warning: this kernel has no Landlock", text))
        # Version 1 forbids to rename between directories: the two that have one do without.
        assert warned == {0: {"authd", "qmgr", "relay", "dnsd"}, 1: {"authd", "qmgr"}}.get(version, set()), warned
        ports = set(re.findall(r"bulkhead/(\w+)\[\d+\]: warning: Landlock \d of this kernel does not know TCP", text))
        assert ports == ({"relay", "dnsd"} if 0 < version < 4 else set()), ports
        p = s.ctl("privileges", check=False)
        said = re.search(r"^Landlock: (.*)", p.stdout, re.M)[1]
        assert said.startswith("this kernel has none" if version == 0 else f"version {version}" if version < 9 else "version"), said
        assert all(r["restarts"] == 0 for r in s.status())
        seen = json.loads(Suite.ctl(s, "privileges", "--json", check=False).stdout)
        differ = {x["role"] for x in seen["processes"] if x["read_back"] not in ("as the table", "not read", "none wanted")}
        assert differ <= {"master"}, differ  # which has the rig's filter, as all have


def without_seccomp():
    """Nothing runs unconfined: no program starts, and the log says why."""
    s = OldSuite(["seccomp"])
    try:
        p = s.ctl("start", check=False)
        assert p.returncode != 0, p.stdout
        assert "cannot confine myself: seccomp" in s.tail(200), s.tail(20)
    finally:
        s.stop()


def make_box():
    """An ordinary user with a range of IDs in /etc/subuid, as adduser(8) gives to people."""
    try:
        pwd.getpwnam(BOX)
    except KeyError:
        subprocess.run(["useradd", "--system", "--no-create-home", "--shell", "/usr/sbin/nologin", "--user-group", BOX], check=True)
    for name in ("/etc/subuid", "/etc/subgid"):
        with open(name, "a+") as f:
            f.seek(0)
            if not re.search(rf"^{BOX}:", f.read(), re.M):
                f.write(f"{BOX}:{BOX_FIRST}:{BOX_COUNT}\n")
    return pwd.getpwnam(BOX)


def recipe():
    """The command of docs/CONTAINER.md that runs something in the container."""
    with open(os.path.join(ROOT, "docs", "CONTAINER.md"), encoding="utf-8") as f:
        return re.search(r"^    \$ (unshare .*?) sh$", f.read(), re.M)[1].split()


def container():
    """By an ordinary user: the programs have users of their own there, of his range."""
    box = make_box()
    top = tempfile.mkdtemp(prefix="bulkhead-test-box-")
    os.chown(top, box.pw_uid, box.pw_gid)
    os.chmod(top, 0o755)
    s = Suite(extra="accounts {\n user-ids 20000 to 29999\n}\n")
    shutil.rmtree(top)
    shutil.move(s.dir, top)
    for name in (s.conf,):
        path = os.path.join(top, os.path.basename(name))
        with open(path) as f:
            text = f.read().replace(s.dir, top)
        with open(path, "w") as f:
            f.write(text)
    s.conf, s.log, s.run, s.dir = (x.replace(s.dir, top) for x in (s.conf, s.log, s.run, s.dir))
    for base, dirs, files in os.walk(top):
        for name in ["."] + files:
            os.chown(os.path.join(base, name), box.pw_uid, box.pw_gid)

    def inside(*command, **more):
        return subprocess.run([*recipe(), *command], text=True, timeout=90, preexec_fn=lambda: (
            os.setgroups([]), os.setresgid(*[box.pw_gid] * 3), os.setresuid(*[box.pw_uid] * 3)), **more)
    script = (f"{BIN}/bulkhead -f {s.conf} start >&2 && echo secret | {BIN}/bulkhead -f {s.conf} account add alice >&2 && "
              f"echo ready > {top}/ready && while [ ! -e {top}/enough ]; do sleep 0.1; done; "
              f"{BIN}/bulkhead -f {s.conf} status > {top}/status; {BIN}/bulkhead -f {s.conf} privileges > {top}/privileges; "
              f"echo $? >> {top}/privileges; {BIN}/bulkhead -f {s.conf} stop >&2")
    pid = os.fork()
    if pid == 0:
        with open(top + "/said", "w") as f:
            os._exit(inside("sh", "-c", script, stdout=f, stderr=f).returncode)
    try:
        wait_for(lambda: os.path.exists(top + "/ready") or os.waitpid(pid, os.WNOHANG)[0], 30)
        users = {}
        for p in os.listdir("/proc"):
            try:
                with open(f"/proc/{p}/status") as f:
                    text = f.read()
                uid, name = int(re.search(r"^Uid:\t(\d+)", text, re.M)[1]), re.search(r"^Name:\t(\S+)", text, re.M)[1]
                if uid == box.pw_uid or BOX_FIRST <= uid < BOX_FIRST + BOX_COUNT:
                    users.setdefault(name, set()).add(uid)
            except (OSError, TypeError, ValueError):
                pass
        whole_work(s, "box")
        owner = os.stat(s.maildir("alice")).st_uid
        with open(top + "/enough", "w") as f:
            f.write("x")
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        mine = {r: users.get(r, set()) for r in ROLES}
        assert all(len(u) == 1 for u in mine.values()), mine
        assert len(set.union(*mine.values())) == len(ROLES), f"users that are shared: {mine}"
        assert all(u >= BOX_FIRST for u in set.union(*mine.values())), "programs that run as the ordinary user"
        assert owner >= BOX_FIRST and owner not in set.union(*mine.values())
        assert users["master"] == {box.pw_uid}
        with open(top + "/privileges") as f:
            said = f.read()
        assert said.rstrip().endswith("\n0"), said[-1500:]
        return f"{len(ROLES)} programs, {len(ROLES)} users; the mailbox's is another one"
    except Exception as e:
        with open(top + "/said") as f:
            raise AssertionError(f"{type(e).__name__} {e}: {f.read()}{s.tail(20)}")
    finally:
        with open(top + "/enough", "w") as f:
            f.write("x")
        time.sleep(0.2)
        shutil.rmtree(top, ignore_errors=True)


def main():
    r = Report()
    whole = "--all" in sys.argv
    with open(os.path.join(harness.BIN, "smtpd"), "rb") as f:
        if os.geteuid() != 0 or b"__asan_init" in f.read():
            r.check("needs root, and programs that are confined: left out", True)
            r.end()
    each = [["landlock=0", "leases", "inotify"]]
    if whole:
        each += [[f"landlock={v}"] for v in range(7)] + [["leases"], ["inotify"], ["mlock"], ["renameat2"],
                                                            ["landlock=0", "leases", "inotify", "mlock", "renameat2"]]
    for lacks in each:
        r.run("without " + ", ".join(x.replace("=0", "").replace("=", " above ") for x in lacks), without, *lacks)
    r.run("without seccomp", without_seccomp)
    if shutil.which("newuidmap"):
        r.run("in an unprivileged container, by the recipe", container)
    else:
        r.check("no newuidmap (package uidmap): the container is left out", True)
    r.end()


if __name__ == "__main__":
    main()
