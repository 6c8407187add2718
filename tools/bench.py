#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""
Measures Cleave against its peers, in instructions.

Under QEMU's `-icount shift=0` one tick of the TSC is one instruction executed, the hypervisor's included, and a run gives
the same numbers each time; wall time of an emulator says nothing. Hardware adds 1,000 to 2,000 cycles to each exit.

- One operation in a guest: the least of 200, by the tiny guest (tests/guests/bench.c).
- From the entry to the first guest: a machine of 2 GB with one guest.
- Linux to its shell: from the jump to the kernel's 64-bit entry, before it unpacks itself, to the first thing that init
  does. The tiny guest starts the kernel (tests/guests/linux.c) and prints the TSC; init's first line prints it again.
  The same files do so on the bare machine and under Cleave. A halted CPU's time counts in both.

The peers' numbers were measured in the same machine with the same operations: constants here, for a peer takes longer to
install than to beat or lose to.
"""
import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile

import bench_intel
import bench_p2m
import debian
import image
import initramfs
import run

BUILD = image.BUILD
MACHINE = "QEMU 7.2 SVM, instructions counted"
LIMIT = 900

# operation: (what it is, KVM of Linux 6.1 with NPT, Xen 4.17 with NPT); None: not measured there.
OPERATIONS = {
    "cpuid": ("CPUID", 2853, 5961),
    "port-pic": ("port read, device in the hypervisor", 1513, 1058),
    "port-nobody": ("port read, nobody there", 5056, 44717),
    "lapic-read": ("local APIC read", 3733, 15776),
    "lapic-eoi": ("local APIC EOI", 3489, None),
    "ioapic-read": ("IOAPIC read", 3895, 15187),
    "mmio-nobody-read": ("unmapped MMIO read", 7386, 16804),
    "mmio-nobody-write": ("unmapped MMIO write", 7017, 20791),
    "rdmsr-apic-base": ("RDMSR APIC_BASE", 2926, 5874),
    "self-ipi-hlt": ("HLT and a self-IPI", None, None),
}
PEERS = ("KVM 6.1 NPT", "Xen 4.17 NPT")
LINUX_GOAL = 1.05
START_GOAL = 10000000


def console(cmd, folder):
    try:
        done = subprocess.run(cmd, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, timeout=LIMIT, check=False)
    except subprocess.TimeoutExpired:
        raise SystemExit("cleave bench: QEMU did not end in %d s: %s" % (LIMIT, " ".join(cmd))) from None
    return done.stdout.decode(errors="replace")


def boot(folder, cleave, cmdline, modules, memory):
    """Boots the tiny guest with these modules, under Cleave or bare; returns the console."""
    files = ["tiny"] + modules
    if not cleave:
        return console(run.qemu(memory, kernel="tiny", append="bare " + cmdline, modules=modules, icount=True,
                                extra=["-no-reboot"]), folder)
    with open(os.path.join(folder, "guests.conf"), "w", encoding="ascii") as f:
        f.write("[guest bench]\nkernel = tiny\ncmdline = %s\nmemory = %s\n" % (cmdline, memory))
        f.writelines("initrd = %s\n" % m for m in modules)
    return console(run.qemu("2G", kernel=os.path.join(BUILD, "cleave"), modules=["guests.conf"] + files, icount=True,
                            extra=["-no-reboot"]), folder)


def operations(folder, cleave):
    text = boot(folder, cleave, "test=bench", [], "64M")
    found = {name: int(ticks) for name, ticks in re.findall(r"@bench name=(\S+) ticks=(\d+)", text)}
    if not found:
        raise SystemExit("cleave bench: the bench guest said nothing:\n" + text[-2000:])
    return found


def linux(folder, cleave):
    text = boot(folder, cleave, "test=linux -- console=ttyS0 quiet", ["vmlinuz", "initrd.img"], "512M")
    start, end = re.search(r"@linux tsc=(\d+)", text), re.search(r"@init tsc=(\d+)", text)
    if not start or not end:
        raise SystemExit("cleave bench: Linux did not reach its shell:\n" + text[-2000:])
    return int(end[1]) - int(start[1])


def start(folder):
    """From the entry in C to the first guest's start, its memory not populated: scrubbing is not counted."""
    text = boot(folder, True, "test=cpuid", [], "512M\npopulate = demand")
    ready = re.search(r"@ready guests=1 ticks=(\d+)", text)
    if not ready:
        raise SystemExit("cleave bench: the guest was not started:\n" + text[-2000:])
    return int(ready[1])


def prepare(folder, with_linux):
    shutil.copy(os.path.join(BUILD, "guests", "tiny-mb1.elf"), os.path.join(folder, "tiny"))
    if not with_linux:
        return
    shutil.copy(debian.kernel(BUILD), os.path.join(folder, "vmlinuz"))
    with open(os.path.join(BUILD, "guests", "tsc"), "rb") as f:
        tsc = f.read()
    with open(os.path.join(folder, "initrd.img"), "wb") as f:
        f.write(initramfs.build(first="/bin/tsc", files={"bin/tsc": tsc}, extra="poweroff -f"))


def entry(name, value, peer, peer_value, goal=None):
    return {"name": name, "machine": MACHINE, "unit": "instructions", "better": "lower", "value": value, "peer": peer,
            "peer_value": peer_value, "goal": goal}


def measure(with_linux):
    """The entries of build/bench.json. The table is printed on the way."""
    entries = []
    with tempfile.TemporaryDirectory() as folder:
        prepare(folder, with_linux)
        bare, ours = operations(folder, False), operations(folder, True)
        print("%-38s %12s %12s %18s %18s" % ("instructions, as the guest sees them", "bare", "Cleave", *PEERS))
        for name, (title, *peers) in OPERATIONS.items():
            shown = ["%d (%.2f)" % (p, ours[name] / p) if p else "-" for p in peers]
            print("%-38s %12d %12d %18s %18s" % (title, bare[name], ours[name], *shown))
            measured = [(who, p) for who, p in zip(PEERS, peers) if p] or [(None, None)]
            entries += [entry(name, ours[name], who, p) for who, p in measured]
        ready = start(folder)
        print("%-38s %12s %12d   goal %d" % ("from entry to the first guest", "", ready, START_GOAL))
        entries.append(entry("boot", ready, None, None, START_GOAL))
        if with_linux:
            bare_linux, our_linux = linux(folder, False), linux(folder, True)
            print("%-38s %12d %12d   %.3f of bare, goal %.2f" % ("Linux to its shell", bare_linux, our_linux,
                                                                 our_linux / bare_linux, LINUX_GOAL))
            entries.append(entry("linux-boot", our_linux, "bare QEMU", bare_linux, LINUX_GOAL * bare_linux))
    print("in brackets: Cleave's part of the peer's number, less is better")
    return entries


def main():
    p = argparse.ArgumentParser(prog="cleave bench")
    p.add_argument("--no-linux", action="store_true", help="only single operations")
    a = p.parse_args()
    entries = measure(not a.no_linux) + bench_p2m.entries() + bench_intel.entries(not a.no_linux)
    with open(os.path.join(BUILD, "bench.json"), "w", encoding="ascii") as f:
        json.dump(entries, f, indent=1)
    print("also in", os.path.relpath(os.path.join(BUILD, "bench.json")))


if __name__ == "__main__":
    sys.exit(main())
