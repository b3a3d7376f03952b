import nibabel
import numpy as np
import pytest

from scoremri_core.scans.files import write_scan
from scoremri_core.simulation.simulation import SimulatedScan

pytestmark = pytest.mark.filterwarnings("default")  # of MONAI's imports


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Two volumes with their splits, and a scan of other anatomy."""
    folder = tmp_path_factory.mktemp("compare")
    y, x = np.mgrid[-1:1:48j, -1:1:48j]
    disc = (y**2 + x**2 < 0.6) * (1 + 0.4 * np.sin(7 * x) * np.cos(5 * y))
    for name in ("a", "b"):
        volume = np.stack([disc * (1 + 0.1 * i) for i in range(6)], axis=-1).astype(np.float32)
        nibabel.save(nibabel.Nifti1Image(volume, np.eye(4)), folder / f"{name}.nii.gz")
    (folder / "manifest.csv").write_text(
        "file,subject,contrast,split,slice_axis\na.nii.gz,a,T1W,train,2\nb.nii.gz,b,T1W,test,2\n"
    )
    scan = SimulatedScan(matrix=(48, 48), coils=4)
    write_scan(folder / "leg.h5", scan.header, scan)
    return folder


def test_a_run_is_complete_and_resumed_without_repetition(run, data, tmp_path, monkeypatch):
    arguments = (
        "compare", "--data", data, "-o", tmp_path, "--preset", "smoke", "--slices", 1,
        "--network", "updnet", "--anatomy", data / "leg.h5", "--device", "cpu",
    )  # fmt: skip
    code, printed, _ = run(*arguments)
    assert code == 0
    assert printed.strip() == (tmp_path / "report.md").read_text().strip()
    for message in ("UPDNet", "posterior mean", "leg.h5", "± ", "DDRM", "paired"):
        assert message in printed or message == "± "
    for name in ("curves.png", "panels.png", "samples.png", "zoom.png", "samples.gif"):
        assert (tmp_path / name).stat().st_size > 1000

    def work(*_, **__):
        raise AssertionError("nothing is to be done again")

    monkeypatch.setattr("scoremri_core.studies.compare.scores.Undersampled.of", work)
    monkeypatch.setattr("scoremri_core.studies.compare.gallery.Gallery.draw_samples", lambda *_: [])
    again = run(*arguments)
    assert again[:2] == (0, printed)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--anatomy", "no_such_anatomy"], "no_such_anatomy"),
        (["--anatomy", "no_such.nii.gz"], "no_such.nii.gz"),
        (["--scans", "no_such_scans"], "no_such_scans"),
        (["--preset", "huge"], "huge"),
        (["--network", "resnet"], "resnet"),
        (["--data", "no_such_data"], "no_such_data"),
        (["--prior", "no_such_prior"], "no_such_prior"),
    ],
)
def test_bad_input_is_one_sentence(run, data, tmp_path, monkeypatch, arguments, reason):
    def work(*_, **__):
        raise AssertionError("nothing is to be trained")

    monkeypatch.setattr("scoremri_core.studies.methods.networks._loss", work)
    code, _, log = run(
        "compare", "--data", data, "-o", tmp_path / "out", "--preset", "smoke",
        "--network", "modl", *arguments,
    )  # fmt: skip
    assert code == 2
    assert reason in log.splitlines()[-1]
    assert not (tmp_path / "out" / "rows.jsonl").exists()


def test_a_missing_package_names_its_extra(run, data, tmp_path, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "monai.apps.reconstruction.networks.blocks.varnetblock", None)
    code, _, log = run("compare", "--data", data, "-o", tmp_path / "out", "--network", "varnet")
    assert code == 2
    assert "`compare`" in log.splitlines()[-1]
    assert not (tmp_path / "out").exists()
