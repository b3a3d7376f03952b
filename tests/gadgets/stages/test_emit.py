"""Numbers, scale and attributes of images."""

from dataclasses import replace
from importlib.metadata import version

import ismrmrd
import numpy as np
import pytest
from ismrmrd import xsd
from synthetic import acquisitions, header, letter, parsed
from xsdata.models.datatype import XmlDate

from gadgets.stages.accumulate import accumulate
from gadgets.stages.emit import emit
from gadgets.stages.frame import Frame
from gadgets.stages.properties import Properties
from scoremri_core import reconstruct
from scoremri_core.kspace import KSpace
from scoremri_core.simulation.simulation import SimulatedScan

SHAPE = (24, 20)
OUTPUTS = ("mean", "std", "samples", "phase")


@pytest.fixture(scope="module")
def result():
    """Return a sampled reconstruction of one slice."""
    (frame,) = accumulate(
        acquisitions(letter(*SHAPE), noise=0.01), parsed(header(*SHAPE)), _plain()
    )
    return reconstruct(frame.kspace.array, samples=2, steps=2, device="cpu")


def _plain(**properties):
    return Properties(device="cpu", **properties)


def frame(**counters):
    head = ismrmrd.AcquisitionHeader()
    for name, value in counters.items():
        setattr(head.idx, name, value)
    kspace = KSpace.of(np.ones((1, *SHAPE), np.complex64))
    return Frame(kspace, head, SHAPE, (1.0, 1.0), (60.0, 48.0, 5.0), index=0)


def brighter(result, factor):
    return replace(
        result,
        mean=factor * result.mean,
        std=factor * result.std,
        samples=factor * result.samples,
    )


def sent(items, xml=None, **properties):
    images = list(emit(items, Properties(**properties), xml))
    for image in images:
        image.meta = ismrmrd.Meta.deserialize(image.meta.serialize())  # as received
    return images


def test_all_images_but_phase_have_one_factor(result):
    scan = [(frame(slice=i), brighter(result, factor)) for i, factor in enumerate((1, 3))]
    plain = sent(scan, outputs=OUTPUTS)
    scaled = sent(scan, outputs=OUTPUTS, scale="auto")
    factor = 2048 / np.percentile(plain[0].data, 99.5)
    for before, after in zip(plain, scaled, strict=True):
        assert before.getHead().image_series_index == after.image_series_index
        if before.image_type == ismrmrd.IMTYPE_PHASE:
            np.testing.assert_array_equal(after.data, before.data)
            assert "GADGETRON_ScaleRatio" not in after.meta
            assert after.meta["units"].startswith("pixels and window: radians;")
            continue
        ratio = float(after.meta["GADGETRON_ScaleRatio"])
        assert ratio == pytest.approx(factor, rel=1e-6)
        np.testing.assert_allclose(after.data, before.data * ratio, rtol=1e-6)
        for name in ("WindowCenter", "WindowWidth"):
            window = float(after.meta[name])
            assert window == pytest.approx(ratio * float(before.meta[name]), rel=1e-5)
            assert after.meta[f"GADGETRON_{name}"] == str(round(window))
        for name in ("sigma_n", "sigma_thermal", "scale"):
            assert after.meta[name] == before.meta[name]
        assert after.meta["units"] == (
            "pixels and window: k-space times GADGETRON_ScaleRatio; "
            "sigma_n, sigma_thermal and scale: k-space"
        )
    assert np.percentile(scaled[0].data, 99.5) == pytest.approx(2048, rel=1e-5)
    assert scaled[0].data.max() <= 32767


def test_scaled_integers_resolve_mean_and_sd(result):
    """Quantise as FloatToUIntGadget, with and without the factor."""
    for scale, kept in (("off", False), ("auto", True)):
        mean, std = sent([(frame(), brighter(result, 1e-4))], scale=scale)
        ratio = float(mean.meta.get("GADGETRON_ScaleRatio", 1))
        for image in (mean, std):
            whole = np.clip(np.rint(image.data), 0, 32767) / ratio
            error = np.abs(whole - image.data / ratio).max()
            assert (error < 0.01 * mean.data.max() / ratio) == kept


