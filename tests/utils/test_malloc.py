"""Freed memory is used again: counted by the system, in a process of its own."""

import platform
import subprocess
import sys

import pytest

STEPS = """
import resource, sys, torch
from ssl_audio.utils.malloc import keep_freed_memory
if sys.argv[1] == "kept":
    keep_freed_memory()
for i in range(30):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt if i == 10 else before if i > 10 else 0
    first = torch.ones(2**24)
    second = first + 1
    del first, second
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library: nothing is set")
def test_steps_take_their_memory_from_the_steps_before():
    def faults(how):
        return int(
            subprocess.run([sys.executable, "-c", STEPS, how], capture_output=True, text=True, check=True).stdout
        )

    pages = 20 * 2 * 2**26 // 4096  # of the tensors of the 20 steps that count
    assert faults("kept") < 0.01 * pages < faults("given back")
