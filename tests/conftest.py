"""Real scans where they are present, and two processes for the whole suite."""

import os
from pathlib import Path

import pytest

from scoremri_core.scans.gridding import fully_sampled_kspace

WORKERS = min(2, os.cpu_count() or 1)

if "PYTEST_XDIST_WORKER" in os.environ:
    # The cores are shared out: torch takes all of them for each process, and is slower so.
    os.environ.setdefault("OMP_NUM_THREADS", str((os.cpu_count() or 1) // WORKERS))


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config):
    """Run all tests side by side; some of them, or those under `-n 0`, in this process."""
    whole = config.args == config.getini("testpaths")
    if (
        whole
        and getattr(config.option, "numprocesses", 0) is None
        and not hasattr(config, "workerinput")
    ):
        config.option.numprocesses = WORKERS
        config.option.dist = "worksteal"  # neighbours, which share fixtures, stay together


@pytest.fixture(scope="session")
def data_dir():
    """The folder of development data; skips where it is absent."""
    folder = Path(os.environ.get("SCOREMRI_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real scans in {folder} (set SCOREMRI_DATA)")
    return folder


@pytest.fixture(scope="session")
def raw_data(data_dir):
    """The folder of real scanner k-space."""
    return data_dir / "raw"


@pytest.fixture(scope="session")
def brain_256(raw_data):
    """k-space (coil, y, x) of the fully sampled 256 x 256 brain."""
    return fully_sampled_kspace(raw_data / "brain_axial_8ch_256x256.h5")[0]


@pytest.fixture(scope="session")
def brain_230(raw_data):
    """k-space (coil, y, x) of the fully sampled brain of 180 lines of 230 samples."""
    return fully_sampled_kspace(raw_data / "brain_axial_8ch_230x180.h5")[0]


def pytest_runtest_setup(item):
    if item.get_closest_marker("cuda"):
        import torch

        if not torch.cuda.is_available():
            pytest.skip("no NVIDIA GPU")
