#!/usr/bin/env python3
"""What operators type at bulkhead(8): mistakes are said, and nothing is done by mistake; JSON is JSON; a certificate that
cannot be used is found before anything changes. Ends with "N passed, N failed"."""
import fcntl
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import termios

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from harness import BIN, Report, Suite, make_certificate, sanitized, wait_for  # noqa: E402


def says(suite, status, text, *args, input=None):
    """The command ends so, and prints this."""
    p = suite.ctl(*args, input=input, check=False)
    assert p.returncode == status and text in p.stdout + p.stderr, (args, p.returncode, p.stdout, p.stderr)
    return p


def pids(suite):
    return {row["program"]: row["pid"] for row in suite.status()}


def json_anywhere(suite):
    for words in (["status"], ["stats"], ["account", "list"], ["queue", "list"], ["queue", "shape"], ["queue", "retry", "--all"],
                  ["privileges"])[:6 if sanitized() else None]:
        for args in (["--json", *words], [*words, "--json"], [words[0], "--json", *words[1:]]):
            json.loads(suite.ctl(*args))


def no_word_too_many(suite):
    before = pids(suite)
    for verb in ("stop", "reload", "status", "start", "stats"):
        says(suite, 64, "usage", verb, "smtpd")
    says(suite, 64, "there is no command restart", "restart")
    assert pids(suite) == before


def wait_is_for_who_started_master(suite):
    says(suite, 0, "", "wait")
    says(suite, 0, "", "wait", str(pids(suite)["master"]))
    for args in (["0"], ["x"], ["1", "2"], ["-1"]):
        says(suite, 64, "usage", "wait", *args)
    ended = subprocess.Popen(["true"])
    ended.wait()
    says(suite, 71, "not started", "wait", str(ended.pid))


def a_bad_certificate_changes_nothing(suite):
    with open(suite.conf) as f:
        good = f.read()
    before = pids(suite)
    other = os.path.join(suite.dir, "other")
    os.mkdir(other)
    _, foreign = make_certificate(other, ["other.example"])
    chain, key = os.path.join(suite.dir, "cert.pem"), os.path.join(suite.dir, "key.pem")
    for old, new, text in ((chain, chain + ".gone", "No such file"), (key, foreign, "does not belong to the private key"),
                           (key, chain, "not an unencrypted PEM private key"), (chain, "/etc/passwd", "not a PEM certificate"),
                           (chain, "cert.pem", "is not an absolute path")):
        with open(suite.conf, "w") as f:
            f.write(good.replace(old, new, 1))
        says(suite, 78, text, "check")
        says(suite, 78, text, "reload")
    with open(suite.conf, "w") as f:
        f.write(good)
    says(suite, 0, "good", "check")
    assert pids(suite) == before


def one_account_however_written(suite):
    suite.add("alice", "secret")
    for name in ("alice", "Alice", "alice@example.org", "ALICE@Example.ORG"):
        says(suite, 69, "already", "account", "add", name, input="x\n")
        says(suite, 0, "0 problems", "mailbox", "check", name)
        says(suite, 0, "changed", "account", "passwd", name, input="secret\n")
    for name in ("", ".", "..", "@example.org", "a b", "../x", "a/b", 65 * "a", 65 * "a" + "@example.org"):
        says(suite, 69, "malformed name", "account", "add", name, input="x\n")
    says(suite, 0, "added", "account", "add", 64 * "a", input="x\n")
    directory, = [row["directory"] for row in json.loads(suite.ctl("--json", "account", "list")) if row["name"] == "alice"]
    says(suite, 69, "another user ID", "account", "add", "bob", "-u", "4321", "-d", directory, input="x\n")
    for ids in (["-u", "0"], ["-g", "0"], ["-g", "1000"], ["-u", "4294967296"], ["-u"]):
        says(suite, 64, "usage", "account", "add", "bob", *ids, input="x\n")
    says(suite, 67, "no account bob", "mailbox", "check", "bob")
    says(suite, 64, "cannot be a folder's name: a//b", "mailbox", "import", "-f", "a//b", "alice", "/dev/null")


def a_filter_without_its_value(suite):
    for option in ("--older", "--newer", "--sender", "--recipient", "--domain"):
        says(suite, 64, f"{option} needs a value", "queue", "list", option)
        says(suite, 64, f"{option} needs a value", "queue", "remove", option)


def what_is_not_written_is_an_error(suite):
    for args in (["status"], ["account", "list"], ["queue", "list"], ["check"]):
        with open("/dev/full", "w") as full:
            p = subprocess.run([os.path.join(BIN, "bulkhead"), "-f", suite.conf, *args], stdout=full, stderr=subprocess.PIPE,
                               text=True, timeout=60)
        assert p.returncode == 74 and "No space left" in p.stderr, (args, p)


def nobody_is_told_of_an_empty_queue(suite):
    """When it does not run, nobody knows how many messages there are."""
    suite.ctl("stop")
    p = says(suite, 69, "", "queue", "list")
    assert "messages in the queue" not in p.stdout, p.stdout
    p = says(suite, 69, "", "account", "list", "--json")
    assert p.stdout == "", p.stdout
    says(suite, 69, "not running", "status")


