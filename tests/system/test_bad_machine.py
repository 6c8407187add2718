# SPDX-License-Identifier: MIT
"""
Processors that no emulator has: VMX that is taken away, switched off or broken, and VMX that lacks parts.

Bochs' debugger stops the machine at Cleave's own RDMSR or VMWRITE and changes what it reads or writes (tools/stops.py);
everything else is the real image on Skylake. What QEMU and Bochs have of themselves is in test_machine.py.
"""
import os
import re
import struct
import subprocess
import tempfile

import pytest
import stops
from conftest import guest, tiny

pytestmark = pytest.mark.machines("intel-bochs-skylake")

FEATURE_CONTROL, LOCKED = 0x3a, 1
BASIC, PIN, PROC, EXIT, ENTRY, PROC2, EPT_VPID = 0x480, 0x481, 0x482, 0x483, 0x484, 0x48b, 0x48c
NO_FIELD = 0x6ffe  # of the VMCS
TRUE = {PIN: 0x48d, PROC: 0x48e, EXIT: 0x48f, ENTRY: 0x490}  # what newer processors have beside them, and Cleave reads


def without(msr, *bits):
    """Stops where Cleave reads that capability MSR, and clears those bits. Bits from 32 on are what may be set."""
    here = "((ecx == %#x) | (ecx == %#x))" % (msr, TRUE.get(msr, msr))  # 1 or 0: one stop serves all such MSRs
    halves = {"eax": [b for b in bits if b < 32], "edx": [b - 32 for b in bits if b >= 32]}
    clear = {r: sum(1 << b for b in bits) for r, bits in halves.items() if bits}
    return "after rdmsr in probe", "; ".join("set %s = %s & (0xffffffff - %#x * %s)" % (r, r, c, here) for r, c in clear.items())


def absent(*fields):
    """Stops where Cleave writes to one of these fields of the VMCS, and has the CPU refuse it."""
    condition = " | ".join("($1 == %#x)" % f for f in fields)
    return "before vmwrite in vmx_write_dirty if " + condition, "set $1 = %#x" % NO_FIELD


def start(boot, conf, *places, **options):
    at = {}
    for place, commands in places:
        at.setdefault(place, []).append(commands)
    return boot(conf, {"tiny": tiny()}, at=[(place, "; ".join(commands)) for place, commands in at.items()], **options)


# --- No guest can run. The machine stays as it is, for the message to be read.

def useless(m, message):
    m.wait("no guest could be started")
    m.still_up()
    assert message in m.lines()
    assert m.report("boot")["modes"] == "none"
    assert m.report("end", guest="g")["reason"] == "config"


def test_vmx_locked_off(boot):
    m = start(boot, guest(), ("after rdmsr in vmx_cpu_on if ecx == %#x" % FEATURE_CONTROL, "set eax = %d" % LOCKED))
    useless(m, "hvm: VMX is switched off and locked by the firmware: enable VT-x in the firmware's set-up")


def run_first(text):
    """Stops where Cleave's C code begins, and has these instructions run before it; 5000h to 6fffh are theirs."""
    begin = stops.code("boot_main", stops.ELF)[0][0]
    text += "\nmov rax, %#x\njmp rax\n.balign 4\n" % begin
    with tempfile.TemporaryDirectory() as folder:
        code = os.path.join(folder, "code")
        subprocess.run(["as", "-msyntax=intel", "-mnaked-reg", "-o", code], input=text, text=True, check=True)
        subprocess.run(["objcopy", "-O", "binary", "-j", ".text", code], check=True)
        with open(code, "rb") as f:
            words = struct.iter_unpack("<I", f.read())
    writes = ["setpmem %#x 4 %#x" % (0x6000 + 4 * i, word) for i, (word,) in enumerate(words)]
    return "boot_main", "; ".join([*writes, "set rip = 0x6000", "d $n"])


