# SPDX-License-Identifier: MIT
"""What a guest sees, how guests end, and that one's end is nobody else's."""
import image
import p2m_picture
import pytest
from conftest import BOTH, EVERY, OLDER_INTEL, guest, tiny

GOOD = "test=memory-size,memory-zeroed,memory-distinct,pit,lapic-timer memory=64M"


def all_passed(m, guests=1):
    done = m.reports("guest")
    failed = [line for line in m.lines() if "@check" in line and " failed" in line]
    assert not failed
    assert len(done) == guests and all(int(d["passed"]) > 0 and d["failed"] == "0" for d in done)
    assert all(a["errors"] == "0" for a in m.reports("audit"))


def whole_pc(boot, kind):
    m = boot(guest(cmdline="test=all memory=256M", memory="256M"), {"tiny": tiny(kind)})
    m.wait_off()
    all_passed(m)


@pytest.mark.machines(*EVERY)
def test_the_whole_pc(boot):
    whole_pc(boot, "mb1")


@pytest.mark.parametrize("kind", ["mb2", "pvh"])
def test_the_whole_pc_by_another_loader(boot, kind):
    whole_pc(boot, kind)


@pytest.mark.machines(*BOTH, "intel-bochs-lynnfield", "amd-bochs-ryzen")
@pytest.mark.parametrize("vcpus,pcpus", [(2, 1), (2, 2), (4, 2)])
def test_several_vcpus(boot, vcpus, pcpus):
    conf = guest(cmdline="test=smp,monotonic vcpus=%d" % vcpus, vcpus=vcpus)
    m = boot(conf, {"tiny": tiny()}, pcpus=pcpus)
    m.wait_off()
    all_passed(m)


STEPS = "test=steps,guarded"


@pytest.mark.machines(*BOTH, *OLDER_INTEL)
def test_single_steps(boot):
    """Over what exits, in shadows too. Not on Bochs' AMD models: their #DB exits without DR6, and comes again for ever."""
    m = boot(guest(cmdline=STEPS), {"tiny": tiny()})
    m.wait_off()
    all_passed(m)


def test_single_steps_without_cleave(boot, tmp_path):
    """What those are compared with is what the machine does by itself."""
    out = str(tmp_path / "bare.img")
    image.pack({}, out, tiny("mb2"), "bare " + STEPS)
    m = boot.drive(out)
    m.wait_off()
    all_passed(m)


@pytest.mark.parametrize("vcpus", [1, 2])
def test_real_mode_and_back(boot, vcpus):
    m = boot(guest(cmdline="test=realmode vcpus=%d" % vcpus, vcpus=vcpus), {"tiny": tiny()}, pcpus=vcpus)
    m.wait_off()
    all_passed(m)


@pytest.mark.parametrize("populate", ["boot", "demand"])
@pytest.mark.parametrize("page", ["1G", "2M", "4K"])
def test_page_sizes(boot, page, populate):
    conf = guest(cmdline="test=memory-size,memory-zeroed,memory-distinct memory=96M", memory="96M", max_page=page,
                 populate=populate)
    m = boot(conf, {"tiny": tiny()})
    m.wait_off()
    all_passed(m)


def test_a_guest_with_memory_above_4g(boot):
    """3.5 GB: 3 GB below the hole for devices, the rest from 4 GB. On demand: the machine has less than that to touch."""
    conf = guest(cmdline="test=memory-size,hole memory=3584M", memory="3584M", populate="demand")
    m = boot(conf, {"tiny": tiny()}, memory="5G")
    m.wait_off()
    all_passed(m)


def test_superpages(boot):
    """A 1 GB guest on a 4 GB machine: at least 99 % of it in large pages."""
    m = boot(guest(cmdline="test=memory-size,memory-zeroed memory=1G", memory="1G"), {"tiny": tiny()}, memory="4G")
    m.wait_off()
    all_passed(m)
    assert all(float(p["super"]) >= 99 for p in m.reports("p2m"))


