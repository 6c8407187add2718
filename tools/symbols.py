#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Turns `nm -n IMAGE` on standard input into an assembly file with the symbol table for back traces.

Only text symbols are kept, and text_end, which bounds the last function. Their addresses must not depend on this table's
size: it is linked behind the text.
"""
import sys

IMAGE_BASE = 0xFFFFFFFF80000000


def read_symbols(lines):
    """Returns {address: name} of the text, one name an address."""
    symbols = {}
    for line in lines:
        fields = line.split()
        if len(fields) != 3:
            continue
        address, kind, name = int(fields[0], 16), fields[1], fields[2]
        if name == "text_end":
            symbols[address] = name
            break
        if kind in "tTW" and address >= IMAGE_BASE and not name.startswith("."):
            symbols.setdefault(address, name)
    return symbols


def main():
    print("/* Made by tools/symbols.py. */")
    print('\t.section .kallsyms, "a"\n\t.balign 4')
    symbols = sorted(read_symbols(sys.stdin).items())
    print(f"\t.globl kallsyms_count\nkallsyms_count:\n\t.long {len(symbols)}")
    print("\t.globl kallsyms\nkallsyms:")
    position = 0
    for address, name in symbols:
        print(f"\t.long {address - IMAGE_BASE:#x}, {position}")
        position += len(name) + 1
    print("\t.globl kallsyms_names\nkallsyms_names:")
    for _, name in symbols:
        print(f'\t.asciz "{name}"')
    print('\t.section .note.GNU-stack, "", @progbits')


if __name__ == "__main__":
    main()