def test_vmx_in_use(boot):
    """The processor is in VMX operation when Cleave comes: then CR4.VMXE cannot be cleared, and VMXON fails."""
    vmxon = run_first("""
        mov r8, rdx
        mov rax, cr0
        or eax, 0x20
        mov cr0, rax
        mov rax, cr4
        or eax, 0x2000
        mov cr4, rax
        mov ecx, 0x480
        rdmsr
        mov [0x5000], eax
        mov qword ptr [0x5ff8], 0x5000
        vmxon [0x5ff8]
        mov rdx, r8""")
    useless(start(boot, guest(), vmxon), "hvm: VMX is in use already: switch off what runs below Cleave")


@pytest.mark.parametrize("what,stop", [
    ("a VMCS in write-back memory, anywhere", without(BASIC, 52)),
    ("exits for interrupts, or virtual NMIs", without(PIN, 37)),
    ("64-bit guests and hosts", without(ENTRY, 41)),
    ("EPT, and this version has no shadow pager", without(PROC2, 33)),
    ("EPT, and this version has no shadow pager", without(PROC, 63)),  # no secondary controls at all
    ("EPT tables in write-back memory", without(EPT_VPID, 14)),
    ("EPT tables of four levels", without(EPT_VPID, 6)),
    ("INVEPT", without(EPT_VPID, 20)),
    ("INVEPT", without(EPT_VPID, 25, 26)),  # of no kind
])
def test_vmx_lacks_what_cleave_cannot_do_without(boot, what, stop):
    message = "hvm: this CPU has VMX, but lacks %s; if a hypervisor is below Cleave, enable it there"
    useless(start(boot, guest(), stop), message % what)


def test_vmx_locked_off_on_one_processor(boot):
    """
    It is left out, and guests run on the other. A condition looks at the processor that stopped last, and only the second
    comes to ap_main; the first one's stack is in the image.
    """
    second = "after rdmsr in vmx_cpu_on if rsp < 0xffffffff80000000"
    m = start(boot, guest(cmdline="test=cpuid"), ("ap_main", "set $cpu = 1"), (second, "set eax = %d" % LOCKED), pcpus=2)
    m.wait_off()
    assert "smp: processor with APIC id 1 does not start: left out" in m.lines()
    assert m.report("boot")["pcpus"] == "1"
    assert m.report("guest")["failed"] == "0"


# --- One guest cannot go on.

@pytest.mark.parametrize("field,instead,detail", [
    (0x6802, NO_FIELD, "guest CR3 = 0 is refused: no such VMCS field on this CPU"),
    (0x4002, 0x6008, "entry with invalid control fields"),
    (0x0c02, 0x6008, "entry with invalid host-state fields"),
    (0x6820, 0x6008, "invalid guest state, by a rule that is not known here, qualification 0"),
], ids=["field", "control", "host", "guest"])
def test_a_vmcs_that_the_cpu_refuses(boot, field, instead, detail):
    """
    Once, a field of the first guest's VMCS is written elsewhere. That guest is stopped, with the CPU's reason; the other
    notices nothing. States that Cleave knows to be wrong are in test_vmx.py.
    """
    conf = guest("bad", cmdline="test=cpuid", on_crash="stop") + guest("good", cmdline="test=cpuid,state")
    m = start(boot, conf, ("before vmwrite in vmx_write_dirty if $1 == %#x" % field, "set $1 = %#x; d $n" % instead))
    m.wait_off()
    bad, good = m.report("end", guest="bad"), m.report("end", guest="good")
    assert bad["reason"] == "crash"
    assert bad["detail"].startswith("the processor refuses the vCPU's state: %s (code " % detail)
    assert good["reason"] == "poweroff"
    assert m.report("guest")["failed"] == "0"


