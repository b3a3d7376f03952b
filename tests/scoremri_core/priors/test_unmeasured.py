"""A prior whose error was never measured says so where it is used."""

import logging

import numpy as np
import pytest

from scoremri_core import load_prior, reconstruct
from scoremri_core.priors import save_prior
from scoremri_core.priors.storage import read_prior
from scoremri_core.priors.unet import DenoisingUnet


@pytest.mark.parametrize("measured", [True, False])
def test_an_unmeasured_prior_is_reported(tmp_path, caplog, measured):
    path = tmp_path / "mine.safetensors"
    save_prior(path, DenoisingUnet((8,), (1,)), {"denoiser_error": []} if measured else {})
    assert read_prior(path).is_measured is measured
    assert not caplog.records
    with caplog.at_level(logging.WARNING):
        prior = load_prior(path)
    warnings = [record.getMessage() for record in caplog.records]
    assert [text.startswith("prior mine: its error was never") for text in warnings] == (
        [] if measured else [True]
    )
    kspace = np.random.default_rng(0).normal(size=(2, 16, 16)) + 0j
    info = reconstruct(kspace, prior=prior, samples=1, steps=1).info
    assert info.prior_measured is measured