def test_memory_goes_out_and_comes_back(boot):
    """Ballooning by hypercalls: both sizes, batches, and everything that is wrong; afterwards the audit is clean."""
    m = boot(guest(cmdline="test=balloon", memory="64M"), {"tiny": tiny()})
    m.wait_off()
    all_passed(m)


def in_large_pages(m):
    """
    The shares of a guest's memory that were in large pages, in percent, one for each time it was told; with the 2 MB where
    code is, if the processor has an erratum that keeps these small.
    """
    def share(p, code):
        return 100 * (1 - (int(p["4k"]) - 512 * code) / (int(p["4k"]) + 512 * int(p["2m"]) + 512 * 512 * int(p["1g"])))
    return [share(p, int(s["code"])) for p, s in zip(m.reports("p2m"), m.reports("splits"), strict=True)]


@pytest.mark.parametrize("populate", ["boot", "demand"])
@pytest.mark.parametrize("pcpus", [1, 2])
def test_memory_in_pieces_becomes_whole_again(boot, pcpus, populate):
    """Every second 4 KB goes out and comes back; the guest asks until 99 % is in large pages, and finds all it wrote."""
    conf = guest(cmdline="test=fragment", memory="256M", populate=populate)
    m = boot(conf, {"tiny": tiny()}, pcpus=pcpus)
    m.wait_off()
    all_passed(m)
    assert min(in_large_pages(m)) < 2 and in_large_pages(m)[-1] >= 99
    assert int(m.reports("p2m")[-1]["collapses"]) > 100
    before, out, _, after = [letters for _, letters in p2m_picture.maps(m.text, "g")]
    assert out[1:] == 127 * ("4" if populate == "boot" else "0") and after.count("M") >= 126  # in the first is the ROM
    assert populate == "demand" or before == "7" + 127 * "M"
    assert p2m_picture.draw(p2m_picture.maps(m.text, None)).count("</text>") > 4


@pytest.mark.slow
def test_linux_on_memory_in_pieces(boot, vmlinuz, initrd):
    """Linux starts, works and ends on memory that is being put together under it."""
    conf = guest(cmdline="test=shred,linux -- console=ttyS0 quiet", memory="512M", initrd="vmlinuz\ninitrd = initrd.img")
    m = boot(conf, {"tiny": tiny(), "vmlinuz": vmlinuz, "initrd.img": initrd}, pcpus=2, memory="2G")
    m.wait("cleave-shell-ready")
    m.shell("find / -xdev -type f -exec md5sum {} + >/dev/null && echo all-$((1 + 1))-read")
    m.wait("all-2-read")
    m.prompt()
    while in_large_pages(m)[-1] < 99:
        m.wait(r"@splits guest=g .*\n")  # Cleave tells when it has no more to put together
    m.type("poweroff")
    m.wait_off()
    assert min(in_large_pages(m)) < 10 and in_large_pages(m)[-1] >= 99
    assert all(a["errors"] == "0" for a in m.reports("audit"))


def test_memory_is_scrubbed_between_guests(boot):
    """The second life of a guest finds nothing of the first, which has written everywhere."""
    conf = guest(cmdline="test=memory-zeroed,memory-fill,reset memory=256M", memory="256M")
    m = boot(conf, {"tiny": tiny()}, memory="512M")
    for _ in range(3):
        m.wait("@check name=memory-zeroed ok")
        m.wait("@end guest=g reason=reset")
    m.still_up()


# What the guest does, how its end is told.
BAD = {
    "triple": r"reason=reset detail=triple fault",
    "unbacked": r"reason=crash detail=.*d0000000",
    "mmiojump": r"reason=crash detail=.*fee00000",
    "ioapicjump": r"reason=crash detail=.*fec00000",
    "badcr3": r"reason=crash detail=.*d0000000",
    "mmioinsn": r"reason=crash detail=.*instruction",
    "halt": r"reason=crash detail=.*interrupts off",
    "reset": r"reason=reset detail=.*CF9",
    "reset8042": r"reason=reset detail=.*8042",
    "rom": r"reason=poweroff",
    "rubbish": r"reason=poweroff",
}


