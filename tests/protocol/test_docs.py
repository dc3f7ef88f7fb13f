#!/usr/bin/env python3
"""The documents say what the code says: messages, links, words and their defaults, system calls, ceilings;
files that are named exist; examples of the configuration are good; no path of the machine they were written on."""
import glob
import os
import re
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from harness import BIN, ROOT, ROLES, Report, make_certificate, make_users, number, rows  # noqa: E402

TABLES = os.path.join(os.path.dirname(BIN), "print_tables")
CONF = "common/master/ctl/bulkhead.conf.5"


def read(path):
    with open(os.path.join(ROOT, path), encoding="utf-8") as f:
        return f.read()


def tables():
    out = {}
    for line in subprocess.run([TABLES], check=True, capture_output=True, text=True).stdout.splitlines():
        kind, rest = line.split(" ", 1)
        out.setdefault(kind, []).append(rest.split(" "))
    return out


def same(report, name, documented, built):
    documented, built = set(documented), set(built)
    report.check(name, documented == built and built,
                 f"only in the document: {sorted(documented - built)}; missing: {sorted(built - documented)}")


def unquote(roff):
    return re.sub(r"\\f.|\\\(..", "", roff).replace("\\-", "-")


def documented_words():
    """(block, word, default) of each entry of bulkhead.conf(5)."""
    out, blocks = [], ["-"]
    text = unquote(read(CONF))
    for part in re.split(r"^\.(?=SH|SS|TP)", text, flags=re.M):
        if part.startswith(("SH", "SS")):
            title = part.splitlines()[0]
            found = re.findall(r"[a-z][a-z0-9]+", title.split("LOCK", 1)[-1]) if "LOCK" in title else []
            blocks = (["-"] if "AT THE TOP" in title else ["imapd"] if "Only in block imapd" in title
                      else ["smtpd"] if "Only in block smtpd" in title
                      else ["smtpd", "submitd"] if "Only in blocks smtpd" in title
                      else [w for w in found if w != "s"])
        elif part.startswith("TP") and blocks:
            m = re.match(r"TP\n\.BI ([a-z-]+) ", part)
            if not m:
                continue
            d = re.search(r"^Default: (.*)\.$", part, re.M)
            defaults = d.group(1).split(", ") if d else ["-"]
            for i, block in enumerate(blocks):
                # Of two defaults the second is that of pop3d and imapd.
                out.append((block, m.group(1), defaults[-1] if i >= 2 else defaults[0]))
    return out


def check_words(report, t):
    built = []
    for block, word, _, *default in t["word"]:
        value = " ".join(default)
        built.append((block, word, value))
    documented = [(b, w, "/usr/local/libexec/bulkhead" if w == "programs" else d)
                  for b, w, d in documented_words()]
    built = [(b, w, "/usr/local/libexec/bulkhead" if w == "programs" else d) for b, w, d in built]
    same(report, "bulkhead.conf(5): every word with its default", documented, built)


def check_messages(report, t):
    documented = [(r[0], r[1], "+".join(sorted(r[2].split())), "+".join(sorted(r[3].split())), r[4])
                  for r in rows("ARCHITECTURE.md", "| name | number | from | to |")]
    built = [(n, num, "+".join(sorted(a.split("+"))), "+".join(sorted(b.split("+"))), fds)
             for n, num, a, b, fds in t["message"]]
    same(report, "ARCHITECTURE: every message, from whom, to whom, with how many descriptors", documented, built)


def check_links(report, t, architecture):
    documented = [(client, s) for client, services in rows("ARCHITECTURE.md", "| client | services |")
                  for s in services.split()]
    same(report, "ARCHITECTURE: every door", documented, [tuple(x) for x in t["link"]])
    graph = architecture[architecture.index("## The processes"):architecture.index("Who may open")]
    missing = [r for r in ROLES + ["launcher", "master", "cell", "bulkhead"] if r not in graph]
    report.check("ARCHITECTURE: every role is in the graph", not missing, str(missing))


def check_calls(report, t, security):
    documented = [(r[0], *[number(c) for c in r[1:]]) for r in rows("SECURITY.md", "| role | calls |")]
    same(report, "SECURITY: system calls and open files of every role", documented,
         [(r[0], *[int(c) for c in r[1:]]) for r in t["role"]])
    report.check("SECURITY: every role has its part",
                 all(re.search(r"^### .*\b%s\b" % r, security, re.M) for r in ROLES + ["master", "launcher", "cell"]))


def value_of(name, path):
    m = re.search(r"\b%s = ([0-9a-zA-Z_ */<()+-]+?)\s*(?:,|/\*|\}|\n)" % name, read(path))
    return eval(m.group(1), {"__builtins__": {}}) if m else None  # noqa: S307: our own constant


