# SPDX-License-Identifier: MIT
"""What `./cleave run` chooses and refuses, and how Bochs' runner tells the end of a machine."""
import argparse
import os
import signal
import subprocess
import sys

import pytest
from conftest import HANG, TOP, guest, put_file, tiny

import bochs
import run


def kvm_machine(folder, **nested):
    """A /dev/kvm and modules with these `nested` parameters."""
    put_file(str(folder), "kvm", b"")
    for module, value in nested.items():
        put_file(str(folder), "module/%s/parameters/nested" % module, value.encode() + b"\n")
    return {"device": str(folder / "kvm"), "modules": str(folder / "module")}


@pytest.mark.parametrize("module,vendor", [("kvm_amd", "amd"), ("kvm_intel", "intel")])
@pytest.mark.parametrize("value", ["1", "Y"])
def test_kvm_that_nests_is_taken(tmp_path, module, vendor, value):
    assert run.kvm(**kvm_machine(tmp_path, **{module: value})) == (vendor, "")


@pytest.mark.parametrize("nested,why", [({"kvm_intel": "N"}, "no VMX"), ({"kvm_amd": "0"}, "no SVM"), ({}, "neither")])
def test_why_kvm_is_not_taken(tmp_path, nested, why):
    vendor, told = run.kvm(**kvm_machine(tmp_path, **nested))
    assert vendor is None and why in told


def test_a_machine_without_kvm(tmp_path):
    vendor, told = run.kvm(device=str(tmp_path / "nothing"))
    assert vendor is None and "No such file" in told


@pytest.mark.parametrize("kvm,cpu,shadow,chosen", [
    ("amd", None, False, "kvm"), ("intel", None, False, "kvm"), ("intel", "intel", False, "kvm"), ("amd", "intel", False, "bochs"),
    ("intel", "amd", False, "tcg"), (None, None, False, "tcg"), (None, "intel", False, "bochs"), ("amd", None, True, "tcg"),
    ("intel", "intel", True, "bochs")])
def test_the_emulator_is_chosen(monkeypatch, kvm, cpu, shadow, chosen):
    monkeypatch.setattr(run, "kvm", lambda: (kvm, "" if kvm else "no KVM here"))
    accel, why = run.accelerator(argparse.Namespace(cpu=cpu, shadow=shadow))
    assert accel == chosen and bool(why) == (chosen != "kvm")


@pytest.mark.parametrize("flag", ["uefi", "screen"])
def test_what_bochs_cannot_do_is_refused(flag):
    wanted = argparse.Namespace(**{"uefi": False, "screen": False, "shadow": False, "pcpus": 1, flag: True})
    with pytest.raises(SystemExit, match="leave --%s out" % flag):
        run.in_bochs(wanted, "", "1G", "x.img")


def ends(path, *options):
    return subprocess.run([sys.executable, bochs.__file__, *options, path], stdin=subprocess.DEVNULL, capture_output=True,
                          check=False)


@pytest.fixture
def disk(tmp_path):
    """disk(text): an image whose first sector is this code."""
    def make(code):
        path = tmp_path / "disk.img"
        path.write_bytes((code + bytes(510 - len(code)) + b"\x55\xaa").ljust(1 << 20, b"\0"))
        return str(path)
    return make


# mov dx, PORT; mov al, VALUE; out dx, al
def out(port, value):
    return bytes([0xba, port & 0xff, port >> 8, 0xb0, value, 0xee])


def test_a_machine_that_resets(disk):
    assert ends(disk(out(0xcf9, 2) + out(0xcf9, 6) + b"\xeb\xfe"), "--limit", "60").returncode == bochs.RESET


def test_a_triple_fault(disk):
    """LIDT of six zero bytes, INT3 in protected mode."""
    code = b"\xfa\x0f\x01\x1e\x40\x7c\x0f\x20\xc0\x40\x0f\x22\xc0\xcc"
    assert ends(disk(code), "--limit", "60").returncode == bochs.RESET


def test_a_machine_that_does_not_end(disk):
    assert ends(disk(b"\xeb\xfe"), "--limit", "3").returncode == bochs.LIMIT


def test_a_bochs_that_stops(disk):
    done = ends(disk(b""), "--model", "no_such_model")
    assert done.returncode == bochs.STOPPED and b"parameter 'model'" in done.stdout


def test_the_other_serial_port(disk):
    """COM2 is the terminal: a letter, and off by ACPI's port."""
    code = out(0x2fb, 3) + out(0x2f8, ord("k")) + b"\xb9\xff\xff\xe2\xfe" + b"\xba\x04\xb0\xb8\x00\x20\xef" + b"\xeb\xfe"
    done = ends(disk(code), "--com", "2", "--limit", "60")
    assert b"k" in done.stdout


@pytest.mark.slow
def test_cleave_run_on_intel(tmp_path):
    """The front door itself: a guest's end is the command's."""
    put_file(str(tmp_path), "my.conf", guest(cmdline="test=cpuid").encode())
    put_file(str(tmp_path), "tiny", tiny())
    cmd = [os.path.join(TOP, "cleave"), "run", "--cpu", "intel", "--pcpus", "1", str(tmp_path / "my.conf")]
    with subprocess.Popen(cmd, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          start_new_session=True) as run_it:
        try:
            said, _ = run_it.communicate(timeout=HANG)
        finally:
            if run_it.poll() is None:
                os.killpg(run_it.pid, signal.SIGTERM)  # the machine must not outlive the test
    assert "Bochs" in said or "KVM" in said
    assert run_it.returncode == 0 and "@end guest=g reason=poweroff" in said, said
