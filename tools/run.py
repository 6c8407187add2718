#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""QEMU's command line, in one place for run, tests and bench; and `./cleave run`, in QEMU or Bochs."""
import argparse
import os
import re
import subprocess
import sys

import bochs
import debian
import image
import initramfs

TOP = image.TOP
BUILD = image.BUILD

DEFAULT_CONFIG = """\
# Made by ./cleave run: edit a copy and give its name to run your own guests.
[guest linux]
kernel  = vmlinuz
initrd  = initrd.img
cmdline = console=ttyS0 quiet
memory  = 512M
"""


def kvm(device="/dev/kvm", modules="/sys/module"):
    """The vendor whose virtualisation KVM here gives its guests: ("amd" or "intel", "") or (None, why not)."""
    try:
        os.close(os.open(device, os.O_RDWR))
    except OSError as e:
        return None, "%s: %s" % (device, e.strerror)
    for vendor, module, name in (("amd", "kvm_amd", "SVM"), ("intel", "kvm_intel", "VMX")):
        try:
            with open("%s/%s/parameters/nested" % (modules, module), encoding="ascii") as f:
                if f.read().strip() in ("1", "Y"):
                    return vendor, ""
            return None, "KVM here gives its guests no %s: load %s with nested=1" % (name, module)
        except OSError:
            continue
    return None, "KVM here gives its guests neither SVM nor VMX"


def ovmf():
    for path in ("/usr/share/ovmf/OVMF.fd", "/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_CODE.fd"):
        if os.path.exists(path):
            return path
    raise SystemExit("cleave: no UEFI firmware here: install the package ovmf")


def qemu(memory="1G", pcpus=1, cpu="max", accel="tcg", uefi=False, drive=None, kernel=None, modules=(), append=None,
         icount=False, vga="none", extra=()):
    """
    The command. drive: an image or ISO to boot; or kernel, modules ("path name" as GRUB's module line has it) and
    append to boot by QEMU's own multiboot loader. icount: virtual time is instructions executed, 1 ns each.
    """
    cmd = ["qemu-system-x86_64", "-accel", accel, "-cpu", "host" if accel == "kvm" else cpu, "-m", memory,
           "-smp", str(pcpus), "-nographic", "-net", "none", "-vga", vga]
    if uefi:
        cmd += ["-bios", ovmf()]
    if drive and drive.endswith(".iso"):
        cmd += ["-cdrom", drive, "-boot", "d"]
    elif drive:
        cmd += ["-drive", "format=raw,if=ide,file=" + drive.replace(",", ",,")]
    if kernel:
        cmd += ["-kernel", kernel]
        if modules:
            cmd += ["-initrd", ",".join(m.replace(",", ",,") for m in modules)]
        if append:
            cmd += ["-append", append]
    if icount:
        cmd += ["-icount", "shift=0,sleep=off"]
    return cmd + list(extra)


def default_config():
    """Makes build/run/guests.conf with Debian's kernel and busybox; returns its path."""
    folder = os.path.join(BUILD, "run")
    os.makedirs(folder, exist_ok=True)
    kernel = debian.kernel(BUILD)
    link = os.path.join(folder, "vmlinuz")
    if not os.path.exists(link):
        os.link(kernel, link)
    with open(os.path.join(folder, "initrd.img"), "wb") as f:
        f.write(initramfs.build())
    conf = os.path.join(folder, "guests.conf")
    with open(conf, "w", encoding="ascii") as f:
        f.write(DEFAULT_CONFIG)
    return conf


def guests_memory(conf):
    """Bytes that the guests of a config ask for in all."""
    with open(conf, encoding="utf-8", errors="replace") as f:
        sizes = re.findall(r"^\s*memory\s*=\s*(\d+)\s*([kKmMgGtT]?)", f.read(), re.M)
    return sum(int(n) << {"": 0, "k": 10, "m": 20, "g": 30, "t": 40}[s.lower()] for n, s in sizes)


def accelerator(a):
    """What runs the machine: ("kvm", "tcg" or "bochs", why not KVM)."""
    vendor, why = kvm()
    if vendor and a.shadow:
        vendor, why = None, "KVM cannot hide nested paging"
    if vendor and a.cpu not in (None, vendor):
        vendor, why = None, "KVM here has the CPU of the other vendor"
    if vendor:
        return "kvm", why
    return ("bochs" if a.cpu == "intel" else "tcg"), why


def in_bochs(a, why, memory, out):
    for flag, given, reason in (("--uefi", a.uefi, "it has no UEFI firmware"), ("--screen", a.screen, "its screen is not shown")):
        if given:
            raise SystemExit("cleave: an Intel CPU without KVM is Bochs', and %s: leave %s out, or use --cpu amd" % (reason, flag))
    model = bochs.INTEL_NO_EPT if a.shadow else bochs.INTEL
    print("cleave: Bochs' %s, emulated (%s); Ctrl-A X ends it" % (model, why), flush=True)
    return bochs.command(out, a.pcpus, memory, model)


def in_qemu(a, accel, why, memory, out):
    screen = []
    if a.screen:
        shown = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
        screen = ["-display", "gtk" if shown else "vnc=127.0.0.1:0", "-serial", "mon:stdio"]
    cmd = qemu(memory, a.pcpus, "max,-npt" if a.shadow else "max", accel, a.uefi, out, vga="std" if a.screen else "none",
               extra=screen)
    if a.screen:
        cmd.remove("-nographic")
        print("cleave: the screen is", "a window" if shown else "at vnc://127.0.0.1:5900")
    print("cleave: QEMU with", "KVM" if accel == "kvm" else "an emulated AMD CPU (%s)" % why + "; Ctrl-A X ends it", flush=True)
    return cmd


def arguments():
    p = argparse.ArgumentParser(prog="cleave run", description="Boots Cleave in an emulator with these guests.")
    p.add_argument("config", nargs="?", help="default: Debian's kernel and busybox")
    p.add_argument("--cpu", choices=("amd", "intel"), help="default: what KVM has here, else amd")
    p.add_argument("--uefi", action="store_true")
    p.add_argument("--shadow", action="store_true", help="a processor without nested paging")
    p.add_argument("--pcpus", type=int, default=2)
    p.add_argument("--memory", help="of the machine")
    p.add_argument("--screen", action="store_true")
    return p.parse_args()


def main():
    a = arguments()
    conf = a.config or default_config()
    out = os.path.join(BUILD, "run", "disk.img")
    image.make(conf, out)
    memory = a.memory or "%dM" % (max(1024, (guests_memory(conf) * 9 // 8 >> 20) + 256))
    accel, why = accelerator(a)
    cmd = in_bochs(a, why, memory, out) if accel == "bochs" else in_qemu(a, accel, why, memory, out)
    sys.exit(subprocess.run(cmd, check=False).returncode)


if __name__ == "__main__":
    try:
        main()
    except image.ImageError as e:
        sys.exit("cleave: %s" % e)
