#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""
Every test: host-side programs (unit, property, fuzz replay), the checks of the source, and whole machines (pytest).
One line a test; the last line is `N passed, N failed`, and the exit status says the same.
"""
import argparse
import concurrent.futures
import glob
import os
import re
import shutil
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET

import debian
import image

TOP = image.TOP
BUILD = image.BUILD
LIMIT = 600  # seconds after which a host program is taken for hung


class Count:
    """Prints results as they come and sums them."""

    def __init__(self):
        self.passed = self.failed = 0
        self.bad = []

    def tell(self, name, good, output=""):
        print("%-6s %s" % ("ok" if good else "FAILED", name), flush=True)
        if good:
            self.passed += 1
            return
        self.failed += 1
        self.bad.append(name)
        if output:
            print(output[-6000:], flush=True)


def programs():
    """Built host test programs whose source is still there."""
    found = []
    for kind in ("unit", "property", "threads", "fuzz"):
        for source in sorted(glob.glob(os.path.join(TOP, "tests", kind, "*.c"))):
            found.append((kind, os.path.basename(source)[:-2]))
    return found


def run_program(program):
    kind, name = program
    path = os.path.join(BUILD, "host", kind, name)
    if not os.path.exists(path):
        return program, None, "not built"
    env = dict(os.environ, CMOCKA_MESSAGE_OUTPUT="TAP")
    try:
        done = subprocess.run([path], cwd=TOP, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=LIMIT,
                              check=False)
    except subprocess.TimeoutExpired:
        return program, None, "not finished in %d s" % LIMIT
    return program, done.returncode, done.stdout.decode(errors="replace")


def tell_program(count, program, status, output):
    """A cmocka program is one test a TAP line; any other program, and one that dies, is one test."""
    label = "/".join(program)
    cases = re.findall(r"^(not ok|ok) \d+ - (\S+)", output, re.M)
    for verdict, case in cases:
        count.tell("%s: %s" % (label, case), verdict == "ok", output)
    if not cases or (status and all(verdict == "ok" for verdict, _ in cases)):
        count.tell(label, status == 0, output)


def host_tests(count):
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count() or 2) as pool:
        for program, status, output in pool.map(run_program, programs()):
            tell_program(count, program, status, output)


def build(*targets):
    return subprocess.run(["make", "-C", TOP, "--no-print-directory", "-j%d" % (os.cpu_count() or 2), "-k", *targets],
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)


def source_checks(count):
    if not (shutil.which("clang-format") or shutil.which("clang-format-14")):
        print("skip   check: clang-format is not installed")
        return
    done = build("check")
    count.tell("check: formatting, headers, dependencies, static analysis, budgets", not done.returncode, done.stdout)


def pytest_command(report, extra):
    cmd = [sys.executable, "-m", "pytest", "-v", "--tb=short", "--junitxml=" + report, *extra,
           os.path.join(TOP, "tests", "system")]
    try:
        import xdist  # noqa: F401  pylint: disable=import-outside-toplevel,unused-import
        return cmd + ["-n", "2"]
    except ImportError:
        return cmd


def system_tests(count, extra):
    try:
        debian.kernel(BUILD)  # once, before tests want it side by side
    except SystemExit as e:
        count.tell("system tests: Debian's kernel", False, str(e))
        return
    with tempfile.TemporaryDirectory() as tmp:
        report = os.path.join(tmp, "report.xml")
        with subprocess.Popen(pytest_command(report, extra), cwd=TOP, stdout=subprocess.PIPE, text=True) as child:
            tail = ""
            for line in child.stdout:
                tail = (tail + line)[-20000:]
                shown = re.search(r"(PASSED|FAILED|ERROR) .*?(\S+::\S+)", line)
                if shown and "[gw" in line:
                    print("%-6s %s" % ("ok" if shown[1] == "PASSED" else "FAILED", shown[2]), flush=True)
        if not os.path.exists(report):
            count.tell("system tests", False, tail)
            return
        for case in ET.parse(report).iter("testcase"):
            name = "%s::%s" % (case.get("classname"), case.get("name"))
            trouble = case.find("failure") if case.find("failure") is not None else case.find("error")
            if trouble is not None:
                count.tell(name, False, trouble.text or trouble.get("message", ""))
            elif case.find("skipped") is None:
                count.passed += 1


def main():
    p = argparse.ArgumentParser(prog="cleave test")
    p.add_argument("--host-only", action="store_true", help="unit, property and fuzz replay only")
    p.add_argument("--system-only", action="store_true")
    p.add_argument("-k", metavar="EXPRESSION", help="system tests that match, as pytest has it")
    a = p.parse_args()
    count = Count()
    if not a.system_only:
        made = build("host-tests")
        count.tell("build of the host tests", not made.returncode, made.stdout)
        host_tests(count)
    if not a.host_only:
        made = build("all", "guests", os.path.join("build", "host", "config"))
        count.tell("build of image and guests", not made.returncode, made.stdout)
        if not a.system_only:
            source_checks(count)
        if not made.returncode:
            system_tests(count, ["-k", a.k] if a.k else [])
    for name in count.bad:
        print("failed:", name)
    print("%d passed, %d failed" % (count.passed, count.failed))
    sys.exit(1 if count.failed else 0)


if __name__ == "__main__":
    main()
