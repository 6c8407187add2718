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
import subprocess
import sys
import tempfile

import bench_common
import bench_intel
import bench_p2m
import run
from bench_common import BUILD, LINUX, LINUX_FILES, TINY, configure, entry, linux_entry, number, to_shell

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
START_GOAL = 10000000


def console(cmd, folder):
    try:
        done = subprocess.run(cmd, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, timeout=LIMIT, check=False)
    except subprocess.TimeoutExpired:
        raise SystemExit("cleave bench: QEMU did not end in %d s: %s" % (LIMIT, " ".join(cmd))) from None
    return done.stdout.decode(errors="replace")


def boot(folder, cleave, cmdline, memory, modules=(), more=""):
    """Boots the tiny guest with these modules, under Cleave or bare; returns the console."""
    common = {"icount": True, "extra": ["-no-reboot"]}
    if not cleave:
        return console(run.qemu(memory, kernel=TINY, append="bare " + cmdline, modules=list(modules), **common), folder)
    conf = os.path.basename(configure(folder, cmdline, memory, modules, more))
    return console(run.qemu("2G", kernel=os.path.join(BUILD, "cleave"), modules=[conf, TINY, *modules], **common), folder)


def operations(folder, cleave):
    text = boot(folder, cleave, "test=bench", "64M")
    found = {name: int(ticks) for name, ticks in re.findall(r"@bench name=(\S+) ticks=(\d+)", text)}
    if not found:
        raise SystemExit("cleave bench: the bench guest said nothing:\n" + text[-2000:])
    return found


def linux(folder, cleave):
    return to_shell(boot(folder, cleave, LINUX, "512M", LINUX_FILES))


def start(folder):
    """From the entry in C to the first guest's start, its memory not populated: scrubbing is not counted."""
    return number(r"@ready guests=1 ticks=(\d+)", boot(folder, True, "test=cpuid", "512M", more="populate = demand\n"))


def prepare(folder, with_linux):
    bench_common.prepare(folder, "mb1", with_linux)


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
            entries += [entry(MACHINE, name, ours[name], peer=who, peer_value=p) for who, p in measured]
        ready = start(folder)
        print("%-38s %12s %12d   goal %d" % ("from entry to the first guest", "", ready, START_GOAL))
        entries.append(entry(MACHINE, "boot", ready, goal=START_GOAL))
        if with_linux:
            entries.append(linux_entry(MACHINE, "linux-boot", linux(folder, False), linux(folder, True)))
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
