"""The annealed samplers with the shipped prior, on scanner data."""

import numpy as np
import pytest
import torch

from scoremri_core import reconstruct
from scoremri_core.mri.classical import cg_sense, mvue
from scoremri_core.mri.coils.maps import estimate_coil_maps
from scoremri_core.mri.sense import SenseOperator
from scoremri_core.samplers.annealing import in_image_units
from scoremri_core.scans.gridding import fully_sampled_kspace
from scoremri_core.score.metrics import psnr
from scoremri_core.simulation.masks import make_mask


@pytest.mark.parametrize("factor", [1e-3, 1.0, 1e3])
@pytest.mark.parametrize("averages", [None, 9.0])
def test_whitening_does_not_change_the_units_of_the_image(factor, averages):
    generator = torch.Generator().manual_seed(0)
    maps = torch.randn(2, 1, 3, 8, 8, dtype=torch.complex64, generator=generator)
    mask = torch.ones(2, 8, 8, dtype=torch.bool)
    image = torch.randn(2, 1, 1, 8, 8, dtype=torch.complex64, generator=generator)
    weight = None if averages is None else torch.ones(2, 8, 8)
    if weight is not None:
        weight[:, 2:4] = averages
    given = SenseOperator(factor * maps, mask, weight)
    data, sigma_n = given.forward(image)[:, 0], torch.tensor([1.0, 2.0])
    operator, seen, noise = in_image_units(given, data, sigma_n)
    power = operator.maps.abs().square().sum((1, 2)).amax((1, 2)) * (averages or 1)
    torch.testing.assert_close(power, torch.ones(2))
    torch.testing.assert_close(operator.forward(image)[:, 0], seen)
    # what the data say of the image stays as it was
    torch.testing.assert_close(
        operator.normal(image) / noise.view(2, 1, 1, 1, 1) ** 2,
        given.normal(image) / sigma_n.view(2, 1, 1, 1, 1) ** 2,
        rtol=1e-4,
        atol=1e-4 * factor**2,
    )


@pytest.fixture(scope="module", params=["phantom_7slices_8ch_128x128", "brain_axial_8ch_256x256"])
def scan(request, raw_data):
    """128 lines of low resolution, which are quick to sample, at R = 4."""
    kspace = fully_sampled_kspace(raw_data / f"{request.param}.h5")
    kspace = kspace[len(kspace) // 2]
    ny, nx = (n // 2 for n in kspace.shape[-2:])
    kspace = kspace[:, ny - 64 : ny + 64, nx - 64 : nx + 64]
    mask = make_mask("equispaced", (128,), 4, 24).sampled
    measured = (kspace * mask[:, None]).astype(np.complex64)
    maps = estimate_coil_maps(measured)
    reference = mvue(kspace, maps[0])
    return measured, maps, reference, psnr(cg_sense(measured, maps[0]), reference)


@pytest.mark.parametrize(
    ("sampler", "options"),
    [
        ("langevin", {"steps": 60, "inner_steps": 2}),
        ("hmc", {"steps": 16, "tuning": 4, "leapfrog": 4}),
        ("pula", {"steps": 15}),
    ],
)
def test_one_sample_is_nearer_than_sense(scan, sampler, options):
    """Though the numbers of the two scanners differ by five orders of magnitude."""
    measured, maps, reference, sense = scan
    result = reconstruct(measured, maps=maps, sampler=sampler, samples=1, device="cpu", **options)
    assert psnr(result.mean[0], reference) > sense
