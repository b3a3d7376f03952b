from functools import partial

import h5py
import numpy as np
import pytest
from matplotlib.image import imread

from gadgets.commands import replay, simulate
from scoremri_core.reports.geometry import Geometry
from scoremri_core.studies.evaluate.pictures import comparison


def test_the_demo_writes_scan_images_and_picture(run, tmp_path, monkeypatch):
    """The real chain over the wire, on a small scan with few steps."""
    monkeypatch.setattr(simulate, "simulate", partial(simulate.simulate, matrix="48x64"))
    quick, full = ["samples=2", "steps=3", "device=cpu"], replay.replay

    def replayed(*paths, properties, **options):
        full(*paths, properties=[*properties, *quick], **options)

    monkeypatch.setattr(replay, "replay", replayed)
    code, out, _ = run("demo", "-o", tmp_path / "new" / "demo")
    folder = tmp_path / "new" / "demo"
    assert (code, out) == (0, f"Picture: {folder / 'demo.png'}\n")
    assert {path.name for path in folder.iterdir()} == {"scan.h5", "out.h5", "demo.png"}
    with h5py.File(folder / "out.h5") as file, h5py.File(folder / "scan.h5") as scan:
        truth = np.abs(scan["truth/image"][0])
        mean, std = (file[f"dataset/image_{n}/data"][0, 0, 0] for n in (1, 2))
    assert mean.shape == std.shape == truth.shape
    assert np.corrcoef(mean.ravel(), truth.ravel())[0, 1] > 0.95
    assert (std > 0).mean() > 0.9


def test_a_folder_that_cannot_be_created_is_refused(run, tmp_path):
    (tmp_path / "file").write_text("")
    code, _, err = run("demo", "-o", tmp_path / "file" / "demo")
    assert code == 2
    assert "cannot create a folder" in err


SAGITTAL = Geometry((61.0, 30.0, 5.0), (0, 0, 1), (0, 1, 0))


@pytest.mark.parametrize(("shape", "geometry"), [((40, 40), None), ((30, 61), SAGITTAL)])
def test_a_picture_is_drawn_with_and_without_uncertainty(tmp_path, shape, geometry):
    truth = np.abs(np.random.default_rng(0).normal(size=shape))
    for std in (0.1 * truth, np.full(shape, np.nan)):
        images = (truth, 0.5 * truth, 0.9 * truth, std)
        comparison(tmp_path / "p.png", *images, "title", sample=truth, geometry=geometry)
        picture = imread(tmp_path / "p.png")
        assert picture.shape[1] > 1000
        assert np.ptp(picture[..., :3]) == 1
