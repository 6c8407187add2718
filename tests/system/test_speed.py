# SPDX-License-Identifier: MIT
"""Goals that are counted in instructions, and so are the same on any machine that runs the tests."""
import bench
import bench_common


def test_linux_to_its_shell(tmp_path):
    """At most 1.05 times the instructions of the same kernel and initramfs on the bare machine."""
    bench.prepare(str(tmp_path), True)
    bare, ours = bench.linux(str(tmp_path), False), bench.linux(str(tmp_path), True)
    assert ours <= bench_common.LINUX_GOAL * bare


def test_start_of_the_first_guest(tmp_path):
    bench.prepare(str(tmp_path), False)
    assert bench.start(str(tmp_path)) <= bench.START_GOAL
