"""Real scans for the tests, where they are present."""

import os
from pathlib import Path

import pytest

from scoremri_core.scans.gridding import fully_sampled_kspace

DATA = Path(os.environ.get("SCOREMRI_DATA", Path(__file__).parents[3] / "shared" / "data"))


@pytest.fixture(scope="session")
def raw_data():
    """The folder of real scanner k-space."""
    folder = DATA / "raw"
    if not folder.is_dir():
        pytest.skip(f"no real scans in {folder} (set SCOREMRI_DATA)")
    return folder


@pytest.fixture(scope="session")
def brain_256(raw_data):
    """k-space (coil, y, x) of the fully sampled 256 x 256 brain."""
    return fully_sampled_kspace(raw_data / "brain_axial_8ch_256x256.h5")[0]


@pytest.fixture(scope="session")
def brain_230(raw_data):
    """k-space (coil, y, x) of the fully sampled brain of 180 lines of 230 samples."""
    return fully_sampled_kspace(raw_data / "brain_axial_8ch_230x180.h5")[0]
