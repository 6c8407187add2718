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
import debian
import image
import initramfs

BUILD = image.BUILD
MACHINE = "Bochs 2.7 %s, instructions counted" % bochs.INTEL
LIMIT = 600
LINUX_GOAL = 1.05
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
    with open(os.path.join(folder, "guests.conf"), "w", encoding="ascii") as f:
        f.write("[guest bench]\nkernel = tiny\ncmdline = %s\nmemory = %s\n%s" % (cmdline, memory, more))
        f.writelines("initrd = %s\n" % m for m in modules)
    out = os.path.join(folder, "boot.img")
    image.make(os.path.join(folder, "guests.conf"), out)
    return console(out, "1G", until)


def operation(folder, name, times):
    """Returns (instructions, VMREADs, VMWRITEs): one's, and those of the whole run."""
    more = "populate = demand\nmax-page = 4K\n" if name == "first-touch" else ""
    text = boot(folder, "test=bench op=%s times=%d" % (name, times), "@vmcs .*", more=more)
    ticks = re.search(r"@bench name=%s ticks=(\d+)" % name, text)
    vmcs = re.search(r"@vmcs .*reads=(\d+) writes=(\d+)", text)
    return int(ticks[1]), int(vmcs[1]), int(vmcs[2])


def linux(folder, cleave):
    cmdline, modules = "test=linux -- console=ttyS0 quiet", ["vmlinuz", "initrd.img"]
    if cleave:
        text = boot(folder, cmdline, r"@init tsc=\d+", modules, "256M")
    else:
        out = os.path.join(folder, "bare.img")
        image.pack({m: os.path.join(folder, m) for m in modules}, out, os.path.join(folder, "tiny"), "bare " + cmdline)
        text = console(out, "256M", r"@init tsc=\d+", ignore_bad_msrs=True)
    start, end = re.search(r"@linux tsc=(\d+)", text), re.search(r"@init tsc=(\d+)", text)
    return int(end[1]) - int(start[1])


def prepare(folder):
    with open(os.path.join(BUILD, "guests", "tsc"), "rb") as f:
        tsc = f.read()
    with open(os.path.join(folder, "initrd.img"), "wb") as f:
        f.write(initramfs.build(first="/bin/tsc", files={"bin/tsc": tsc}, extra="poweroff -f"))
    os.symlink(os.path.join(BUILD, "guests", "tiny-mb2.elf"), os.path.join(folder, "tiny"))
    os.symlink(debian.kernel(BUILD), os.path.join(folder, "vmlinuz"))


def entry(name, unit, value, peer=None, peer_value=None, goal=None):
    return {"name": name, "machine": MACHINE, "unit": unit, "better": "lower", "value": value, "peer": peer,
            "peer_value": peer_value, "goal": goal}


def entries(with_linux=True):
    """For build/bench.json; the table is printed on the way."""
    found = []
    with tempfile.TemporaryDirectory() as folder:
        prepare(folder)
        print("%-38s %12s %12s %12s %18s" % ("Intel in Bochs", "instructions", "VMREADs", "VMWRITEs", "KVM 6.1 EPT"))
        for name, (title, peer, most) in OPERATIONS.items():
            ticks, reads, writes = operation(folder, name, 200)
            _, more_reads, more_writes = operation(folder, name, 200 + TIMES)
            vmcs = [(more_reads - reads) / TIMES, (more_writes - writes) / TIMES]
            print("%-38s %12d %12.2f %12.2f %18s%s" % (title, ticks, *vmcs, "%d (%.2f)" % (peer, ticks / peer) if peer else "-",
                                                      "   goal %d, %d" % most if most else ""))
            found.append(entry("intel-" + name, "instructions", ticks, "KVM 6.1 EPT" if peer else None, peer))
            for what, n, goal in zip(("vmreads", "vmwrites"), vmcs, most or (None, None)):
                found.append(entry("intel-%s-%s" % (name, what), what, n, goal=goal))
        if with_linux:
            bare, ours = linux(folder, False), linux(folder, True)
            print("%-38s %12d   %.3f of bare (%d), goal %.2f" % ("Linux to its shell", ours, ours / bare, bare, LINUX_GOAL))
            found.append(entry("intel-linux-boot", "instructions", ours, "bare Bochs", bare, LINUX_GOAL * bare))
    return found


def main():
    p = argparse.ArgumentParser(prog="bench_intel.py")
    p.add_argument("--no-linux", action="store_true", help="only single operations")
    entries(not p.parse_args().no_linux)


if __name__ == "__main__":
    sys.exit(main())
