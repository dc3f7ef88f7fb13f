"""A name server for tests: every domain has one MX, mx.DOMAIN, at an address that a test says."""
import socket
import struct
import threading


class FakeDNS:
    def __init__(self, address_of):
        self.address_of = address_of  # domain -> IPv4 address
        self.s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.s.bind(("127.0.0.1", 0))
        self.port = self.s.getsockname()[1]
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        while True:
            try:
                query, peer = self.s.recvfrom(4096)
                self.s.sendto(self.answer(query), peer)
            except OSError:
                return

    def answer(self, query):
        labels, at = [], 12
        while query[at]:
            labels.append(query[at + 1:at + 1 + query[at]].decode())
            at += 1 + query[at]
        kind, = struct.unpack("!H", query[at + 1:at + 3])
        question, data = query[12:at + 5], None
        if kind == 15 and labels[0] != "mx":
            data = struct.pack("!H", 10) + b"\2mx\xc0\x0c"
        elif kind == 1 and labels[0] == "mx":
            data = socket.inet_aton(self.address_of(".".join(labels[1:])))
        record = b"" if data is None else b"\xc0\x0c" + struct.pack("!HHIH", kind, 1, 3600, len(data)) + data
        return query[:2] + struct.pack("!HHHHH", 0x8180, 1, 1 if record else 0, 0, 0) + question + record

    def stop(self):
        self.s.close()
