#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""The checks behind `make check`: formatting, headers that compile alone, the dependency rule, static analysis, budgets.

Each check prints one line a finding and one line at its end; the exit status says whether all are clean.
"""
import concurrent.futures
import os
import re
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
IMAGE_DIRS = ["lib", "mm", "p2m", "sched", "drivers", "devices", "guest", "boot",
              "arch/x86/cpu", "arch/x86/emul", "arch/x86/hvm"]
LEAVES = {"arch/x86/cpu", "drivers"}

# The dependency rule: what a folder may include beside itself. Arrows point down only.
MAY_INCLUDE = {
    "lib": set(),
    "mm": {"lib"},
    "p2m": {"mm", "lib"},
    "sched": {"lib"},
    "arch/x86/emul": {"lib"},
    "devices": {"sched", "lib"},
    "drivers": {"lib"},
    "arch/x86/cpu": {"drivers", "sched", "mm", "lib"},
    "arch/x86/hvm": {"p2m", "sched", "arch/x86/emul", "devices", "mm", "lib"} | LEAVES,
}
MAY_INCLUDE["guest"] = MAY_INCLUDE["arch/x86/hvm"] | {"arch/x86/hvm"}
MAY_INCLUDE["boot"] = MAY_INCLUDE["guest"] | {"guest"}

# Single headers beyond that: what talks to ports needs the instructions for it.
MAY_INCLUDE_FILE = {("drivers", "arch/x86/cpu/cpu.h")}

FREESTANDING = {"stdbool.h", "stddef.h", "stdint.h", "stdarg.h"}
CODE_BUDGET = 14000
FUNCTION_BUDGET = 60
FILE_BUDGET = 700
IMAGE_BUDGET = 512 * 1024

# Beyond a budget, with the reason.
LONG_FUNCTIONS = {}
LONG_FILES = {}

KERNEL_FLAGS = ["-std=gnu11", "-I.", "-ffreestanding", "-mno-red-zone", "-mgeneral-regs-only", "-mcmodel=kernel",
                "-fno-pic", "-fno-pie", '-DCLEAVE_VERSION="check"']
WARN = ["-Wall", "-Wextra", "-Werror", "-Wshadow", "-Wstrict-prototypes", "-Wmissing-prototypes", "-Wundef", "-Wvla",
        "-Wno-unused-parameter"]


def run(args):
    return subprocess.run(args, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def parallel(fn, items):
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        return [finding for found in pool.map(fn, items) for finding in found]


def files(dirs, *endings):
    out = []
    for d in dirs:
        for base, _, names in os.walk(os.path.join(ROOT, d)):
            out += [os.path.relpath(os.path.join(base, n), ROOT) for n in names if n.endswith(endings)]
    return sorted(out)


def image_files(*endings):
    return [f for f in files(IMAGE_DIRS, *endings) if os.path.dirname(f) in IMAGE_DIRS]


def check_format():
    all_files = image_files(".c", ".h") + files(["tests", "tools"], ".c", ".h")
    r = run(["clang-format", "--dry-run", "-Werror", *all_files])
    return [line for line in r.stdout.splitlines() if "error:" in line]


def check_headers():
    def alone(header):
        r = run(["gcc", *KERNEL_FLAGS, *WARN, "-fsyntax-only", "-include", header, "-x", "c", "/dev/null"])
        return [f"{header} does not compile alone: {r.stdout.splitlines()[0]}"] if r.returncode else []
    return parallel(alone, image_files(".h"))


def check_dependencies():
    def one(source):
        own = os.path.dirname(source)
        r = run(["gcc", *KERNEL_FLAGS, "-MM", source])
        if r.returncode:
            return [f"{source}: {r.stdout.splitlines()[0]}"]
        found = []
        for name in r.stdout.replace("\\\n", " ").split()[1:]:
            # What a header drags in is its own folder's matter: only direct includes are the file's choice.
            if name not in direct(source):
                continue
            d = os.path.dirname(name)
            if d != own and d not in MAY_INCLUDE[own] and (own, name) not in MAY_INCLUDE_FILE:
                found.append(f"{source} includes {name}: {own} may use {', '.join(sorted(MAY_INCLUDE[own]))} only")
        found += [f"{source} includes <{h}>: only {', '.join(sorted(FREESTANDING))} exist without libc"
                  for h in re.findall(r"#include <([^>]+)>", read(source)) if h not in FREESTANDING]
        return found
    return parallel(one, image_files(".c", ".h"))


def direct(path):
    return set(re.findall(r'#include "([^"]+)"', read(path)))


def read(path):
    with open(os.path.join(ROOT, path), encoding="utf-8") as f:
        return f.read()


def check_cppcheck():
    r = run(["cppcheck", "--quiet", "--std=c11", "--language=c", "--enable=warning,performance,portability",
             "--inline-suppr", "--error-exitcode=1", "-I.", f"-j{os.cpu_count()}", "--suppress=missingIncludeSystem",
             "--suppress=normalCheckLevelMaxBranches", "--template={file}:{line}: {severity}: {message} [{id}]",
             '-DCLEAVE_VERSION="check"', *image_files(".c"), *files(["tests/host"], ".c")])
    return [line for line in r.stdout.splitlines() if re.match(r"\S+:\d+: ", line)]


def check_tidy():
    def one(source):
        r = run(["clang-tidy", "--quiet", source, "--", *[f for f in KERNEL_FLAGS if f != "-fno-pie"]])
        return sorted({line for line in r.stdout.splitlines() if " warning: " in line or " error: " in line})
    return parallel(one, image_files(".c"))


def strip_comments(text):
    return re.sub(r"/\*.*?\*/", lambda m: "\n" * m.group().count("\n"), text, flags=re.S)


def code_lines(path):
    return sum(1 for line in strip_comments(read(path)).splitlines() if line.strip())


def check_sizes():
    found, total = [], 0
    for d in IMAGE_DIRS:
        n = sum(code_lines(f) for f in image_files(".c", ".h", ".S") if os.path.dirname(f) == d)
        total += n
        print(f"  {n:6} {d}")
    print(f"  {total:6} in the image, of {CODE_BUDGET}")
    if total > CODE_BUDGET:
        found.append(f"{total} code lines in the image: the budget is {CODE_BUDGET}")
    for f in image_files(".c", ".h", ".S"):
        n = read(f).count("\n")
        if n > FILE_BUDGET and f not in LONG_FILES:
            found.append(f"{f}: {n} lines, the budget is {FILE_BUDGET}")
        for name, length in functions(f):
            if length > FUNCTION_BUDGET and name not in LONG_FUNCTIONS:
                found.append(f"{f}: {name} has {length} lines, the budget is {FUNCTION_BUDGET}")
    image = os.path.join(ROOT, "build/cleave")
    if os.path.exists(image):
        r = run(["size", "-B", image]).stdout.splitlines()[1].split()
        size = int(r[0]) + int(r[1])
        print(f"  {size // 1024} KB of text and data in the image, {int(r[2]) // 1024} KB of bss")
        if size > IMAGE_BUDGET:
            found.append(f"the image has {size} bytes, the budget is {IMAGE_BUDGET}")
    return found


def functions(path):
    """Names and lengths of functions: a definition's closing brace stands in the first column."""
    start, name = None, ""
    for i, line in enumerate(read(path).splitlines()):
        m = re.match(r"(?!\s)(?:[\w*]+[\s*]+)+(\w+)\(", line)
        if m:
            name = m.group(1)
        if line == "{":
            start = i
        elif line == "}" and start is not None:
            yield name, i - start + 1
            start = None


CHECKS = [("formatting", check_format), ("headers compile alone", check_headers),
          ("dependency rule", check_dependencies), ("cppcheck", check_cppcheck), ("clang-tidy", check_tidy),
          ("budgets", check_sizes)]


def main():
    passed = failed = 0
    for name, check in CHECKS:
        found = check()
        for f in found:
            print(f"  {f}")
        print(f"{'ok  ' if not found else 'FAIL'} {name}")
        passed, failed = passed + (not found), failed + bool(found)
    print(f"{passed} passed, {failed} failed")
    return failed != 0


if __name__ == "__main__":
    sys.exit(main())
