"""K-space written by BART, and errors for its other arrays."""

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
    """Write k-space of 24 x 24 with 3 coils, of a volume of 16 with 2, and derived arrays."""
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


def bart_array(folder, name):
    """Read an array as (coil, z, y, x)."""
    return read_array(folder / f"{name}.hdr").squeeze().T


@pytest.mark.parametrize("name", ["slices", "echoes", "times", "times2"])
def test_dimensions_of_bart_become_counters(folder, name):
    counter = {"slices": "slice", "echoes": "contrast"}.get(name, "repetition")
    first = bart_array(folder, "k")
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


def test_partitions_of_a_volume_are_along_phase_2(folder):
    volume = bart_array(folder, "volume")
    with open_any(folder / "volume") as scan:
        matrix = scan.header.encoding[0].encodedSpace.matrixSize
        assert (matrix.x, matrix.y, matrix.z) == (16, 16, 16)
        for readout in scan:
            idx = readout.getHead().idx
            y, z = idx.kspace_encode_step_1, idx.kspace_encode_step_2
            np.testing.assert_array_equal(readout.data, volume[:, z, y])


def test_undersampled_plane_is_an_image(folder):
    """Phase 1 becomes y, phase 2 x: a Poisson-disc mask rules out a non-Cartesian scan."""
    with open_any(folder / "undersampled") as scan:
        kspace = zero_filled_kspace(scan)[0]
    plane = read_array(folder / "undersampled.hdr").squeeze()  # (phase 1, phase 2, coil)
    np.testing.assert_array_equal(kspace, plane.transpose(2, 0, 1))
    assert 0.3 < np.mean(kspace[0] != 0) < 0.9


def test_fully_sampled_plane_needs_a_side_car(folder, tmp_path):
    for name in ("plane.cfl", "plane.hdr"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    with pytest.raises(InputError, match=r'give a plane .* a side-car with "axes"'):
        fully_sampled_kspace(tmp_path / "plane.cfl")
    sidecar = {"axes": ["y", "x"], "field_of_view": [200, 200, 5]}
    (tmp_path / "plane.json").write_text(json.dumps(sidecar))
    plane = read_array(folder / "plane.hdr").squeeze().transpose(2, 0, 1)
    np.testing.assert_array_equal(fully_sampled_kspace(tmp_path / "plane.cfl")[0], plane)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("maps", r"maps\.hdr: dimension 4 has 2 entries: sets of coil maps"),
        (
            "averages",
            r"14 has 2 entries: averages; average them first.* `bart avg 16384`",
        ),
        ("trajectory", "a trajectory"),
        ("radial", "readouts .* of a single sample: .* `bart nufft`"),
        ("mask", "a sampling pattern"),
    ],
)
def test_arrays_other_than_cartesian_kspace_are_named(folder, name, message):
    with pytest.raises(InputError, match=message), open_any(folder / name):
        pass


def test_suggested_command_averages(folder):
    command = ["bart", "avg", "16384", "averages", "mean"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    np.testing.assert_allclose(
        fully_sampled_kspace(folder / "mean")[0], 1.5 * bart_array(folder, "k"), rtol=1e-6
    )
