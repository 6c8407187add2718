#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""
Measures Cleave on Intel: in Bochs, whose TSC counts instructions, with VMX and EPT. `./cleave bench` prints this with the
rest; alone, it prints only this.

- One operation in a guest: the least of 200, by the tiny guest (tests/guests/bench.c).
- VMREADs and VMWRITEs of an exit: what two runs of one operation differ by, of which one does it 1,000 times more.
- Linux to its shell: as in bench.py, under Cleave and on the same model bare.
"""
import argparse
import os
import re
import subprocess
import sys
import tempfile

import bochs
import image
from bench_common import LINUX, LINUX_FILES, TINY, configure, entry, linux_entry, number, prepare, to_shell

MACHINE = "Bochs 2.7 %s, instructions counted" % bochs.INTEL
LIMIT = 600
TIMES = 1000

# operation: (what it is, KVM of Linux 6.1 in Bochs or None, the most VMREADs and VMWRITEs)
OPERATIONS = {
    "cpuid": ("CPUID", 1131, (6, 3)),
    "port-pic": ("port read, device in the hypervisor", 1292, None),
    "mmio-nobody-read": ("unmapped MMIO read", None, None),
    "first-touch": ("EPT violation, first touch of a page", None, None),
    "lapic-eoi": ("local APIC EOI", 1672, None),
}


def console(path, memory, until, **options):
    """What the machine says until that, or its end."""
    text = ""
    with subprocess.Popen(bochs.command(path, memory=memory, limit=LIMIT, **options), stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, text=True, errors="replace") as machine:
        for line in machine.stdout:
            text += line
            if re.search(until, line):
                break
        machine.terminate()
    found = re.search(until, text)
    if not found:
        raise SystemExit("cleave bench: Bochs ended without '%s':\n%s" % (until, text[-2000:]))
    return text


def boot(folder, cmdline, until, modules=(), memory="64M", more=""):
    """The tiny guest under Cleave."""
    out = os.path.join(folder, "boot.img")
    image.make(configure(folder, cmdline, memory, modules, more), out)
    return console(out, "1G", until)


def operation(folder, name, times):
    """Returns (instructions, VMREADs, VMWRITEs): one's, and those of the whole run."""
    more = "populate = demand\nmax-page = 4K\n" if name == "first-touch" else ""
    text = boot(folder, "test=bench op=%s times=%d" % (name, times), "@vmcs .*", more=more)
    patterns = r"@bench name=%s ticks=(\d+)" % name, r"@vmcs .*reads=(\d+)", r"@vmcs .*writes=(\d+)"
    return tuple(number(p, text) for p in patterns)


def linux(folder, cleave):
    until = r"@init tsc=\d+"
    if cleave:
        return to_shell(boot(folder, LINUX, until, LINUX_FILES, "256M"))
    out = os.path.join(folder, "bare.img")
    image.pack({m: os.path.join(folder, m) for m in LINUX_FILES}, out, os.path.join(folder, TINY), "bare " + LINUX)
    return to_shell(console(out, "256M", until, ignore_bad_msrs=True))


def entries(with_linux=True):
    """For build/bench.json; the table is printed on the way."""
    found = []
    with tempfile.TemporaryDirectory() as folder:
        prepare(folder, "mb2", with_linux)
        print("%-38s %12s %12s %12s %18s" % ("Intel in Bochs", "instructions", "VMREADs", "VMWRITEs", "KVM 6.1 EPT"))
        for name, (title, peer, most) in OPERATIONS.items():
            ticks, reads, writes = operation(folder, name, 200)
            _, more_reads, more_writes = operation(folder, name, 200 + TIMES)
            vmcs = [(more_reads - reads) / TIMES, (more_writes - writes) / TIMES]
            print("%-38s %12d %12.2f %12.2f %18s%s" % (title, ticks, *vmcs, "%d (%.2f)" % (peer, ticks / peer) if peer else "-",
                                                      "   goal %d, %d" % most if most else ""))
            found.append(entry(MACHINE, "intel-" + name, ticks, peer="KVM 6.1 EPT" if peer else None, peer_value=peer))
            for what, n, goal in zip(("vmreads", "vmwrites"), vmcs, most or (None, None)):
                found.append(entry(MACHINE, "intel-%s-%s" % (name, what), n, what, goal=goal))
        if with_linux:
            found.append(linux_entry(MACHINE, "intel-linux-boot", linux(folder, False), linux(folder, True)))
    return found


def main():
    p = argparse.ArgumentParser(prog="bench_intel.py")
    p.add_argument("--no-linux", action="store_true", help="only single operations")
    entries(not p.parse_args().no_linux)


if __name__ == "__main__":
    sys.exit(main())