def check_ceilings(report, t):
    table = rows("ARCHITECTURE.md", "| name | value | in | what |")
    words = {w[1] for w in t["word"]}
    wrong = []
    for name, value, where, _, tested in table:
        if where == "bulkhead.conf(5)":
            if name not in words:
                wrong.append(name)
        elif value_of(name, where.strip("`")) != number(value):
            wrong.append(f"{name} is {value_of(name, where.strip('`'))}")
        if tested:
            file, test = tested.split()
            if not has_test(file, test):
                wrong.append(f"{name}: no test {tested}")
    report.check(f"ARCHITECTURE: {len(table)} ceilings have these values and tests", table and not wrong, str(wrong))


def has_test(file, test):
    """Whether a file of the tests has this one."""
    path = next(iter(glob.glob(f"tests/*/{file}", root_dir=ROOT)), None)
    return path and re.search(r"START_TEST\(%s\)|^ *def %s\(" % (test, test), read(path), re.M)


def check_failures(report):
    table = [[c.strip() for c in line.strip().strip("|").split("|")] for line in read("docs/FAILURES.md").splitlines()
             if re.match(r"\| [B-F]\d+ \|", line)]
    wrong = [f"{r[0]}: {t}" for r in table for t in r[3].split(", ") if t and not has_test(*t.split())]
    report.check(f"FAILURES: {len(table)} entries have the tests they name", len(table) > 30 and not wrong, str(wrong))


def documents():
    found = glob.glob("*.md", root_dir=ROOT) + glob.glob("docs/*.md", root_dir=ROOT)
    for level in ("*", "*/*", "*/*/*", "*/*/*/*"):
        found += [f for f in glob.glob(level + ".[158]", root_dir=ROOT) if not f.startswith("build")]
    return sorted(found)


def check_files(report):
    missing = []
    for d in documents():
        text = read(d)
        if not d.endswith(".md"):
            continue
        names = re.findall(r"`((?:common|tests|smtpd|submitd|qmgr|relay|local|pop3d|imapd|docs)/[\w./-]*\w)`", text)
        names += [os.path.normpath(os.path.join(os.path.dirname(d), n))
                  for n in re.findall(r"\]\(([\w./-]+)\)", text)]
        missing += [f"{d}: {n}" for n in names if not os.path.exists(os.path.join(ROOT, n))]
    report.check("every file that a document names is there", not missing, str(missing))


def check_pages(report):
    """Each program has its page, and each page that is named exists here or is of the system."""
    pages = {os.path.basename(d) for d in documents() if not d.endswith(".md")}
    missing = [r for r in ROLES + ["master", "launcher", "bulkhead"] if f"{r}.8" not in pages]
    report.check("every program has a man page", not missing, str(missing))
    system = {"sysexits.h.3head", "crypt.3", "logrotate.8", "mailq.1", "newaliases.1"}
    wrong = []
    for d in documents():
        if d.endswith(".md"):
            continue
        for name, section in re.findall(r"^\.BR ([\w.]+) \((\w+)\)", unquote(read(d)), re.M):
            if f"{name}.{section}" not in pages | system:
                wrong.append(f"{d}: {name}({section})")
        wrong += [f"{d}: user {u}" for u in re.findall(r"\bbh-([a-z0-9]+)", read(d)) if u not in ROLES]
    report.check("man pages name pages and users that exist", not wrong, str(wrong))


def check_no_machine(report):
    pattern = re.compile(re.escape(ROOT) + r"\b|/root/")
    wrong = [f"{d}: {m.group(0)}" for d in documents() for m in [pattern.search(read(d))] if m]
    report.check("no document has a path of a machine", not wrong, str(wrong))


def check_examples(report):
    text = unquote(read(CONF))
    examples = [e for e in re.findall(r"^\.EX\n(.*?)^\.EE", text, re.S | re.M) if e.startswith("version 1")]
    readme = read("README.md")
    examples += [e for e in re.split(r"^```$", readme, flags=re.M) if e.startswith("\nversion 1")]
    make_users()
    for i, example in enumerate(examples):
        with tempfile.TemporaryDirectory() as d, open(d + "/x.conf", "w") as f:
            # Their certificates lie elsewhere, and are good.
            chain, key = make_certificate(d, ["mail.example.org"])
            example = re.sub(r"(?m)^certificate \S+ key \S+", f"certificate {chain} key {key}", example)
            f.write(example + f"\ndirectories {{ programs {BIN} }}\n")
            f.flush()
            p = subprocess.run([os.path.join(BIN, "bulkhead"), "-f", f.name, "check"], capture_output=True, text=True)
            report.check(f"example {i + 1} of a configuration is good", p.returncode == 0, p.stderr)
    report.check("there are examples", len(examples) >= 3)


def main():
    report = Report()
    t = tables()
    architecture, security = read("docs/ARCHITECTURE.md"), read("docs/SECURITY.md")
    check_messages(report, t)
    check_links(report, t, architecture)
    check_ceilings(report, t)
    check_words(report, t)
    check_calls(report, t, security)
    check_failures(report)
    check_files(report)
    check_pages(report)
    check_no_machine(report)
    check_examples(report)
    report.end()


main()
