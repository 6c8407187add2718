# SPDX-License-Identifier: MIT
"""
Machines of all kinds, and machines that lack something: Cleave says what and stays up.

SVM that the firmware has switched off (VM_CR.SVMDIS) cannot be had here: QEMU's VM_CR takes no writes. A unit test of
the backend's probe covers it.
"""
import os
import struct

import pytest
from conftest import BUILD, QEMU, guest, tiny


@pytest.mark.parametrize("pcpus", [1, 2, 4])
def test_processors(boot, pcpus):
    m = boot(guest(cmdline="test=cpuid"), {"tiny": tiny()}, pcpus=pcpus)
    m.wait_off()
    assert m.report("boot")["pcpus"] == str(pcpus)


@pytest.mark.parametrize("memory,tell", [("192M", 150), ("3G", 3000), ("6G", 5000)])
def test_memory_of_the_machine(boot, memory, tell):
    """With 6 GB, Bochs has nothing in place of what the hole for devices hides."""
    m = boot(guest(cmdline="test=memory-size,memory-zeroed memory=64M"), {"tiny": tiny()}, memory=memory)
    m.wait_off()
    assert int(m.report("boot")["ram"].rstrip("M")) >= tell
    assert m.report("guest")["failed"] == "0"


def useless(m, what):
    m.wait(what)
    m.wait("@boot .*modes=none")
    m.wait("no guest could be started")
    m.still_up()


@QEMU
@pytest.mark.parametrize("cpu,what", [("max,-svm", "SVM"), ("max,-npt", "[Nn]ested paging|NPT")])
def test_without_virtualisation(boot, cpu, what):
    useless(boot(guest(), {"tiny": tiny()}, cpu=cpu), what)


@pytest.mark.machines("intel-bochs-prescott")
def test_without_vmx(boot):
    useless(boot(guest(), {"tiny": tiny()}), "hvm: .*VMX")


@pytest.mark.machines("intel-bochs-penryn")
def test_without_ept(boot):
    useless(boot(guest(), {"tiny": tiny()}), "hvm: .*EPT")


@QEMU
def test_a_processor_with_few_features(boot):
    """No 1 GB pages, SMEP, SMAP, UMIP, XSAVE, RDTSCP: Cleave uses what is there."""
    cpu = "max,-pdpe1gb,-smep,-smap,-umip,-xsave,-rdtscp,-fsgsbase,-rdrand"
    m = boot(guest(cmdline="test=cpuid,state,memory-zeroed"), {"tiny": tiny()}, cpu=cpu)
    m.wait_off()
    assert m.report("guest")["failed"] == "0"


@pytest.mark.machines("amd-qemu")
def test_large_pages_as_the_processor_has_them(boot):
    """
    A 1 GB entry on a processor without such pages is a reserved bit: the guest would fault there for ever. Bochs swaps a
    machine of this size to a file for many minutes; what EPT allows is a unit test.
    """
    m = boot(guest(cmdline="test=memory-size memory=2560M", memory="2560M"), {"tiny": tiny()}, memory="4G",
             cpu="max,-pdpe1gb")
    m.wait_off()
    assert all(p["1g"] == "0" for p in m.reports("p2m"))
    assert m.report("guest")["failed"] == "0"


def test_the_config_names_the_console(boot, vmlinuz, initrd):
    """COM2 as the only console, output and input; the guest's own COM1 is there."""
    conf = "[host]\nconsole = com2\n" + guest(kernel="vmlinuz", initrd="initrd", memory="256M",
                                              cmdline="console=ttyS0 quiet")
    m = boot(conf, {"vmlinuz": vmlinuz, "initrd": initrd}, com=2)
    m.shell("echo typed-$((6*7))")
    m.wait("typed-42")
    m.shell("poweroff")
    m.wait_off()


def test_a_console_that_is_not_there(boot):
    """The others named are used, and say so."""
    m = boot("[host]\nconsole = com4, com1\n" + guest(cmdline="test=cpuid"), {"tiny": tiny()})
    m.wait("no serial port answers at 0x2e8")
    m.wait_off()


FONT = os.path.join(BUILD, "font.psf")


def glyphs():
    """The console font's bitmaps, 8 pixels wide: {bytes: character}, and their height (PSF 1 and 2)."""
    with open(FONT, "rb") as f:
        data = f.read()
    if data[:2] == b"\x36\x04":
        header, size = 4, data[3]
    else:
        header, size = struct.unpack_from("<I", data, 8)[0], struct.unpack_from("<I", data, 20)[0]
    return {data[header + c * size:header + (c + 1) * size]: chr(c) for c in range(32, 127)}, size


def read_framebuffer(path):
    """The text on a picture of the screen, by comparing each cell with the font; None in text mode."""
    with open(path, "rb") as f:
        kind, size, _depth, pixels = f.read().split(b"\n", 3)
    assert kind == b"P6"
    width, height = map(int, size.split())
    if (width, height) == (720, 400):
        return None  # VGA text, in a font of the adapter's own
    font, rows = glyphs()
    text = []
    for top in range(0, height - rows + 1, rows):
        line = ""
        for left in range(0, width - 7, 8):
            bits = bytes(sum(1 << (7 - x) for x in range(8) if pixels[((top + y) * width + left + x) * 3 + 1] > 64)
                         for y in range(rows))
            line += font.get(bits, " " if not any(bits) else "?")
        text.append(line.rstrip())
    return "\n".join(text)


def screen_text(m):
    """What the screen shows: VGA text memory if it is in that mode, else the framebuffer."""
    shot = os.path.join(m.folder, "screen.ppm")
    m.monitor("screendump " + shot)
    if os.path.exists(shot):
        text = read_framebuffer(shot)
        if text is not None:
            return text
    dump = m.monitor("xp /2000hx 0xb8000")
    cells = [int(w, 16) & 0xff for line in dump.splitlines() if ": 0x" in line for w in line.split(":")[1].split()]
    return "\n".join("".join(map(chr, cells[i:i + 80])).rstrip() for i in range(0, len(cells), 80))


@QEMU
@pytest.mark.parametrize("uefi", [False, True], ids=["bios", "uefi"])
def test_the_screen_alone(boot, uefi):
    """A machine without a serial port: everything is on the screen."""
    conf = "[host]\nwhen-idle = wait\n" + guest(cmdline="test=unbacked")
    m = boot(conf, {"tiny": tiny()}, via="disk", uefi=uefi, vga="std", extra=["-serial", "none"])
    text = m.poll(lambda: "@end guest=g" in screen_text(m) and screen_text(m))
    assert "reason=crash" in text
