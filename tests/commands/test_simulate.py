import h5py
import numpy as np
import pytest

from scoremri_core.fourier import to_image
from scoremri_core.gridding import fully_sampled_kspace
from scoremri_core.metrics import psnr
from scoremri_core.scans import open_scan


def test_the_truth_lies_in_the_file_and_is_what_a_full_reconstruction_returns(run, tmp_path):
    path = tmp_path / "scan.h5"
    arguments = ["--matrix", "64x51", "--coils", "6", "--slices", "2", "--snr", "200"]
    assert run("simulate", "-o", path, *arguments, "--contrast", "t1")[0] == 0
    with h5py.File(path) as file:
        truth, maps = file["truth/image"][:], file["truth/coil_maps"][:]
        assert file["truth/noise_covariance"].shape == (6, 6)
        assert (truth.dtype, truth.shape, maps.shape) == (np.complex64, (2, 64, 51), (2, 6, 64, 51))
    combined = np.sum(maps.conj() * to_image(fully_sampled_kspace(path)), axis=1)
    assert all(psnr(c, t) > 45 for c, t in zip(combined, truth, strict=True))


def test_an_accelerated_scan_is_an_undersampled_full_one(run, tmp_path):
    common = ["--matrix", "32", "--coils", "2", "--seed", "3"]
    full, thin, direct = (tmp_path / f"{name}.h5" for name in ("full", "thin", "direct"))
    pattern = ["-R", "3", "--calibration", "8", "--mask", "poisson", "--seed", "3"]
    run("simulate", "-o", full, *common)
    run("undersample", full, "-o", thin, *pattern)
    assert run("simulate", "-o", direct, *common, *pattern)[0] == 0
    with open_scan(thin) as one, open_scan(direct) as other:
        assert list(one) == list(other)
        assert one.header == other.header


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--matrix", "12"], "matrix 12: expected 16 to 1024"),
        (["--matrix", "64x"], "matrix '64x': expected N, or YxX"),
        (["--coils", "0"], "coils 0"),
        (["--contrast", "pd"], "contrast 'pd': expected one of t1, t2, flair"),
        (["--mask", "spiral", "-R", "2"], "mask 'spiral'"),
    ],
)
def test_refusals_leave_nothing_behind(run, tmp_path, arguments, words):
    code, _, err = run("simulate", "-o", tmp_path / "scan.h5", *arguments)
    assert code == 2
    assert words in err
    assert list(tmp_path.iterdir()) == []
