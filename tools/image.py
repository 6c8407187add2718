#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""
Boot images, made without root, loop devices or mounts.

A disk image is GPT and boots on BIOS and on UEFI:

    LBA 0        boot.img: GRUB's first 440 bytes in the protective MBR; loads one sector, the first of core.img
    LBA 2048     BIOS boot partition: core.img, GRUB with the modules that it needs
    LBA 4096     EFI system partition, FAT32: EFI/BOOT/BOOTX64.EFI, boot/grub/grub.cfg, cleave/...

grub-bios-setup wants a device that the host's kernel knows, so what it would write is written here. It is two numbers:
in boot.img the sector of core.img (64 bits at 0x5c), in core.img's first sector a list of one block (at 0x1f4: first
sector, 64 bits; count, 16; segment, 16) that says where the rest of it is. grub-mkimage has set count and segment.
"""
import os
import re
import shutil
import struct
import subprocess
import sys
import tempfile

TOP = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
BUILD = os.path.join(TOP, "build")

SECTOR = 512
CORE_LBA, CORE_SECTORS = 2048, 2048
ESP_LBA = CORE_LBA + CORE_SECTORS
GPT_TAIL = 34  # sectors of the second partition table
FAT32_LEAST = 40 << 20  # fewer clusters than FAT32 must have would make it FAT16

GRUB = "/usr/lib/grub"
MODULES = "normal configfile part_gpt part_msdos fat multiboot2 serial terminal echo test all_video"
BIOS_MODULES = "biosdisk iso9660 search " + MODULES
EFI_MODULES = MODULES


class ImageError(Exception):
    """What is wrong with the config or the machine, for people."""


def run(*cmd):
    done = subprocess.run(cmd, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ImageError("%s failed:\n%s%s" % (" ".join(cmd), done.stdout, done.stderr))


def named_files(conf):
    """The files that a config names, each once, as Cleave's own parser has it. Raises unless all is right with it."""
    done = subprocess.run([os.path.join(BUILD, "host", "config"), conf], capture_output=True, text=True, check=False)
    if done.returncode:
        raise ImageError(done.stderr.strip())
    names, folded = re.findall(r"^(?:kernel|initrd) *= (.+)$", done.stdout, re.M), {}
    for name in names:
        if re.search(r'[\\:*?"<>|]', name):
            raise ImageError("%s: '%s' has a character that FAT does not allow" % (conf, name))
        if name.split("/")[0].lower() in ("cleave", "guests.conf"):
            raise ImageError("%s: a guest's file cannot be named '%s': Cleave's own is" % (conf, name))
        if folded.setdefault(name.lower(), name) != name:
            raise ImageError("%s: '%s' and '%s' are one name on FAT" % (conf, folded[name.lower()], name))
    return list(dict.fromkeys(names))


def quote(text):
    """A word of a GRUB script."""
    return "'" + text.replace("'", "'\\''") + "'"


def grub_cfg(files, cmdline=""):
    """files: names in /cleave. Modules carry the name that the config uses."""
    lines = [
        "serial --unit=0 --speed=115200",
        "terminal_input console serial",
        "terminal_output console serial",
        "set timeout=0",
        "menuentry Cleave {",
        "\tmultiboot2 /cleave/cleave " + cmdline,
    ]
    for name in files:
        lines.append("\tmodule2 --nounzip %s %s" % (quote("/cleave/" + name), quote(name)))
    return "\n".join(lines + ["}", ""])


def stage(files, cleave, cmdline, folder):
    """Lays out under folder what the boot partition holds. files: {name in /cleave: path}, all of them GRUB modules."""
    os.makedirs(os.path.join(folder, "boot", "grub"))
    for name, path in {"cleave": cleave, **files}.items():
        to = os.path.join(folder, "cleave", name)
        os.makedirs(os.path.dirname(to), exist_ok=True)
        # Big files: a link where the file system allows, else a copy.
        try:
            os.link(os.path.realpath(path), to)
        except OSError:
            shutil.copy(path, to)
    with open(os.path.join(folder, "boot", "grub", "grub.cfg"), "w", encoding="utf-8") as f:
        f.write(grub_cfg(files, cmdline))


def tree_size(folder):
    """Bytes that the tree needs on FAT with clusters of at most 4 KB, roughly and never too little."""
    total = 0
    for root, dirs, files in os.walk(folder):
        total += sum(os.path.getsize(os.path.join(root, f)) + 8192 for f in files) + 8192 * (len(dirs) + 1)
    return total


