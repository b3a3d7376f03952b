import h5py
import numpy as np
import pytest

from scoremri_core.mri.fourier import to_image
from scoremri_core.scans.files import open_scan
from scoremri_core.scans.gridding import fully_sampled_kspace
from scoremri_core.score.metrics import psnr


def test_the_truth_equals_a_full_reconstruction(run, tmp_path):
    path = tmp_path / "scan.h5"
    arguments = ["--matrix", "64x51", "--coils", "6", "--slices", "2", "--snr", "200"]
    assert run("simulate", "-o", path, *arguments, "--contrast", "t1")[0] == 0
    with h5py.File(path) as file:
        truth, maps = file["truth/image"][:], file["truth/coil_maps"][:]
        assert file["truth/noise_covariance"].shape == (6, 6)
        assert (truth.dtype, truth.shape, maps.shape) == (np.complex64, (2, 64, 51), (2, 6, 64, 51))
    combined = np.sum(maps.conj() * to_image(fully_sampled_kspace(path)), axis=1)
    assert all(psnr(c, t) > 45 for c, t in zip(combined, truth, strict=True))


def test_an_accelerated_scan_equals_an_undersampled_full_one(run, tmp_path):
    common = ["--matrix", "32", "--coils", "2", "--seed", "3"]
    full, thin, direct = (tmp_path / f"{name}.h5" for name in ("full", "thin", "direct"))
    pattern = ["-R", "3", "--calibration", "8", "--mask", "poisson", "--seed", "3"]
    run("simulate", "-o", full, *common)
    run("undersample", full, "-o", thin, *pattern)
    assert run("simulate", "-o", direct, *common, *pattern)[0] == 0
    with open_scan(thin) as one, open_scan(direct) as other:
        assert list(one) == list(other)
        assert one.header == other.header


def test_every_kind_of_scan_is_simulated(run, tmp_path):
    path = tmp_path / "scan.h5"
    counters = dict.fromkeys(("repetition", "phase", "set", "average", "slice"), 2)
    counted = [f"--{name}s={count}" for name, count in counters.items()]
    kinds = ["--interleaved", "--alternating", "--contrast=t1,flair", "--segments=3"]
    places = ["--matrix=16", "--coils=2", "--recon-matrix=32x24", "--fov=150x180"]
    partial = ["--phase-oversampling=1.5", "--partial-fourier=0.75", "--partial-echo=0.75"]
    reference = ["-R", 2, "--calibration=8", "--calibration-mode=external", "--calibration-last"]
    arguments = (*counted, *kinds, *places, *partial, *reference)
    code, _, err = run("simulate", "-o", path, *arguments)
    assert code == 0, err
    with open_scan(path) as scan:
        heads = scan.heads()
        assert len(scan.header.encoding) == 2
        limits = scan.header.encoding[0].encodingLimits
        size = scan.header.encoding[0].reconSpace.matrixSize
        assert (size.y, size.x) == (32, 24)
        assert scan.header.encoding[0].encodedSpace.fieldOfView_mm.y == 225
    imaging = heads[(heads["flags"] & np.uint64(1 << 18 | 1 << 19)) == 0]
    for name, count in {**counters, "contrast": 2, "segment": 3}.items():
        assert set(imaging["idx"][name]) == set(range(count))
        assert getattr(limits, name).maximum == count - 1
    assert set(imaging["idx"]["kspace_encode_step_1"]) == set(range(6, 24, 2))
    assert set(imaging["number_of_samples"]) == {24}
    assert heads["encoding_space_ref"][-1] == 1


def test_a_volume_is_replayed_in_the_order_of_its_partitions(run, tmp_path):
    scan, thin, images = (tmp_path / f"{name}.h5" for name in ("scan", "thin", "images"))
    run("simulate", "-o", scan, "--matrix", "24x20", "--coils", 3, "--partitions", 14)
    pattern = ["-R", 2, "--axis", "both", "--mask", "poisson", "--calibration", 12]
    assert run("undersample", scan, "-o", thin, *pattern)[0] == 0
    assert run("replay", thin, "-o", images, "-p", "sampler=none")[0] == 0
    with h5py.File(scan) as file:
        truth = file["truth/image"][:]
    with h5py.File(images) as file:
        (image,) = file["dataset/image_1/data"][:, 0]
        attributes = file["dataset/image_1/attributes"][0].decode()
    assert image.shape == truth.shape == (14, 24, 20)
    assert psnr(image, truth) > 20
    assert all(psnr(image, truth) > psnr(image, np.roll(truth, s, 0)) + 2 for s in (-1, 1))
    assert "fallback" not in attributes


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--matrix", "12"], "matrix 12: expected 16 to 1024"),
        (["--matrix", "64x"], "matrix '64x': expected N, or YxX"),
        (["--coils", "0"], "coils 0"),
        (["--fov", "wide"], "fov 'wide': expected N, or YxX"),
        (["--partial-fourier", "0.4"], "partial fourier 0.4"),
        (["-R", "2", "--calibration-mode", "none"], "calibration mode 'none'"),
        (["--contrast", "pd"], "contrast 'pd': expected one of t1, t2, flair"),
        (["--mask", "spiral", "-R", "2"], "mask 'spiral'"),
    ],
)
def test_refusals_leave_nothing_behind(run, tmp_path, arguments, words):
    code, _, err = run("simulate", "-o", tmp_path / "scan.h5", *arguments)
    assert code == 2
    assert words in err
    assert list(tmp_path.iterdir()) == []
