#!/usr/bin/env python3
"""bulkhead privileges on a running instance: what the kernel says of every process is what docs/SECURITY.md and
docs/ARCHITECTURE.md say; the picture is well-formed, its boxes do not overlap and their text fits."""
import ctypes
import json
import os
import re
import socket
import struct
import sys
import xml.etree.ElementTree as ET

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from harness import BIN, PREFIX, ROLES, Report, Suite, number, rows  # noqa: E402

SESSIONS = ["smtpd", "submitd", "pop3d", "imapd", "tlsd", "qmgr"]  # that are running while we look


class Client:
    """A client in the middle of its session."""

    def __init__(self, port, *lines):
        self.s = socket.create_connection(("127.0.0.1", port), timeout=20)
        self.s.recv(999)
        for line in lines:
            self.s.sendall(line.encode() + b"\r\n")
            self.answer = self.s.recv(4096)


def check_table(r, seen):
    wrong = []
    roles = {x["role"]: x for x in seen["roles"]}
    table = rows("SECURITY.md", "| role | root directory |")
    r.check("SECURITY.md has every role, and no other", sorted(t[0] for t in table) == sorted(roles))
    for role, root, caps, files, network, memory, parses in table:
        x = roles[role]
        if (x["directory"], x["network"], x["reads"]) != (files, network, parses):
            wrong.append(f"{role}: {x['directory']}, {x['network']}, {x['reads']}")
        mine = [p for p in seen["processes"] if p["role"] == role]
        if not mine:
            wrong.append(f"{role} is not running")
        for p in mine:
            at = "queue/new" if role == "qmgr" and p["kind"] == "session" else root
            if p["root"].split(" ")[0] != at or p["capabilities"] != caps or p["permitted"] != caps:
                wrong.append(f"{role}: root {p['root']}, capabilities {p['capabilities']}")
            if memory != "-" and p["limits"]["memory"] != number(memory) << 20:
                wrong.append(f"{role}: {p['limits']['memory']} bytes of memory")
    r.check("root directory, capabilities, files, network, memory and strangers' bytes of every process",
            not wrong, str(wrong))


def check_calls(r, seen):
    wrong = []
    roles = {x["role"]: x for x in seen["roles"]}
    for role, calls, session, files in rows("SECURITY.md", "| role | calls |"):
        x = roles[role]
        if len(x["calls"]) != number(calls) or len(x["session_calls"]) != number(session):
            wrong.append(f"{role}: {len(x['calls'])} and {len(x['session_calls'])} in the program's table")
        for p in (p for p in seen["processes"] if p["role"] == role):
            want = number(session) if p["kind"] == "session" else number(calls)
            if p["read_back"] == "not read":
                continue
            if p["read_back"] != "as the table" or p["calls_read"] != want or p["seccomp"] != 2:
                wrong.append(f"{role} {p['kind']}: {p['read_back']}, {p['calls_read']} calls")
            if p["limits"]["files"] != number(files):
                wrong.append(f"{role}: {p['limits']['files']} open files")
    r.check("system calls of every process, read back from the kernel", not wrong, str(wrong))
    r.check("the kernel's filters were read" if os.geteuid() == 0 else "the kernel's filters were read, or not allowed",
            os.geteuid() != 0 or any(p["read_back"] == "as the table" for p in seen["processes"]))


def check_shed(r, seen):
    wrong = []
    for p in seen["processes"]:
        if not p["no_new_privs"] or p["limits"]["core"] != 0:
            wrong.append(f"{p['role']}: no_new_privs {p['no_new_privs']}, core {p['limits']['core']}")
        if p["inheritable"] != "none" or p["ambient"] != "none":
            wrong.append(f"{p['role']}: capabilities to inherit")
        if os.geteuid() == 0 and p["role"] in ROLES and p["user"] != PREFIX + p["role"]:
            wrong.append(f"{p['role']} runs as {p['user']}")
        if os.geteuid() == 0 and p["role"] == "cell" and p["uids"][0] < 500:
            wrong.append(f"a cell runs as {p['user']}")
        if len(set(p["uids"])) != 1 or (p["uids"][0] and p["groups"]):
            wrong.append(f"{p['role']}: user IDs {p['uids']}, {p['groups']} groups")
        if p["kind"] == "session" and p["role"] not in ("qmgr", "authd") and p["limits"]["processes"] != 0:
            wrong.append(f"a session of {p['role']} may have {p['limits']['processes']} processes")
        fds = p["descriptors"]
        if p["role"] in ("smtpd", "submitd", "pop3d", "imapd", "tlsd", "keyd", "local") and fds.get("udp"):
            wrong.append(f"{p['role']} holds {fds}")
    r.check("users, groups, no_new_privs, no core files, nothing to inherit", not wrong, str(wrong))
    kinds = {(p["role"], p["kind"]) for p in seen["processes"]}
    missing = [x for x in SESSIONS if (x, "session") not in kinds]
    r.check("every session that runs was found", not missing, str(missing))


def check_messages(r, seen):
    documented, shown = set(), set()
    for name, _, sender, receiver, *_ in rows("ARCHITECTURE.md", "| name | number | from | to |"):
        documented |= {(name, a, b) for a in sender.split() for b in receiver.split() if b != "any" and a != "any"}
    doors = {(a, b) for a, services in rows("ARCHITECTURE.md", "| client | services |") for b in services.split()}
    opened = set()
    for x in seen["roles"]:
        for name, receivers in x["sends"].items():
            if name == "DOOR_OPEN":
                opened |= {(x["role"], b) for b in receivers}
            elif name not in ("FAILED", "READY"):
                shown |= {(name, x["role"], b) for b in receivers}
    documented = {d for d in documented if d[1] != "bulkhead"}
    doors = {d for d in doors if d[0] != "bulkhead"}
    r.check("messages: who may send what to whom", shown == documented, str(shown ^ documented))
    r.check("doors: who may open a channel to whom", opened == doors, str(opened ^ doors))


