"""Settings of threads and memory of the process."""

import os
import platform
import subprocess
import sys
from types import SimpleNamespace

import pytest

from gadgets.process import MALLOC_VARIABLES, SETTINGS, WAIT_VARIABLES, keep_memory, share_cores


@pytest.mark.parametrize("given", [None, *WAIT_VARIABLES])
def test_wait_policy_is_set_unless_given(monkeypatch, given):
    for name in WAIT_VARIABLES:
        monkeypatch.setenv(name, "")  # restored after the test
        monkeypatch.delenv(name)
    if given:
        monkeypatch.setenv(given, "7")
    share_cores()
    expected = {"OMP_WAIT_POLICY": "PASSIVE"} if given is None else {given: "7"}
    assert {name: os.environ[name] for name in WAIT_VARIABLES if name in os.environ} == expected


@pytest.mark.parametrize(
    ("quota", "given", "expected"),
    [
        ("150000 100000", None, "2"),
        ("50000 100000", None, "1"),
        ("150000 100000", "5", "5"),
        ("max 100000", None, None),
        ("900000 100000", None, None),
        ("", None, None),
    ],
)
def test_threads_are_limited_to_the_cores_of_a_container(
    monkeypatch, tmp_path, quota, given, expected
):
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    monkeypatch.setenv("OMP_NUM_THREADS", given or "")
    if given is None:
        monkeypatch.delenv("OMP_NUM_THREADS")
    (tmp_path / "cpu.max").write_text(quota)
    monkeypatch.setattr("gadgets.process.CPU_MAX", tmp_path / "cpu.max")
    monkeypatch.setattr("gadgets.process.cores", lambda: 8)
    share_cores()
    assert os.environ.get("OMP_NUM_THREADS") == expected


@pytest.mark.parametrize("given", [None, *MALLOC_VARIABLES])
def test_malloc_settings_of_the_environment_are_kept(monkeypatch, given):
    calls = []
    library = SimpleNamespace(mallopt=lambda *given: calls.append(given))
    monkeypatch.setattr("gadgets.process.ctypes.CDLL", lambda _: library)
    for name in MALLOC_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    if given:
        monkeypatch.setenv(given, "1")
    keep_memory()
    assert calls == ([] if given else list(SETTINGS.items()))


@pytest.mark.skipif("glibc" not in platform.libc_ver(), reason="another C library")
def test_freed_memory_is_reused():
    """An array of 16 MiB has 4096 pages, none of which faults again."""
    program = """
import resource
import numpy as np
from gadgets.process import keep_memory
keep_memory()
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(3):
    np.ones(1 << 21)
before = faults()
for _ in range(10):
    np.ones(1 << 21)
print(faults() - before)
"""
    environment = {
        name: value for name, value in os.environ.items() if name not in MALLOC_VARIABLES
    }
    environment["NUMPY_MADVISE_HUGEPAGE"] = "0"
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert int(done.stdout) < 100
