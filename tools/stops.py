# SPDX-License-Identifier: MIT
"""
Places in Cleave's code where Bochs' debugger stops the machine, changes it, and lets it go on: so a test has processors
that no emulator has.

A place is written as one of

    FUNCTION
    before INSTRUCTION in FUNCTION
    after INSTRUCTION in FUNCTION

and may end in ` if EXPRESSION`, in the debugger's words. INSTRUCTION is a regular expression for the beginning of the
instruction as `objdump -M intel` has it; all that match are meant. Commands are the debugger's, separated by `;`. In them
and in the expression $1, $2, ... are the instruction's operands, and $n is the number of the stop: `d $n` lets it happen
only once.
"""
import collections
import os
import re
import subprocess

ELF = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "build", "cleave")
MOST = 16  # that Bochs has

Stop = collections.namedtuple("Stop", "address condition commands")


class StopsError(Exception):
    """A place that is not there, for people."""


def code(function, elf):
    """Its instructions: [(address, text)]."""
    cmd = ["objdump", "-d", "-Mintel", "--no-show-raw-insn", "--disassemble=" + function, elf]
    text = subprocess.run(cmd, capture_output=True, text=True, check=False).stdout
    found = re.findall(r"^ *([0-9a-f]+):\s+(.*?)\s*(?:[<#].*)?$", text, re.M)
    if not found:
        raise StopsError("%s has no function '%s'" % (elf, function))
    return [(int(address, 16), " ".join(insn.split())) for address, insn in found]


def with_operands(text, insn, number):
    """text with what $1, $2, ... and $n stand for."""
    values = dict(enumerate(insn.partition(" ")[2].split(","), 1), n=number)
    return re.sub(r"\$(\d|n\b)", lambda m: str(values.get(int(m[1]) if m[1].isdigit() else m[1], m[0])), text)


def resolve(stops, elf=ELF):
    """[(place, commands)] as Stops; the debugger numbers them from 1 in this order."""
    found = []
    for place, commands in stops:
        where, _, condition = place.partition(" if ")
        wanted = re.fullmatch(r"(before|after) (.+) in (\w+)", where)
        insns = code(wanted[3] if wanted else where, elf)
        at = [i for i, (_, insn) in enumerate(insns) if re.match(wanted[2], insn)] if wanted else [0]
        if not at:
            raise StopsError("%s: '%s' has no such instruction" % (elf, place))
        for i in at:
            address, insn = insns[i + 1][0] if wanted and wanted[1] == "after" else insns[i][0], insns[i][1]
            texts = [with_operands(t, insn, len(found) + 1) for t in (condition, commands)]
            found.append(Stop(address, texts[0], [c.strip().encode() for c in texts[1].split(";")]))
    if len(found) > MOST:
        raise StopsError("%d places to stop at, and Bochs' debugger has %d" % (len(found), MOST))
    return found


def script(found):
    """For the debugger, at the machine's start."""
    return "".join("lb %#x" % s.address + (' if "%s"' % s.condition if s.condition else "") + "\n" for s in found) + "c\n"
