# SPDX-License-Identifier: MIT
"""Configs and files that are wrong: told at boot with the remedy, and the rest of the machine starts."""
import os

from conftest import guest, tiny

GOOD = guest("good", "good.elf", "test=memory-size memory=64M")


def files(**more):
    return {"good.elf": tiny("mb2"), **more}


def expect(m, *texts):
    """All texts come, the good guest runs and ends, and the machine switches itself off."""
    m.wait_off()
    for text in texts:
        assert text in m.text, "\n".join(m.lines()[-30:])
    assert m.report("end", guest="good")["reason"] == "poweroff"
    assert m.report("guest")["failed"] == "0"


def test_a_bad_section_spoils_its_guest_only(boot):
    conf = guest("bad", "tiny", memory="lots") + GOOD
    m = boot(conf, files(tiny=tiny()))
    expect(m, "guests.conf:3:", "memory")
    assert m.report("end", guest="bad")["reason"] == "config"


def test_an_unknown_key_names_the_one_meant(boot):
    m = boot(guest("bad", "tiny", kernal="x") + GOOD, files(tiny=tiny()))
    expect(m, "did you mean 'kernel'")


def test_a_file_that_is_not_there(boot):
    m = boot(guest("bad", "tiny", initrd="nowhere.img") + GOOD, files(tiny=tiny()))
    expect(m, "nowhere.img", "no such file")
    assert m.report("end", guest="bad")["reason"] == "config"


def test_more_memory_than_there_is(boot):
    m = boot(guest("bad", "tiny", memory="8G") + GOOD, files(tiny=tiny()))
    expect(m, "memory = 8192M")
    assert m.report("end", guest="bad")["reason"] == "config"


def test_a_kernel_cut_short(boot, vmlinuz):
    with open(vmlinuz, "rb") as f:
        start = f.read(os.path.getsize(vmlinuz) // 2)
    m = boot(guest("bad", "vmlinuz", memory="256M") + GOOD, files(vmlinuz=start))
    expect(m, "cut short")


def test_a_kernel_that_is_none(boot):
    m = boot(guest("bad", "text") + GOOD, files(text=b"this is no kernel\n" * 1000))
    expect(m, "text")
    assert m.report("end", guest="bad")["reason"] == "config"


def test_an_initrd_that_does_not_fit(boot, vmlinuz):
    m = boot(guest("bad", "vmlinuz", memory="96M", initrd="big") + GOOD, files(vmlinuz=vmlinuz, big=bytes(96 << 20)))
    expect(m, "big", "memory =")
    assert m.report("end", guest="bad")["reason"] == "config"


def test_a_processor_that_is_not_there(boot):
    m = boot(guest("bad", "tiny", cpus="7") + GOOD, files(tiny=tiny()))
    expect(m, "cpus =")


def test_shadow_paging_is_refused_with_a_reason(boot):
    m = boot(guest("bad", "tiny", paging="shadow") + GOOD, files(tiny=tiny()))
    expect(m, "paging = shadow")


def useless(m, text):
    m.wait(text)
    m.wait("no guest could be started")
    m.still_up()


def test_no_config(boot):
    useless(boot(None, {"tiny": tiny()}), "guests.conf")


def test_an_empty_config(boot):
    useless(boot("# nothing\n"), "no guest: add a section")


def test_a_config_that_is_no_text(boot):
    useless(boot(bytes(range(256)) * 16), "not a text file")
