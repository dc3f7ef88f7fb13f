"""An image of a file system, on a loop device, mounted at a directory. Needs root."""
import subprocess
import time


class Mounted:
    all = set()

    def __init__(self, image, at, kind="ext4", options="noatime"):
        self.at, self.kind = at, kind
        self.loop = subprocess.run(["losetup", "-f", "--show", image], check=True, capture_output=True, text=True).stdout.strip()
        p = subprocess.run(["mount", "-t", kind, "-o", options, self.loop, at], capture_output=True, text=True)
        if p.returncode:
            subprocess.run(["losetup", "-d", self.loop], capture_output=True)
            raise RuntimeError(f"mount {self.loop}: {p.stderr.strip()}")
        Mounted.all.add(self)

    def end(self):
        if self not in Mounted.all:
            return
        Mounted.all.discard(self)
        for _ in range(100):
            if subprocess.run(["umount", self.at], capture_output=True).returncode == 0:
                break
            time.sleep(0.05)
        else:
            subprocess.run(["umount", "-l", self.at])
        if self.kind == "btrfs":
            subprocess.run(["btrfs", "device", "scan", "--forget", self.loop], capture_output=True)
        subprocess.run(["losetup", "-d", self.loop], capture_output=True)