@pytest.mark.parametrize("what", BAD)
def test_a_bad_guest_ends_alone(boot, what):
    """The bad one's end is told with its reason; the good one beside it, on the same pCPU, ends well afterwards."""
    conf = guest("bad", cmdline="test=" + what) + guest("good", "good.elf", GOOD)
    m = boot(conf, {"tiny": tiny(), "good.elf": tiny("mb2")})
    m.wait("@end guest=bad " + BAD[what])
    if not m.reports("end") or "good" not in [e["guest"] for e in m.reports("end")]:
        m.wait("@end guest=good reason=poweroff")
    done = [line for line in m.lines() if line.startswith("[good] @guest")]
    assert done and "failed=0" in done[0]
    assert all(a["errors"] == "0" for a in m.reports("audit"))
    m.still_up() if m.child.isalive() else m.wait_off()


def test_a_guest_that_hangs_does_not_hang_the_others(boot):
    conf = guest("bad", cmdline="test=hang") + guest("good", "good.elf", GOOD)
    m = boot(conf, {"tiny": tiny(), "good.elf": tiny("mb2")})
    m.wait("@end guest=good reason=poweroff")
    assert "[bad] @tiny hanging" in m.text
    m.still_up()


@pytest.mark.parametrize("how", ["unbacked", "reset", "triple"])
def test_restarts_are_bounded(boot, how):
    """Started again from the pristine image, but not for ever when each life is short."""
    m = boot(guest(cmdline="test=memory-zeroed," + how, on_crash="restart"), {"tiny": tiny()})
    m.wait_off()
    starts = len(m.reports("start"))
    assert 2 <= starts <= 10
    assert len(m.reports("end")) == starts
    assert m.text.count("@check name=memory-zeroed ok") == starts


def test_no_restart_unless_asked(boot):
    m = boot(guest(cmdline="test=unbacked"), {"tiny": tiny()})
    m.wait_off()
    assert len(m.reports("start")) == 1


def test_lines_of_several_guests_are_told_apart(boot):
    """Each line is one guest's, with its name, however their output is mixed."""
    names = ["a", "b", "c"]
    conf = "".join(guest(n, cmdline="test=ports,string-io,mmio-forms,ioapic,pci") for n in names)
    m = boot(conf, {"tiny": tiny()}, pcpus=2)
    m.wait_off()
    all_passed(m, 3)
    for n in names:
        assert sum(line.startswith("[%s] @check name=" % n) for line in m.lines()) == 12
    assert not [line for line in m.lines() if line.startswith("@check")]


@pytest.mark.slow
def test_two_linux_guests_side_by_side(boot, vmlinuz, initrd):
    conf = "".join(guest(n, "vmlinuz", "console=ttyS0 quiet", "256M", initrd="initrd.img", cpus=str(i))
                   for i, n in enumerate(("red", "blue")))
    m = boot(conf, {"vmlinuz": vmlinuz, "initrd.img": initrd}, pcpus=2, memory="2G")
    m.poll(lambda: all("[%s] cleave-shell-ready" % n in "\n".join(m.lines()) for n in ("red", "blue")))
    m.type("poweroff")  # input goes to the first guest that runs
    m.wait("@end guest=(red|blue) reason=poweroff")
    m.still_up()
    m.type("poweroff")
    m.wait_off()
    assert sorted(e["guest"] for e in m.reports("end")) == ["blue", "red"]


@pytest.mark.slow
def test_linux_on_two_vcpus_restarts(boot, vmlinuz, initrd):
    conf = guest("linux", "vmlinuz", "console=ttyS0 quiet", "512M", initrd="initrd.img", vcpus=2)
    m = boot(conf, {"vmlinuz": vmlinuz, "initrd.img": initrd}, pcpus=2)
    m.wait(r"cleave-shell-ready: .* 2 CPU")
    m.shell("reboot")
    m.wait("@end guest=linux reason=reset")
    m.wait(r"cleave-shell-ready: .* 2 CPU")
    m.shell("poweroff")
    m.wait_off()