def no_descriptors(suite):
    """Called with 0, 1 and 2 closed: what is opened next must not take their place."""
    def closed(*args, env=None):
        return subprocess.run(["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", *args], timeout=60, env=env).returncode

    suite.ctl("stop")
    assert closed(os.path.join(BIN, "bulkhead"), "-f", suite.conf, "check") == 0
    assert closed(os.path.join(BIN, "bulkhead"), "-f", suite.conf, "start") == 0
    assert all(x["state"] == "ready" for x in suite.status())
    env = dict(os.environ, BULKHEAD_SUBMIT=suite.run + "/submit")
    assert closed(os.path.join(BIN, "sendmail"), "-v", "alice", env=env) == 0
    assert closed(os.path.join(BIN, "sendmail"), "-bs", env=env) == 0
    wait_for(lambda: len(suite.messages("alice")) == 1)
    with open("/dev/full", "w") as full:
        p = subprocess.run([os.path.join(BIN, "sendmail"), "-bp"], stdout=full, stderr=subprocess.PIPE, env=env, timeout=60)
    assert p.returncode == 74 and b"No space left" in p.stderr, p
    assert subprocess.run([os.path.join(BIN, "sendmail"), "-bv"], stderr=subprocess.DEVNULL, env=env, timeout=60).returncode == 64


def the_terminal_gets_its_echo_back(suite):
    """However typing a password ends."""
    for typed, status in ((b"one\none\n", 0), (b"one\ntwo\n", 65), (b"\n", 65), (b"\x04", 65), (b"\x03", -signal.SIGINT),
                          (b"one\n\x1c", -signal.SIGQUIT)):
        ours, theirs = os.openpty()
        p = subprocess.Popen([os.path.join(BIN, "bulkhead"), "-f", suite.conf, "account", "passwd", "alice"], stdin=theirs,
                             stdout=theirs, stderr=theirs, preexec_fn=lambda: (os.setsid(), fcntl.ioctl(0, termios.TIOCSCTTY, 0)))
        said = b""
        for word in (b"Password: ", b"Again: "):
            while word not in said and p.poll() is None:
                if select.select([ours], [], [], 0.1)[0]:
                    said += os.read(ours, 4096)
            line, _, typed = typed.partition(b"\n") if b"\n" in typed else (typed, b"", b"")
            if p.poll() is None and (line or word == b"Password: "):
                os.write(ours, line if line in (b"\x03", b"\x04", b"\x1c") else line + b"\n")
        assert p.wait(20) == status, (typed, status, p.returncode, said)
        assert termios.tcgetattr(theirs)[3] & termios.ECHO and b"one" not in said, said
        os.close(ours)
        os.close(theirs)


def mistakes_do_not_hide_what_runs(suite):
    """The configuration is broken: what runs can be looked at and stopped all the same, and not reloaded."""
    with open(suite.conf) as f:
        good = f.read()
    before = pids(suite)
    with open(suite.conf, "w") as f:
        f.write(good + "no-such-word yes\n")
    for args in (["status"], ["queue", "list"], ["queue", "flush"], ["stats"]):
        says(suite, 0, "has mistakes", *args)
    says(suite, 70 if sanitized() else 0, "has mistakes", "privileges")
    says(suite, 78, "no-such-word", "check")
    says(suite, 78, "no-such-word", "reload")
    says(suite, 78, "no-such-word", "account", "list")
    assert pids(suite) == before
    says(suite, 0, "has mistakes", "stop")
    with open(suite.conf, "w") as f:
        f.write(good)
    suite.ctl("start")
    says(suite, 78, "No such file", "-f", suite.conf + ".gone", "status")


def a_bad_alias_is_said(suite):
    path = os.path.join(suite.dir, "aliases")
    with open(path, "w") as f:
        f.write("good: alice\nbad: alice, x@@y\nworse alice\n")
    p = says(suite, 78, path + ":2: ", "check")
    assert path + ":3: " in p.stderr and "good" not in p.stdout, p
    p = says(suite, 0, "reloaded", "reload")
    assert path + ":2: " in p.stderr and "waits until they are mended" in p.stderr, p
    with open(path, "w") as f:
        f.write("good: alice\n")
    says(suite, 0, "good", "check")
    assert says(suite, 0, "reloaded", "reload").stderr == ""
    os.unlink(path)
    says(suite, 0, "good", "check")


def aliases_want_a_reload(suite):
    path = os.path.join(suite.dir, "newaliases")
    shutil.copy(os.path.join(BIN, "sendmail"), path)
    p = subprocess.run([path], capture_output=True, text=True, timeout=60)
    assert p.returncode == 0 and "bulkhead reload" in p.stdout, p


def main():
    r = Report()
    with Suite() as suite:
        r.run("json_anywhere", json_anywhere, suite)
        r.run("no_word_too_many", no_word_too_many, suite)
        r.run("wait_is_for_who_started_master", wait_is_for_who_started_master, suite)
        r.run("a_bad_certificate_changes_nothing", a_bad_certificate_changes_nothing, suite)
        r.run("one_account_however_written", one_account_however_written, suite)
        r.run("a_filter_without_its_value", a_filter_without_its_value, suite)
        r.run("what_is_not_written_is_an_error", what_is_not_written_is_an_error, suite)
        r.run("the_terminal_gets_its_echo_back", the_terminal_gets_its_echo_back, suite)
        r.run("mistakes_do_not_hide_what_runs", mistakes_do_not_hide_what_runs, suite)
        r.run("a_bad_alias_is_said", a_bad_alias_is_said, suite)
        r.run("no_descriptors", no_descriptors, suite)
        r.run("aliases_want_a_reload", aliases_want_a_reload, suite)
        r.run("nobody_is_told_of_an_empty_queue", nobody_is_told_of_an_empty_queue, suite)
    r.end()


if __name__ == "__main__":
    main()