def test_number_is_the_factor(result):
    (plain, _), (scaled, _) = (sent([(frame(), result)], scale=s) for s in ("off", 10.0))
    np.testing.assert_allclose(scaled.data, 10 * plain.data, rtol=1e-6)
    assert scaled.meta["GADGETRON_ScaleRatio"] == "10"


def test_frame_without_signal_does_not_set_the_factor(result):
    first, _, second, _ = sent([(frame(), brighter(result, 0)), (frame(), result)], scale="auto")
    assert "GADGETRON_ScaleRatio" not in first.meta
    assert not first.data.any()
    assert np.percentile(second.data, 99.5) == pytest.approx(2048, rel=1e-5)


def test_frames_beyond_15_bits_are_reported_once(result, caplog):
    scan = [(frame(slice=i), brighter(result, factor)) for i, factor in enumerate((1, 100, 100))]
    sent(scan, scale="auto")
    (message,) = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert "slice 1" in message
    assert "set scale to a number" in message


def test_attributes_of_gadgetron_are_complete(result):
    images = sent([(frame(), result)], outputs=OUTPUTS)
    roles = []
    for image in images:
        meta = image.meta
        assert int(meta["GADGETRON_ImageNumber"]) == image.image_index
        assert meta["GADGETRON_SeqDescription"] == meta["SeriesDescription"]
        assert meta["GADGETRON_ImageComment"] == meta["ImageComment"]
        roles.append((meta["GADGETRON_DataRole"], image.image_index))
    assert len(set(map(str, roles))) == len(images)  # file names of DicomFinishGadget
    assert roles[:2] == [("Image", 1), ("STD_MAP", 1)]


def test_comment_holds_the_factor(result):
    mean, _ = sent([(frame(), result)], scale=10.0)
    assert mean.meta["GADGETRON_ImageComment"] == [mean.meta["ImageComment"], "x10"]


def test_window_narrower_than_integers_is_left_out(result):
    mean, phase = sent([(frame(), brighter(result, 1e-4))], outputs=("mean", "phase"))
    for image in (mean, phase):
        assert "WindowWidth" in image.meta
        assert "GADGETRON_WindowWidth" not in image.meta
        assert "GADGETRON_WindowCenter" not in image.meta


def test_image_numbers_match_gadgetron_in_any_order_of_frames(result):
    """As ImageArraySendMixin: repetition, set, phase, contrast, slice, slowest first."""
    names = ("repetition", "set", "phase", "contrast", "slice")
    counts = (2, 2, 3, 2, 4)
    scan = SimulatedScan((16, 16), 1, repetitions=2, sets=2, phases=3, contrast="t1,t2", slices=4)
    every = list(np.ndindex(*counts))
    np.random.default_rng(0).shuffle(every)
    frames = [frame(**dict(zip(names, map(int, each), strict=True))) for each in every]
    images = sent([(each, result) for each in frames], scan.header, outputs=("mean",))
    expected = [int(np.ravel_multi_index(tuple(each), counts)) + 1 for each in every]
    assert [image.image_index for image in images] == expected


def test_image_numbers_are_unique_despite_wrong_limits(result):
    scan = SimulatedScan((16, 16), 1, repetitions=3)
    frames = [frame(repetition=r, slice=s) for r in range(3) for s in range(4)]
    images = sent([(each, result) for each in frames], scan.header, outputs=("mean",))
    numbers = [image.image_index for image in images]
    assert numbers[:4] == [1, 2, 3, 4]
    assert len(set(numbers)) == 12


def test_program_protocol_and_settings_are_attributes(result):
    xml = parsed(header(*SHAPE))
    xml.measurementInformation = xsd.measurementInformationType(
        patientPosition=xsd.patientPositionType.FFS, protocolName="t2_tse"
    )
    xml.studyInformation = xsd.studyInformationType(studyDate=XmlDate(2024, 5, 6))
    meta = sent([(frame(), result)], xml, maps=1)[0].meta
    assert meta["scoremri_version"] == version("scoremri")
    assert (meta["protocol"], meta["scan_date"]) == ("t2_tse", "2024-05-06")
    assert (meta["patient_position"], meta["maps"], meta["noise"]) == ("FFS", "1", "auto")
    without = sent([(frame(), result)])[0].meta
    assert "protocol" not in without
    assert "scan_date" not in without
