"""Real scans for the tests, where they are present."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def data_dir():
    """The folder of development data; skips where it is absent."""
    folder = Path(os.environ.get("SCOREMRI_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real scans in {folder} (set SCOREMRI_DATA)")
    return folder


def pytest_runtest_setup(item):
    if item.get_closest_marker("cuda"):
        import torch

        if not torch.cuda.is_available():
            pytest.skip("no NVIDIA GPU")