def make_iso(tree, out):
    run("grub-mkrescue", "-o", out, "--install-modules=" + MODULES, "--fonts=", "--locales=",
        "--themes=", tree)


def core_image(tmp):
    """core.img for its place on the disk, and boot.img that finds it."""
    core = os.path.join(tmp, "core.img")
    run("grub-mkimage", "-O", "i386-pc", "-p", "(,gpt2)/boot/grub", "-o", core, *BIOS_MODULES.split())
    with open(core, "rb") as f:
        data = bytearray(f.read())
    if len(data) > CORE_SECTORS * SECTOR:
        raise ImageError("GRUB's core image does not fit into its partition")
    struct.pack_into("<Q", data, 0x1f4, CORE_LBA + 1)
    with open(GRUB + "/i386-pc/boot.img", "rb") as f:
        boot = bytearray(f.read(440))
    struct.pack_into("<Q", boot, 0x5c, CORE_LBA)
    # As grub-bios-setup does for a hard disk: some BIOSes pass a floppy's number in DL, and boot.img would believe it.
    boot[0x66:0x68] = b"\x90\x90"
    return data, boot


def make_disk(tree, out, tmp):
    efi = os.path.join(tree, "EFI", "BOOT")
    os.makedirs(efi)
    run("grub-mkimage", "-O", "x86_64-efi", "-p", "/boot/grub", "-o", os.path.join(efi, "BOOTX64.EFI"),
        *EFI_MODULES.split())
    esp_bytes = max(FAT32_LEAST, (tree_size(tree) * 33 // 32 + (2 << 20)) // 4096 * 4096)
    esp_sectors = esp_bytes // SECTOR
    disk = os.path.join(tmp, "disk.img")
    with open(disk, "wb") as f:
        f.truncate((ESP_LBA + esp_sectors + GPT_TAIL) * SECTOR)
    run("sgdisk", "--clear", "--set-alignment=1",
        "--new=1:%d:%d" % (CORE_LBA, ESP_LBA - 1), "--typecode=1:ef02", "--change-name=1:bios-boot",
        "--new=2:%d:%d" % (ESP_LBA, ESP_LBA + esp_sectors - 1), "--typecode=2:ef00", "--change-name=2:cleave", disk)
    core, boot = core_image(tmp)
    with open(disk, "r+b") as f:
        f.write(boot)
        f.seek(CORE_LBA * SECTOR)
        f.write(core)
    at = "%s@@%d" % (disk, ESP_LBA * SECTOR)
    run("mformat", "-i", at, "-F", "-v", "CLEAVE", "-T", str(esp_sectors), "-h", "255", "-s", "63", "-H", str(ESP_LBA), "::")
    run("mcopy", "-i", at, "-s", "-Q", *(os.path.join(tree, d) for d in sorted(os.listdir(tree))), "::")
    shutil.move(disk, out)


def pack(files, out, cleave=None, cmdline=""):
    """Makes the image out of Cleave and files, {name: path}, which GRUB loads as modules."""
    cleave = cleave or os.path.join(BUILD, "cleave")
    if not os.path.exists(cleave):
        raise ImageError("%s is not built" % cleave)
    os.makedirs(os.path.dirname(os.path.abspath(out)), exist_ok=True)
    with tempfile.TemporaryDirectory(dir=os.path.dirname(os.path.abspath(out)), prefix=".image-") as tmp:
        tree = os.path.join(tmp, "tree")
        stage(files, cleave, cmdline, tree)
        if out.endswith(".iso"):
            made = os.path.join(tmp, "out.iso")
            make_iso(tree, made)
            shutil.move(made, out)
        else:
            make_disk(tree, out, tmp)


def make(conf, out, cleave=None, cmdline=""):
    """Makes the image out of a config and the files that it names. Raises ImageError."""
    source = os.path.dirname(os.path.abspath(conf))
    files = {"guests.conf": conf, **{name: os.path.join(source, name) for name in named_files(conf)}}
    pack(files, out, cleave, cmdline)


def main():
    if len(sys.argv) != 3 or sys.argv[1].startswith("-"):
        sys.exit("usage: cleave image guests.conf out.img|out.iso")
    make(sys.argv[1], sys.argv[2])
    print("cleave: %s is ready: for QEMU, or for a USB stick (dd if=%s of=/dev/sdX bs=4M)" % (sys.argv[2], sys.argv[2]))


if __name__ == "__main__":
    try:
        main()
    except ImageError as e:
        sys.exit("cleave: %s" % e)
