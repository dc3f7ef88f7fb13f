"""A scripted SMTP server: answers with what a test tells it, and keeps what it was told."""
import socket
import threading
import time


class FakeMX:
    def __init__(self):
        self.s = socket.create_server(("127.0.0.1", 0), backlog=100)
        self.port = self.s.getsockname()[1]
        self.answers = {}  # verb -> bytes, list of bytes (one after another, the last stays), or None: hang up
        self.messages, self.rcpts, self.verbs = [], [], []
        self.talks = []  # the verbs of each connection
        self.connections, self.open = 0, []
        self.slow = 0  # seconds before the answer to RCPT
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        while True:
            try:
                c, _ = self.s.accept()
            except OSError:
                return
            self.connections += 1
            self.open.append(c)
            threading.Thread(target=self.session, args=(c,), daemon=True).start()

    def answer(self, c, verb, usual):
        a = self.answers.get(verb, usual)
        if isinstance(a, list):
            a = a.pop(0) if len(a) > 1 else a[0]
        if a is None:
            raise ConnectionError
        c.sendall(a)
        return a

    def session(self, c):
        try:
            self.talk(c, c.makefile("rb"))
        except OSError:
            pass
        finally:
            c.close()

    def rcpt(self, who):
        """The usual answer to this recipient."""
        return b"250 ok\r\n"

    def kept(self, text, rcpts, when):
        """A message has come, and was answered for after this time: whoever heard that may have acted on it since."""
        self.messages.append(text)

    def talk(self, c, f):
        self.answer(c, "banner", b"220 fake.example ESMTP\r\n")
        rcpts, mine = [], []
        self.talks.append(mine)
        for line in f:
            verb = line.split()[0].upper().decode(errors="replace") if line.split() else ""
            self.verbs.append(line.strip().decode(errors="replace"))
            mine.append(self.verbs[-1])
            if verb == "EHLO":
                self.answer(c, verb, b"250-fake.example\r\n250 8BITMIME\r\n")
            elif verb == "MAIL":
                rcpts = []
                self.answer(c, verb, b"250 ok\r\n")
            elif verb == "RCPT":
                who = line.split(b"<")[1].split(b">")[0].decode()
                key = "RCPT " + who if "RCPT " + who in self.answers else "RCPT"
                time.sleep(self.slow)
                if self.answer(c, key, self.rcpt(who)).startswith(b"2"):
                    rcpts.append(who)
                    self.rcpts.append(who)
            elif verb == "DATA":
                usual = b"354 go\r\n" if rcpts else b"554 5.5.1 no recipients\r\n"
                if self.answer(c, verb, usual).startswith(b"354"):
                    self.data(c, f, rcpts)
            elif verb == "QUIT":
                self.answer(c, verb, b"221 bye\r\n")
                return
            else:
                self.answer(c, verb, b"250 ok\r\n")

    def data(self, c, f, rcpts):
        text = b""
        for line in f:
            if line == b".\r\n":
                break
            text += line
            if self.answers.get("cut") and len(text) > 10:
                raise ConnectionError
        else:
            return
        when = time.monotonic()
        if self.answer(c, ".", b"250 kept\r\n").startswith(b"2"):
            self.kept(text, rcpts, when)

    def hang_up(self):
        """So that the next message comes over a new connection."""
        while self.open:
            try:
                self.open.pop().shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def stop(self):
        self.s.close()
