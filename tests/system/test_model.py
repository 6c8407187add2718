# SPDX-License-Identifier: MIT
"""
The models of tests/model, each in all its states by Spin. A model without errors proves only as much as it can see: so
each mutant that it names, a mistake that somebody has shipped, must be found.
"""
import os
import re
import shutil
import subprocess

import pytest
from conftest import TOP

MODELS = os.path.join(TOP, "tests", "model")

# Model: sizes at which it must hold, and which together must find each of its mutants.
SIZES = {
    "pt": [{"CPUS": 1},
           {"CPUS": 1, "WRITERS": 2, "OPS": "0b000011"},
           {"CPUS": 1, "WRITERS": 2, "OPS": "0b100001"},
           {"CPUS": 2, "OPS": "0b000001"}],
    "move": [{"CPUS": 1}, {"CPUS": 2}],
    "flush": [{"CPUS": 1}, {"CPUS": 2, "GENS": 3, "CACHE": 0}, {"CPUS": 1, "WRITERS": 2}],
    "posted": [{"POSTERS": 2}, {"POSTERS": 1, "TIMES": 3, "EXITS": 3}],
}
QUICK = {"pt": 2, "move": 2, "flush": 2, "posted": 2}  # how many of these are tried on mutants

pytestmark = pytest.mark.skipif(not shutil.which("spin"), reason="spin is not installed")


def source(model):
    with open(os.path.join(MODELS, model + ".pml"), encoding="ascii") as f:
        return f.read()


def check(folder, model, size):
    """Visits all states, or those up to the first error; returns (errors, states)."""
    defines = ["-D%s=%d" % (k, int(str(v), 0)) for k, v in size.items()]
    subprocess.run(["spin", "-a", *defines, os.path.join(MODELS, model + ".pml")], cwd=folder, check=True,
                   stdout=subprocess.DEVNULL)
    subprocess.run(["gcc", "-w", "-O2", "-DSAFETY", "-DCOLLAPSE", "-o", "pan", "pan.c"], cwd=folder, check=True)
    out = subprocess.run(["./pan", "-m1000000", "-w24"], cwd=folder, check=True, capture_output=True, text=True).stdout
    assert "search depth too small" not in out and "out of memory" not in out, out
    return int(re.search(r"errors: (\d+)", out)[1]), float(re.search(r"(\S+) states, stored", out)[1])


def mutants(model):
    """Their names and numbers: what is defined from the first MUTANT to MUTANTS, their count."""
    found = re.findall(r"^#define ([A-Z_]+)\s+(\d+)\b", source(model), re.M)
    names = [n for n, _ in found]
    found = found[names.index("MUTANT") + 1:names.index("MUTANTS")]
    assert [int(number) for _, number in found] == list(range(1, len(found) + 1))
    return [(model, name, int(number)) for name, number in found]


@pytest.mark.parametrize("model,size", [(m, s) for m, sizes in SIZES.items() for s in sizes],
                         ids=lambda x: x if isinstance(x, str) else "-".join("%s=%s" % kv for kv in x.items()))
def test_no_interleaving_breaks_a_rule(tmp_path, model, size):
    errors, states = check(tmp_path, model, size)
    assert errors == 0
    assert states > 1000


@pytest.mark.parametrize("model,name,number", [m for model in SIZES for m in mutants(model)])
def test_a_mutant_is_found(tmp_path, model, name, number):
    assert any(check(tmp_path, model, dict(size, MUTANT=number))[0] for size in SIZES[model][:QUICK[model]]), name
