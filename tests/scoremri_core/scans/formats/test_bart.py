"""Files that BART itself writes: k-space in its layouts is read, what is none is named."""

import json
import shutil
import subprocess

import numpy as np
import pytest

from scoremri_core.errors import InputError
from scoremri_core.scans.formats.bart import read_array
from scoremri_core.scans.formats.opening import open_any
from scoremri_core.scans.gridding import fully_sampled_kspace, zero_filled_kspace

pytestmark = pytest.mark.skipif(shutil.which("bart") is None, reason="no BART")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """K-space of 24 x 24 with 3 coils, of a volume of 16 with 2, and what is made of them."""
    folder = tmp_path_factory.mktemp("bart")
    for command in (
        "phantom -k -s 3 -x 24 k",
        "phantom -3 -k -s 2 -x 16 volume",
        "scale 2 k twice",
        "join 13 k twice slices",
        "join 5 k twice echoes",
        "join 10 k twice times",
        "join 11 k twice times2",
        "join 14 k twice averages",
        "ecalib -m 2 -r 12 k maps",
        "fft -i -u 1 volume hybrid",
        "slice 0 8 hybrid plane",
        "poisson -Y 16 -Z 16 -y 1.4 -z 1.4 -C 6 mask",
        "fmac plane mask undersampled",
        "traj -r -x 24 -y 12 trajectory",
        "phantom -k -t trajectory -s 2 radial",
    ):
        subprocess.run(["bart", *command.split()], cwd=folder, check=True, capture_output=True)
    return folder


def theirs(folder, name):
    """(coil, z, y, x)."""
    return read_array(folder / f"{name}.hdr").squeeze().T


@pytest.mark.parametrize("name", ["slices", "echoes", "times", "times2"])
def test_a_second_image_is_where_its_dimension_says(folder, name):
    counter = {"slices": "slice", "echoes": "contrast"}.get(name, "repetition")
    first = theirs(folder, "k")
    with open_any(folder / name) as scan:
        limits = scan.header.encoding[0].encodingLimits
        assert getattr(limits, counter).maximum == 1
        for readout in scan:
            idx = readout.getHead().idx
            line = first[:, idx.kspace_encode_step_1]
            np.testing.assert_array_equal(readout.data, line * (1 + getattr(idx, counter)))
        assert len(scan) == 48
    if name == "slices":
        np.testing.assert_array_equal(fully_sampled_kspace(folder / name), [first, 2 * first])


def test_a_volume_has_its_partitions_along_phase_2(folder):
    volume = theirs(folder, "volume")
    with open_any(folder / "volume") as scan:
        matrix = scan.header.encoding[0].encodedSpace.matrixSize
        assert (matrix.x, matrix.y, matrix.z) == (16, 16, 16)
        for readout in scan:
            idx = readout.getHead().idx
            y, z = idx.kspace_encode_step_1, idx.kspace_encode_step_2
            np.testing.assert_array_equal(readout.data, volume[:, z, y])


def test_an_undersampled_plane_is_an_image(folder):
    """Phase 1 becomes y, phase 2 x: a Poisson-disc pattern is none of a non-Cartesian scan."""
    with open_any(folder / "undersampled") as scan:
        kspace = zero_filled_kspace(scan)[0]
    plane = read_array(folder / "undersampled.hdr").squeeze()  # (phase 1, phase 2, coil)
    np.testing.assert_array_equal(kspace, plane.transpose(2, 0, 1))
    assert 0.3 < np.mean(kspace[0] != 0) < 0.9


def test_a_whole_plane_needs_a_word(folder, tmp_path):
    for name in ("plane.cfl", "plane.hdr"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    with pytest.raises(InputError, match=r'give a plane .* a side-car with "axes"'):
        fully_sampled_kspace(tmp_path / "plane.cfl")
    sidecar = {"axes": ["y", "x"], "field_of_view": [200, 200, 5]}
    (tmp_path / "plane.json").write_text(json.dumps(sidecar))
    plane = read_array(folder / "plane.hdr").squeeze().transpose(2, 0, 1)
    np.testing.assert_array_equal(fully_sampled_kspace(tmp_path / "plane.cfl")[0], plane)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("maps", r"maps\.hdr: dimension 4 has 2 entries: sets of coil maps"),
        ("averages", r"dimension 14 has 2 entries: averages; take their mean .* `bart avg 16384`"),
        ("trajectory", "a trajectory"),
        ("radial", "a single sample in a readout .* `bart nufft`"),
        ("mask", "a sampling pattern"),
    ],
)
def test_what_is_no_cartesian_kspace_is_named(folder, name, told):
    with pytest.raises(InputError, match=told), open_any(folder / name):
        pass


def test_the_mean_of_averages_is_taken_as_advised(folder):
    command = ["bart", "avg", "16384", "averages", "mean"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    np.testing.assert_allclose(
        fully_sampled_kspace(folder / "mean")[0], 1.5 * theirs(folder, "k"), rtol=1e-6
    )
