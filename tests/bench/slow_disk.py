"""An ext4 file system, with its journal, on a disk in memory whose flush takes some milliseconds: FUSE (tests/fault/blocklog.c) under
a loop device. Needs root."""
import os
import shutil
import subprocess
import tempfile
import time

from harness import BIN
from mounted import Mounted

BLOCKLOG = os.path.join(os.path.dirname(BIN), "fault", "blocklog")
SIZE = 2 << 30


class SlowDisk:
    def __init__(self, flush_ms):
        self.dir = tempfile.mkdtemp(prefix="bench-disk-", dir="/dev/shm")
        image, raw, self.at = f"{self.dir}/image", f"{self.dir}/raw", f"{self.dir}/fs"
        with open(image, "wb") as f:
            f.truncate(SIZE)
        subprocess.run(["mkfs.ext4", "-q", "-F", "-E", "nodiscard,lazy_itable_init=0,lazy_journal_init=0", image], check=True)
        for d in (raw, self.at):
            os.mkdir(d)
        os.chmod(self.dir, 0o755)
        self.process = subprocess.Popen([BLOCKLOG, image, "/dev/null", raw, str(round(1000 * flush_ms))], stdout=subprocess.PIPE,
                                        text=True)
        if self.process.stdout.readline().strip() != "ready":
            raise RuntimeError("blocklog does not run")
        self.raw, self.disk = raw, Mounted(f"{raw}/disk", self.at)
        os.chmod(self.at, 0o1777)

    def end(self):
        self.disk.end()
        time.sleep(0.2)  # the loop device lets go
        subprocess.run(["umount", "-l", self.raw], capture_output=True)
        self.process.wait(20)
        shutil.rmtree(self.dir, ignore_errors=True)
