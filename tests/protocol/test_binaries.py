#!/usr/bin/env python3
"""The binaries as they are built and installed: position-independent, full RELRO, stack protector, FORTIFY, CET notes in
what we compile, no segment writable and executable, nothing set-uid or set-gid, nothing of the rigs; and how much code runs as root."""
import glob
import os
import re
import stat
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from harness import BIN, ROOT, Report  # noqa: E402

ROOT_CODE_MAX = 1200  # lines of master and launcher
ROOT_LINKED_MAX = 3900  # with all of the library that is linked into them


def elf(*options):
    return subprocess.run(["readelf", "-W", *options], capture_output=True, text=True).stdout


def check_binary(r, path):
    head, segments, dynamic = elf("-h", path), elf("-l", path), elf("-d", path)
    symbols = elf("-s", path)
    wrong = []
    if not re.search(r"Type:\s+DYN", head):
        wrong.append("not position-independent")
    if "GNU_RELRO" not in segments or not re.search(r"BIND_NOW|FLAGS_1.*\bNOW\b", dynamic):
        wrong.append("no full RELRO")
    if re.search(r"^\s+\w+\s.*\bRWE\b", segments, re.M):
        wrong.append("a segment is writable and executable")
    stack = re.search(r"GNU_STACK.*", segments)
    if not stack or "E" in stack.group(0).split()[6]:
        wrong.append("an executable stack")
    if "__stack_chk_fail" not in symbols:
        wrong.append("no stack protector")
    if not re.search(r"__\w+_chk\b", symbols.replace("__stack_chk", "")):
        wrong.append("no FORTIFY")
    if "TEXTREL" in dynamic or re.search(r"R(UN)?PATH", dynamic):
        wrong.append("text relocations, or a path to libraries")
    if re.search(r"breach", symbols):
        wrong.append("has code of the rigs")
    r.check(f"{os.path.basename(path)}: PIE, RELRO, stack protector, FORTIFY, no writable code", not wrong,
            ", ".join(wrong))


def lines_of_code(path):
    with open(path, encoding="utf-8") as f:
        text = re.sub(r"/\*.*?\*/", "", f.read(), flags=re.S)
    return sum(1 for line in re.sub(r"//.*", "", text).splitlines() if line.strip())


def sources_of(program):
    """The files of ours that are linked into a program, as its debug information names them."""
    text = subprocess.run(["readelf", "-W", "--debug-dump=info", "--dwarf-depth=1", os.path.join(BIN, program)],
                          capture_output=True, text=True).stdout
    return {n for n in re.findall(r"DW_AT_name\s+:.*?([\w./-]+\.c)$", text, re.M) if os.path.exists(os.path.join(ROOT, n))}


def check_root_code(r):
    """What runs as root: master and its watcher, the launcher. bulkhead(8) is the operator's own command."""
    own = glob.glob(ROOT + "/common/master/*.[ch]") + glob.glob(ROOT + "/common/master/launcher/*.[ch]")
    n = sum(lines_of_code(p) for p in own)
    print(f"code that runs as root (common/master, launcher): {n} lines")
    r.check(f"code that runs as root: at most {ROOT_CODE_MAX} lines", n <= ROOT_CODE_MAX, str(n))
    linked = sources_of("master") | sources_of("launcher")
    all_n = sum(lines_of_code(os.path.join(ROOT, p)) for p in linked) + sum(lines_of_code(p) for p in own if p.endswith("h"))
    print(f"with every file of the library that is linked into the two: {all_n} lines, {len(linked)} files")
    r.check(f"with the library: at most {ROOT_LINKED_MAX} lines", 1000 < all_n <= ROOT_LINKED_MAX, str(all_n))
    parsers = [p for p in linked if re.search(r"lib/(conf|mail|smtp|sasl|tls|queue|mailbox|login)/", p)]
    r.check("no parser of the configuration or of mail is linked into them", linked and not parsers, str(parsers))


def check_cet(r):
    """In our objects: the linker drops the notes, since Debian's start files and libc.a have none."""
    objects = [o for o in glob.glob(ROOT + "/build/**/*.o", recursive=True) if "/tests/" not in o]
    wrong = [o for o in objects if not re.search(r"IBT.*SHSTK", elf("-n", o))]
    r.check(f"CET: {len(objects)} objects of ours have the notes", not wrong, str(wrong[:5]))


def has_capability(path):
    return "security.capability" in os.listxattr(path)


def check_installed(r):
    with tempfile.TemporaryDirectory() as top:
        p = subprocess.run(["make", "--no-print-directory", "-o", "all", "install", f"DESTDIR={top}"], cwd=ROOT,
                           capture_output=True, text=True)
        privileged, n = [], 0
        for base, _, files in os.walk(top):
            for name in files:
                st = os.lstat(os.path.join(base, name))
                n += 1
                if stat.S_ISREG(st.st_mode) and (st.st_mode & 0o6022 or has_capability(os.path.join(base, name))):
                    privileged.append(name)
        r.check(f"of {n} installed files none is set-uid, set-gid, or writable for others", p.returncode == 0 and n > 20
                and not privileged, f"{privileged} {p.stderr[-300:]}")


def main():
    r = Report()
    binaries = sorted(glob.glob(BIN + "/*"))
    if any(re.search(r"__asan_init", elf("-s", b)) for b in binaries[:1]):
        r.check("a build with sanitizers is not hardened", True)
        r.end()
    for path in binaries:
        check_binary(r, path)
    check_cet(r)
    check_installed(r)
    check_root_code(r)
    r.end()


if __name__ == "__main__":
    main()
