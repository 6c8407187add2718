# SPDX-License-Identifier: MIT
"""
What the benchmarks of the two machines share: the tiny guest and Linux as files, a guest's config, Linux's way to its
shell, and the entries of build/bench.json.
"""
import os
import re
import shutil

import debian
import image
import initramfs

BUILD = image.BUILD
TINY = "tiny"
LINUX = "test=linux -- console=ttyS0 quiet"
LINUX_FILES = ("vmlinuz", "initrd.img")
LINUX_GOAL = 1.05


def prepare(folder, kind, with_linux):
    """Puts the files there that the machines boot. kind: of the tiny guest."""
    shutil.copy(os.path.join(BUILD, "guests", "tiny-%s.elf" % kind), os.path.join(folder, TINY))
    if not with_linux:
        return
    kernel, initrd = (os.path.join(folder, name) for name in LINUX_FILES)
    shutil.copy(debian.kernel(BUILD), kernel)
    with open(os.path.join(BUILD, "guests", "tsc"), "rb") as f:
        tsc = f.read()
    with open(initrd, "wb") as f:
        f.write(initramfs.build(first="/bin/tsc", files={"bin/tsc": tsc}, extra="poweroff -f"))


def configure(folder, cmdline, memory, modules=(), more=""):
    """A config with the tiny guest; returns its path."""
    path = os.path.join(folder, "guests.conf")
    with open(path, "w", encoding="ascii") as f:
        f.write("[guest bench]\nkernel = %s\ncmdline = %s\nmemory = %s\n%s" % (TINY, cmdline, memory, more))
        f.writelines("initrd = %s\n" % m for m in modules)
    return path


def number(pattern, text):
    """What the pattern's group matches on a console."""
    found = re.search(pattern, text)
    if not found:
        raise SystemExit("cleave bench: the machine ended without '%s':\n%s" % (pattern, text[-2000:]))
    return int(found[1])


def to_shell(text):
    """From the jump to Linux's 64-bit entry to the first thing that init does."""
    return number(r"@init tsc=(\d+)", text) - number(r"@linux tsc=(\d+)", text)


def entry(machine, name, value, unit="instructions", peer=None, peer_value=None, goal=None):
    return {"name": name, "machine": machine, "unit": unit, "better": "lower", "value": value, "peer": peer,
            "peer_value": peer_value, "goal": goal}


def linux_entry(machine, name, bare, ours):
    """Printed, and as an entry."""
    print("%-38s %12d %12d   %.3f of bare, goal %.2f" % ("Linux to its shell", bare, ours, ours / bare, LINUX_GOAL))
    return entry(machine, name, ours, peer="bare " + machine.split()[0], peer_value=bare, goal=LINUX_GOAL * bare)