def test_a_machine_check_in_a_guest(boot):
    """
    Instead of a #DB. The guest ends, what the error bank says is told, and the processor hears that it is over. Bochs has
    no such registers, so what would access them is stepped over.
    """
    conf = guest("bad", cmdline="test=steps", on_crash="stop") + guest("good", cmdline="test=cpuid,state")
    m = start(boot, conf, ("after vmread in vmx_peek if $1 == 0x80000301", "set $1 = 0x80000312"),
              ("before rdmsr in machine_check_report", "set eax = 1; set edx = 0x80000000; set rip = rip + 2"),
              ("before wrmsr in machine_check_report", "r; set rip = rip + 2"))
    m.wait_off()
    assert m.report("end", guest="bad")["detail"].startswith("machine check at ")
    assert "machine check bank 0: status 8" in m.text  # the debugger's registers come between
    assert [int(n, 16) for n in re.findall(r"rcx: 0+_([0-9a-f]+)", m.text)] == [0x401, 0x17a]
    assert m.report("end", guest="good")["reason"] == "poweroff"


# --- Older processors: what is missing is done without, and a guest sees no difference.

WHOLE = "test=memory-size,memory-zeroed,memory-distinct,hole,cpuid,exceptions,state,steps,guarded,string-io,mmio-forms,realmode," \
    "lapic-timer,hlt,priority,balloon memory=64M"

NO_TIMER = [without(PIN, 38), absent(0x482e)]
NO_TPR_SHADOW = [without(PROC, 53), absent(0x2012, 0x401c)]
NO_EFER, NO_PAT = [without(ENTRY, 47), absent(0x2806, 0x2c02)], [without(EXIT, 51), absent(0x2804, 0x2c00)]
DELIVERY_FIELDS = 0x810, 0x201c, 0x201e, 0x2020, 0x2022

NEVER = ["posted-interrupts"]  # no model of Bochs has them

# (what the boot report says no to beside these, what the CPU lacks)
FALLBACKS = [
    ("", []),
    ("ept-1g ept-2m", [without(EPT_VPID, 16, 17)]),
    ("ept-ad", [without(EPT_VPID, 21)]),
    ("unrestricted ept-ad apic", [without(PROC2, 39)]),
    ("vpid", [without(PROC2, 37), absent(0)]),
    ("vpid", [without(EPT_VPID, 32)]),  # INVVPID is what lacks
    ("tpr-shadow apic", NO_TPR_SHADOW),
    ("apic", [without(PROC2, 32), absent(0x2014)]),  # no APIC-access page
    ("apic", [without(PROC2, 40)]),  # no APIC-register virtualisation
    ("apic", [without(PROC2, 41), absent(*DELIVERY_FIELDS)]),  # no virtual-interrupt delivery
    ("preemption-timer", NO_TIMER),
    ("", [without(EXIT, 47)]),  # an exit does not acknowledge the interrupt that causes it
    ("efer-load pat-load", NO_EFER + NO_PAT),
    ("ept-1g ept-2m ept-ad unrestricted vpid tpr-shadow apic preemption-timer",
     [without(EPT_VPID, 16, 17, 21), without(PROC2, 32, 37, 39, 40, 41), absent(0, 0x2014, *DELIVERY_FIELDS)] +
     NO_TPR_SHADOW + NO_TIMER),
]


@pytest.fixture(scope="module")
def said():
    """What the tiny guest said on the first of these machines; it must say the same on each."""
    return []


@pytest.mark.parametrize("lacks,stops", FALLBACKS, ids=["-".join(lacks.split()) or "nothing" for lacks, _ in FALLBACKS])
def test_done_without(boot, said, lacks, stops):
    m = start(boot, guest(cmdline=WHOLE), *stops)
    m.wait_off()
    line = next(line for line in m.lines() if "hvm: VMX:" in line)
    assert sorted(re.findall(r"([a-z0-9-]+) no", line)) == sorted(lacks.split() + NEVER)
    checks = [line for line in m.lines() if line.startswith("@check")]
    assert len(checks) > 20 and not [c for c in checks if " ok" not in c]
    said.extend([] if said else checks)
    assert checks == said
    assert m.report("end", guest="g")["reason"] == "poweroff"
    assert all(a["errors"] == "0" for a in m.reports("audit"))
    if "ept-2m" in lacks:
        assert {p["2m"] for p in m.reports("p2m")} == {"0"}