def check_picture(r, path):
    space = "{http://www.w3.org/2000/svg}"
    top = ET.parse(path).getroot()
    width, height = int(top.get("width")), int(top.get("height"))
    boxes, wrong, names = [], [], set()
    for g in top.iter(space + "g"):
        rect = g.find(space + "rect")
        x, y, w, h = (int(rect.get(k)) for k in ("x", "y", "width", "height"))
        boxes.append((x, y, w, h))
        if x < 0 or y < 0 or x + w > width or y + h > height:
            wrong.append("a box is outside")
        for t in g.findall(space + "text"):
            size = 9.5 if t.get("class") == "name" else 6.2  # a wide letter of each font, in pixels
            if int(t.get("x")) + size * len(t.text) > x + w or not y < int(t.get("y")) < y + h:
                wrong.append(f"does not fit: {t.text}")
            if t.get("class") == "name":
                names.add(t.text)
    for i, (x, y, w, h) in enumerate(boxes):
        for x2, y2, w2, h2 in boxes[i + 1:]:
            if x < x2 + w2 and x2 < x + w and y < y2 + h2 and y2 < y + h:
                wrong.append("boxes overlap")
    doors = {p.find(space + "title").text for p in top.iter(space + "path") if p.find(space + "title") is not None}
    want = {f"{a} to {b}" for a, services in rows("ARCHITECTURE.md", "| client | services |")
            for b in services.split() if a != "bulkhead"}
    r.check("the picture: boxes apart, text within them", not wrong, str(wrong))
    r.check("the picture has every role and every door", want <= doors and
            names == {t[0] for t in rows("SECURITY.md", "| role | root directory |")}, str(want - doors))
    text = open(path, encoding="utf-8").read()
    r.check("the picture needs nothing from elsewhere", not re.search(r'href|url\((?!#)|@import|<script', text))


def under_filter(then):
    """As systemd or a container starts us: in a process of its own, under a filter that lets all but uselib(2) pass."""
    load_nr, kill, allow = (0x20, 0, 0, 0), (0x06, 0, 0, 0x80000000), (0x06, 0, 0, 0x7fff0000)
    code = b"".join(struct.pack("HBBI", *x) for x in (load_nr, (0x15, 0, 1, 134), kill, allow))
    pid = os.fork()
    if pid == 0:
        libc = ctypes.CDLL(None, use_errno=True)
        text = ctypes.create_string_buffer(code)
        program = ctypes.create_string_buffer(struct.pack("HxxxxxxP", 4, ctypes.addressof(text)))
        status = 1
        try:
            if libc.prctl(38, 1, 0, 0, 0) == 0 and libc.prctl(22, 2, ctypes.byref(program), 0, 0) == 0:
                then()
                status = 0
        finally:
            os._exit(status)
    return os.waitpid(pid, 0)[1]


def check_inherited(r):
    s = Suite()
    try:
        r.check("started under a filter", under_filter(s.start) == 0)
        p = s.ctl("privileges", "--json", check=False)
        seen = json.loads(p.stdout)
        filters = {x["role"]: x["filters"] for x in seen["processes"]}
        r.check("a filter that was there before us is none of ours", p.returncode == 0 and seen["inherited_filters"] == 1 and
                filters["master"] == 1 and filters["smtpd"] == 2, f"{p.returncode} {filters}")
        check_calls(r, seen)
    finally:
        s.stop()


def main():
    r = Report()
    with Suite() as s:
        s.add("bob", "secret")
        held = [Client(s.port["smtp"]), Client(s.port["submission"]), Client(s.port["pop3"]), Client(s.port["imap"]),
                Client(s.port["imap"], "a LOGIN bob secret"), Client(s.port["smtp"], "EHLO x", "STARTTLS")]
        r.check("sessions run", held[4].answer.startswith(b"a OK") and held[5].answer.startswith(b"220"))
        p = s.ctl("privileges", "--json", check=False)
        seen = json.loads(p.stdout)
        with open(os.path.join(BIN, "smtpd"), "rb") as f:
            if b"__asan_init" in f.read():  # such a build is not confined: only that it is said
                r.check("a build with sanitizers differs from the tables", p.returncode == 70)
                return r.end()
        r.check("nothing differs from the tables", p.returncode == 0, f"{p.returncode} {p.stderr}")
        check_calls(r, seen)
        check_table(r, seen)
        check_shed(r, seen)
        check_messages(r, seen)
        svg = os.path.join(s.dir, "picture.svg")
        s.ctl("privileges", "--svg", svg)
        check_picture(r, svg)
        text = s.ctl("privileges")
        r.check("as text: every role", all(re.search(rf"^{t[0]} ", text, re.M) for t in
                                           rows("SECURITY.md", "| role | root directory |")))
        held[0].s.sendall(b"NOOP\r\n")
        held[4].s.sendall(b"b NOOP\r\n")
        r.check("sessions go on", held[0].s.recv(99)[:3] == b"250" and held[4].s.recv(99)[:4] == b"b OK")
    check_inherited(r)
    r.end()


if __name__ == "__main__":
    main()
