"""The checks of a queue file (common/lib/queue/qfile.h), written a second time: SipHash-2-4 with a fixed key."""
import struct

MASK = (1 << 64) - 1
KEY = b"bulkhead-qfile1\0"
HEAD, CHECK_AT, SEAL_AT = 64, 48, 56


def rotl(x, n):
    return (x << n | x >> (64 - n)) & MASK


class SipHash:
    def __init__(self, k0, k1):
        self.v = [k0 ^ 0x736f6d6570736575, k1 ^ 0x646f72616e646f6d, k0 ^ 0x6c7967656e657261, k1 ^ 0x7465646279746573]

    def rounds(self, n):
        v0, v1, v2, v3 = self.v
        for _ in range(n):
            v0, v2 = (v0 + v1) & MASK, (v2 + v3) & MASK
            v1, v3 = rotl(v1, 13) ^ v0, rotl(v3, 16) ^ v2
            v0 = rotl(v0, 32)
            v2, v0 = (v2 + v1) & MASK, (v0 + v3) & MASK
            v1, v3 = rotl(v1, 17) ^ v2, rotl(v3, 21) ^ v0
            v2 = rotl(v2, 32)
        self.v = [v0, v1, v2, v3]


def check_of(data):
    h = SipHash(*struct.unpack("<QQ", KEY))
    for word, in struct.iter_unpack("<Q", data + bytes(7 - len(data) % 8) + bytes([len(data) % 256])):
        h.v[3] ^= word
        h.rounds(2)
        h.v[0] ^= word
    h.v[2] ^= 0xff
    h.rounds(4)
    return h.v[0] ^ h.v[1] ^ h.v[2] ^ h.v[3]


def envelope_end(file):
    return HEAD + struct.unpack_from("<Q", file, 16)[0]


def resealed(file):
    """The same after a change of its message that did not change the length."""
    file = file[:CHECK_AT] + struct.pack("<Q", check_of(file[envelope_end(file):])) + file[CHECK_AT + 8:]
    return file[:SEAL_AT] + struct.pack("<Q", check_of(file[:SEAL_AT])) + file[SEAL_AT + 8:]
