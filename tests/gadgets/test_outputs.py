"""Outputs without a prior: zero-filled and classical images."""

import ismrmrd
import numpy as np
import pytest
from synthetic import acquisitions, header, letter, parsed

from gadgets.stages.accumulate import accumulate
from gadgets.stages.coil_maps import add_coil_maps
from gadgets.stages.emit import emit
from gadgets.stages.posterior import posterior
from gadgets.stages.properties import Properties
from scoremri_core.mri.fourier import to_image
from scoremri_core.mri.g_factor import g_factor
from scoremri_core.recon.memo import Memo
from scoremri_core.simulation.simulation import SimulatedScan

SHAPE = (32, 24)


class Normal:
    name = "normal"

    def denoise(self, x, sigma):
        return x / (1 + sigma.reshape(-1, 1, 1) ** 2)


ALL = ("mean", "std", "zero_filled", "classical")


def made(scan, xml, **properties):
    asked = Properties(device="cpu", samples=2, steps=2, prior=Normal(), **properties)
    frames = add_coil_maps(accumulate(scan, xml, asked), asked, Memo())
    pairs = list(posterior([list(frames)], asked))
    return pairs, list(emit(pairs, asked))


def test_reference_images_are_series_close_to_the_truth():
    truth = letter(*SHAPE)
    lines = list(acquisitions(truth, noise=0.002))
    kept = [
        a
        for a in lines
        if a.idx.kspace_encode_step_1 % 2 == 0 or 10 <= a.idx.kspace_encode_step_1 < 22
    ]
    pairs, images = made(kept, parsed(header(*SHAPE)), outputs=ALL)
    kinds = [image.meta["SequenceDescriptionAdditional"] for image in images]
    assert kinds == [f"scoremri_{name}" for name in ALL]
    assert [image.image_series_index for image in images] == [1, 2, 3, 4]
    _, _, plain, sense = (image.data[0, 0] for image in images)
    (frame, _) = pairs[0]
    maps = frame.calibrated.maps[0]
    expected = np.abs(np.sum(maps.conj() * to_image(frame.kspace.array), axis=0))
    np.testing.assert_allclose(plain, expected, atol=1e-5)
    error = {
        name: np.linalg.norm(image - truth) for name, image in (("sense", sense), ("plain", plain))
    }
    assert error["sense"] < 0.7 * error["plain"]
    assert images[3].meta["ImageComment"] == "classical reconstruction, no prior"
    acceleration = float(images[0].meta["acceleration"])
    assert acceleration == pytest.approx(SHAPE[0] / len(kept), rel=1e-3)


def test_reference_images_of_a_volume_are_on_its_grid():
    scan = SimulatedScan((16, 16), 3, partitions=4, snr=50)
    _, images = made(scan, scan.header, outputs=ALL)
    mean, _, plain, sense = (image.data[0] for image in images)
    assert mean.shape == plain.shape == sense.shape
    truth = np.abs(scan.image)
    for image in (plain, sense):
        assert np.corrcoef(image.ravel(), truth.ravel())[0, 1] > 0.95


@pytest.mark.parametrize("sampler", ["posterior", "none"])
def test_frame_without_samples_has_all_other_outputs(sampler, caplog):
    """Without calibration lines or sampler, `not_sent` lists the missing outputs."""
    lines = range(0, SHAPE[0], 2) if sampler == "posterior" else range(SHAPE[0])
    scan = list(acquisitions(letter(*SHAPE), steps=lines, noise=0.002))
    xml = parsed(header(*SHAPE))
    outputs = ("mean", "std", "classical", "zero_filled", "samples", "phase", "complex_std")
    _, images = made(scan, xml, outputs=outputs, sampler=sampler)
    assert [image.image_series_index for image in images] == [1, 3, 4, 6]
    assert {image.meta["not_sent"] for image in images} == {"std,samples,complex_std"}
    mean, classical = (image.data for image in images[:2])
    np.testing.assert_array_equal(mean, classical)
    assert ("is sent without std, samples, complex_std" in caplog.text) == (sampler == "posterior")
    _, images = made(scan, xml, outputs=("classical",), sampler=sampler)
    assert [image.image_series_index for image in images] == [3]
    _, images = made(scan, xml, outputs=("std",), sampler=sampler)
    assert [image.image_series_index for image in images] == [1]  # one image for the frame


def test_complex_mean_quantiles_coil_maps_and_g_factor_are_series():
    lines = [
        a
        for a in acquisitions(letter(*SHAPE), noise=0.002)
        if a.idx.kspace_encode_step_1 % 2 == 0 or 10 <= a.idx.kspace_encode_step_1 < 22
    ]
    names = ("mean", "std", "complex_mean", "quantiles", "coil_maps", "g_factor")
    pairs, images = made(lines, parsed(header(*SHAPE)), outputs=names)
    ((frame, result),) = pairs
    of = {name: [i for i in images if i.image_series_index == s] for s, name in enumerate(names, 1)}
    assert [len(of[name]) for name in names] == [1, 1, 1, 2, frame.kspace.coils, 1]
    assert [image.image_index for image in of["quantiles"]] == [1, 2]
    (complex_mean,) = of["complex_mean"]
    assert complex_mean.image_type == ismrmrd.IMTYPE_COMPLEX
    np.testing.assert_array_equal(complex_mean.data[0], result.mean)
    low, high = (image.data[0] for image in of["quantiles"])
    mean = of["mean"][0].data[0]
    assert ((low >= 0) & (low <= mean) & (mean <= high)).all()
    maps = np.stack([image.data[0, 0] for image in of["coil_maps"]])
    np.testing.assert_array_equal(maps, frame.calibrated.maps[0])
    noise = result.sampling[0].noise_covariance
    expected = g_factor(maps, frame.kspace.mask, noise)
    np.testing.assert_allclose(of["g_factor"][0].data[0, 0], expected, rtol=0.05)
    assert "dimensionless" in of["g_factor"][0].meta["units"]


def test_frame_without_coil_maps_lists_the_outputs_that_need_them(caplog):
    lines = list(acquisitions(letter(*SHAPE), steps=range(0, SHAPE[0], 2), noise=0.002))
    outputs = ("mean", "quantiles", "coil_maps", "g_factor", "complex_mean")
    _, images = made(lines, parsed(header(*SHAPE)), outputs=outputs)
    assert [image.image_series_index for image in images] == [1, 6]
    assert {image.meta["not_sent"] for image in images} == {"quantiles,coil_maps,g_factor"}


def test_g_factor_of_a_volume_is_on_its_grid():
    scan = SimulatedScan((16, 16), 3, partitions=4, snr=50)
    _, images = made(scan, scan.header, outputs=("mean", "g_factor", "coil_maps"))
    mean, g = (image.data[0] for image in images)
    assert g.shape == mean.shape
    np.testing.assert_allclose(g[g > 0], 1, atol=0.3)
    assert images[0].meta["not_sent"] == "coil_maps"
