#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""An initramfs with busybox, written as a newc cpio archive: no root, no device nodes of this machine needed."""
import os
import stat
import sys

BUSYBOX = "/bin/busybox"

INIT = """#!/bin/busybox sh
{first}
/bin/busybox --install -s /bin
mount -t devtmpfs dev /dev 2>/dev/null
mount -t proc proc /proc
mount -t sysfs sys /sys
hostname cleave
# What poweroff, halt and reboot send to init. A trap runs only while the shell waits, not while it runs a command.
trap 'sync; poweroff -f' USR2
trap 'sync; halt -f' USR1
trap 'sync; reboot -f' TERM
export HOME=/ PS1='# ' PATH=/bin
{extra}
echo
echo "cleave-shell-ready: Linux $(uname -r), $(nproc) CPU(s), $(awk '/MemTotal/ {{ print int($2 / 1024) }}' /proc/meminfo) MB"
echo "Type poweroff to end this guest."
cd /
while true; do
	setsid cttyhack sh </dev/console &
	wait $!
done
"""

class Cpio:
    """A newc archive, built in memory (Linux Documentation/driver-api/early-userspace/buffer-format.rst)."""

    def __init__(self):
        self.data = bytearray()
        self.inode = 0

    def add(self, name, mode, data=b"", rdev=(0, 0)):
        self.inode += 1
        raw = name.encode() + b"\0"
        fields = (self.inode, mode, 0, 0, 1, 0, len(data), 0, 0, *rdev, len(raw), 0)
        self.data += b"070701" + b"".join(b"%08x" % f for f in fields) + raw
        self._pad()
        self.data += data
        self._pad()

    def _pad(self):
        self.data += bytes(-len(self.data) % 4)

    def finish(self):
        self.add("TRAILER!!!", 0)
        return bytes(self.data)


def build(extra="", first="", files=None):
    """The archive's bytes. first: init's first line; extra: lines before the shell; files: {path: bytes}."""
    with open(BUSYBOX, "rb") as f:
        busybox = f.read()
    cpio = Cpio()
    for d in ("bin", "dev", "proc", "sys", "tmp"):
        cpio.add(d, stat.S_IFDIR | 0o755)
    cpio.add("dev/console", stat.S_IFCHR | 0o600, rdev=(5, 1))
    cpio.add("dev/null", stat.S_IFCHR | 0o666, rdev=(1, 3))
    cpio.add("bin/busybox", stat.S_IFREG | 0o755, busybox)
    cpio.add("init", stat.S_IFREG | 0o755, INIT.format(first=first, extra=extra).encode())
    for name, data in (files or {}).items():
        cpio.add(name, stat.S_IFREG | 0o755, data)
    return cpio.finish()


def main():
    if len(sys.argv) != 2:
        sys.exit("usage: initramfs.py OUT")
    os.makedirs(os.path.dirname(os.path.abspath(sys.argv[1])), exist_ok=True)
    with open(sys.argv[1], "wb") as f:
        f.write(build())


if __name__ == "__main__":
    main()
