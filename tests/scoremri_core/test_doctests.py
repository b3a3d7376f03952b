"""Examples in docstrings."""

import doctest

import pytest

from scoremri_core.mri import fourier
from scoremri_core.samplers import annealing
from scoremri_core.simulation import masks


@pytest.mark.parametrize("module", [annealing, fourier, masks], ids=lambda m: m.__name__)
def test_examples_are_correct(module):
    failed, tried = doctest.testmod(module)
    assert tried
    assert not failed
