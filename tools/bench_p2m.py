#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""
What the P2M's operations cost in instructions: tests/bench/p2m.c under callgrind, the same numbers each time.
`./cleave bench` prints them with the rest; alone, this prints only them.
"""
import glob
import os
import re
import subprocess
import sys
import tempfile

import image

BUILD = image.BUILD
MACHINE = "x86-64 host, instructions counted"
FORMATS = {"long": "NPT", "ept": "EPT"}

# operation: (what it is, the most that is allowed)
OPERATIONS = {
    "get-4k": ("p2m_get, 4 KB page", 60),
    "get-2m": ("p2m_get, 2 MB page", 60),
    "get-1g": ("p2m_get, 1 GB page", 60),
    "walk-4k": ("p2m_get, 4 KB page, by a walk", None),
    "walk-2m": ("p2m_get, 2 MB page, by a walk", None),
    "walk-1g": ("p2m_get, 1 GB page, by a walk", None),
    "touch": ("first touch of 2 MB, zeroing not counted", None),
    "map-1g-by-1g": ("map 1 GB, as one page", None),
    "map-1g-by-2m": ("map 1 GB, in 2 MB pages", None),
    "map-1g-by-4k": ("map 1 GB, in 4 KB pages", None),
    "split-1g": ("split 1 GB into 2 MB", None),
    "split-2m": ("split 2 MB into 4 KB", 6000),
    "merge-1g": ("merge 512 x 2 MB", None),
    "merge-2m": ("merge 512 x 4 KB", None),
    "collapse-2m": ("collapse 2 MB, copies not counted", None),
    "audit-1g": ("audit, 1 GB in 2 MB pages", None),
    "teardown-1g-of-1g": ("teardown of 1 GB: one page", 20000),
    "teardown-1g-of-2m": ("teardown of 1 GB: 2 MB pages", 20000),
    "teardown-1g-of-4k": ("teardown of 1 GB: 4 KB pages", None),
    "teardown-1g-scattered": ("teardown of 1 GB: 512 blocks of 2 MB", 20000),
    "tables-1g-of-1g": ("table frames for 1 GB: one page", 4),
    "tables-1g-of-2m": ("table frames for 1 GB: 2 MB pages", 5),
}


def measure():
    """{(operation, format): number}"""
    program = os.path.join(BUILD, "fast", "bench", "p2m")
    subprocess.run(["make", "-C", image.TOP, "--no-print-directory", "-s", "build/fast/bench/p2m"], check=True)
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(["valgrind", "-q", "--tool=callgrind", "--collect-atstart=no",
                               "--callgrind-out-file=" + os.path.join(folder, "out"), program],
                              check=True, capture_output=True, text=True)
        counts = {(what, fmt): int(n) for fmt, what, n in re.findall(r"^p2m-(\w+):(\S+) (\d+)$", done.stdout, re.M)}
        for path in glob.glob(os.path.join(folder, "out*")):
            with open(path, encoding="ascii", errors="replace") as f:
                text = f.read()
            name = re.search(r"^desc: Trigger: Client Request: p2m-(\w+):(\S+)$", text, re.M)
            if name:
                counts[name[2], name[1]] = int(re.search(r"^totals: (\d+)$", text, re.M)[1])
    nothing = counts.pop(("nothing", "long"))  # what measuring itself costs
    return {k: n if k[0].startswith("tables") else n - nothing for k, n in counts.items()}


def entries():
    """For build/bench.json; the table is printed on the way."""
    counts = measure()
    print("%-38s %12s %12s" % ("P2M, instructions", *FORMATS.values()))
    found = []
    for what, (title, goal) in OPERATIONS.items():
        print("%-38s %12d %12d%s" % (title, *(counts[what, fmt] for fmt in FORMATS), "   goal %d" % goal if goal else ""))
        unit = "frames" if what.startswith("tables") else "instructions"
        found += [{"name": "p2m-%s-%s" % (what, FORMATS[fmt].lower()), "machine": MACHINE, "unit": unit, "better": "lower",
                   "value": counts[what, fmt], "peer": None, "peer_value": None, "goal": goal} for fmt in FORMATS]
    return found


if __name__ == "__main__":
    sys.exit(0 if all(e["goal"] is None or e["value"] <= e["goal"] for e in entries()) else 1)
