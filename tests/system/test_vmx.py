# SPDX-License-Identifier: MIT
"""What is VMX's own: states that it refuses, CPUs that lack parts of it, and what an exit costs."""
import re

import pytest
from conftest import guest, tiny

SKYLAKE = pytest.mark.machines("intel-bochs-skylake")
VMX = pytest.mark.machines("intel-bochs-skylake", "intel-bochs-sandybridge", "intel-bochs-lynnfield")


@VMX
def test_a_state_that_the_cpu_refuses(boot):
    """A guest in long mode with a 16-bit TSS is stopped, with the rule that it breaks; another one notices nothing."""
    conf = guest("bad", cmdline="test=badtss", on_crash="stop") + \
        guest("good", cmdline="test=memory-size,memory-zeroed memory=64M")
    m = boot(conf, {"tiny": tiny()})
    m.wait_off()
    bad, good = m.report("end", guest="bad"), m.report("end", guest="good")
    assert bad["reason"] == "crash" and "TR.type 3 is not a busy TSS" in bad["detail"]
    assert good["reason"] == "poweroff"


@pytest.mark.machines("intel-bochs-penryn")
def test_without_ept(boot):
    """Cleave says what it lacks, and stays up for it to be read."""
    m = boot(guest(), {"tiny": tiny()})
    m.wait("no guest could be started")
    assert any("this CPU has VMX, but lacks EPT" in line for line in m.lines())
    assert m.report("boot")["modes"] == "none"


@VMX
def test_the_features_are_told(boot):
    m = boot(guest(cmdline="test=cpuid"), {"tiny": tiny()})
    m.wait_off()
    line = next(line for line in m.lines() if "hvm: VMX:" in line)
    found = dict(re.findall(r"([a-z0-9-]+) (yes|no)", line))
    assert found["ept-2m"] == found["vpid"] == "yes"
    assert {"unrestricted", "ept-1g", "ept-ad", "tpr-shadow", "preemption-timer"} <= set(found)


@SKYLAKE
def test_few_accesses_to_the_vmcs(boot):
    """Whatever a guest does, an exit takes no more than so many VMREADs and VMWRITEs on average; see also unit/vmx.c."""
    m = boot(guest(cmdline="test=bench"), {"tiny": tiny()})
    m.wait_off()
    vmcs, exits = m.report("vmcs"), m.report("exits")
    assert int(vmcs["reads"]) <= 12 * int(exits["total"])
    assert int(vmcs["writes"]) <= 2 * int(exits["total"])
