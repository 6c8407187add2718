# SPDX-License-Identifier: MIT
"""From power-on to a guest, by every way that a boot loader can bring Cleave up."""
import secrets
import subprocess

import pytest
from conftest import TOP, guest, put_file, tiny

import image
import initramfs

WAYS = {
    "qemu-kernel": {"via": "kernel"},
    "bios-disk": {"via": "disk"},
    "bios-iso": {"via": "iso"},
    "uefi-disk": {"via": "disk", "uefi": True},
    "uefi-iso": {"via": "iso", "uefi": True},
}


@pytest.mark.parametrize("way", WAYS)
def test_every_way_reaches_a_guest(boot, way):
    m = boot(guest(cmdline="test=memory-size,memory-zeroed,cpuid memory=64M"), {"tiny": tiny()}, **WAYS[way])
    m.wait_off()
    first = m.report("boot")
    assert first["firmware"] == ("uefi" if "uefi" in way else "bios")
    assert first["modes"] == m.paging
    assert m.report("start")["guest"] == "g" and m.report("start")["paging"] == m.paging
    assert m.report("guest")["failed"] == "0"
    assert m.report("end") == {"guest": "g", "reason": "poweroff", "detail": "ACPI S5"}


@pytest.mark.slow
@pytest.mark.parametrize("way", ["qemu-kernel", "bios-disk", "uefi-disk"])
def test_linux_to_a_shell(boot, vmlinuz, initrd, way):
    conf = guest("linux", "vmlinuz", "console=ttyS0 quiet", "512M", initrd="initrd.img")
    m = boot(conf, {"vmlinuz": vmlinuz, "initrd.img": initrd}, **WAYS[way])
    m.wait("cleave-shell-ready")
    m.shell("echo the answer is $((6 * 7))")
    m.wait("the answer is 42")
    m.shell("poweroff")
    m.wait_off()
    assert m.report("end")["reason"] == "poweroff"
    assert all(a["errors"] == "0" for a in m.reports("audit"))


@pytest.mark.slow
@pytest.mark.parametrize("uefi", [False, True], ids=["bios", "uefi"])
def test_somebody_elses_initramfs_through_the_image_command(boot, vmlinuz, tmp_path, uefi):
    """A user's own files, with a text that cannot be known beforehand, through `./cleave image`."""
    nonce = secrets.token_hex(16)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "init.cpio").write_bytes(
        initramfs.build(extra="cat /nonce; poweroff -f", files={"nonce": nonce.encode() + b"\n"}))
    (tmp_path / "kernel").write_bytes(open(vmlinuz, "rb").read())
    conf = tmp_path / "my.conf"
    conf.write_text(guest("own", "kernel", "console=ttyS0", "384M", initrd="mine/init.cpio"))
    out = tmp_path / "stick.img"
    subprocess.run([TOP + "/cleave", "image", str(conf), str(out)], check=True, capture_output=True)
    m = boot.drive(str(out), uefi=uefi)
    m.wait(nonce)
    m.wait_off()
    assert m.report("end", guest="own")["reason"] == "poweroff"


def test_equal_names_in_different_folders(boot):
    """A file is the one that its whole path names, not the first that ends so."""
    conf = guest("a", "one/k", "test=module module=first", initrd="one/data")
    conf += guest("b", "two/k", "test=module module=second", initrd="two/data")
    conf += guest("c", "k", "test=module module=third", initrd="data")
    files = {"one/k": tiny(), "two/k": tiny("mb2"), "k": tiny("pvh"), "one/data": b"first", "two/data": b"second",
             "data": b"third"}
    m = boot(conf, files, via="disk")
    m.wait_off()
    done = m.reports("guest")
    assert [(d["passed"], d["failed"]) for d in done] == [("1", "0")] * 3


def test_names_with_blanks(boot):
    """GRUB quotes such a name; it is still the name that the config has."""
    conf = guest("a", "my kernels/tiny one", "test=module module=data", initrd="a b/c d")
    m = boot(conf, {"my kernels/tiny one": tiny(), "a b/c d": b"data"}, via="disk")
    m.wait_off()
    assert m.report("guest")["failed"] == "0"


@pytest.mark.parametrize("kernel,data,why", [("cleave/k", "data", "Cleave's own"), ("Guests.conf", "data", "Cleave's own"),
                                             ("sub/k", "sub/K", "one name on FAT"), ("a:b", "data", "FAT does not allow")])
def test_names_that_an_image_cannot_hold(tmp_path, kernel, data, why):
    put_file(str(tmp_path), kernel, b"kernel")
    put_file(str(tmp_path), data, b"data")
    put_file(str(tmp_path), "my.conf", guest(kernel=kernel, initrd=data).encode())
    with pytest.raises(image.ImageError, match=why):
        image.make(str(tmp_path / "my.conf"), str(tmp_path / "out.img"))
