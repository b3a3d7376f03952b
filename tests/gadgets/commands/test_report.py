"""Reports of files, and how they look in a browser where there is one."""

import html
import json
import re
import shutil
import subprocess
from functools import cache

import h5py
import numpy as np
import pytest
from PIL import Image

from gadgets.commands import main
from gadgets.commands.replay import report_outputs

BROWSER = shutil.which("chromium") or shutil.which("google-chrome") or shutil.which("chrome")
browser = pytest.mark.skipif(BROWSER is None, reason="no Chromium on the PATH")
QUICK = [word for each in ("samples=3", "steps=2", "device=cpu") for word in ("-p", each)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A replayed scan of two slices with its page: scan.h5, images.h5, page.html."""
    place = tmp_path_factory.mktemp("report")
    made = ["--matrix", "48x40", "--coils", "3", "--slices", "2", "-R", "2", "--calibration", "16"]
    written = ["-o", place / "images.h5", "--report", place / "page.html"]
    for words in (
        ["simulate", "-o", place / "scan.h5", *made],
        ["replay", place / "scan.h5", *written, *QUICK],
    ):
        with pytest.raises(SystemExit) as end:
            main([str(word) for word in words])
        assert end.value.code == 0
    return place


def facts(text, title):
    """Return a fact of each frame on a page."""
    return [html.unescape(w) for w in re.findall(f"<dt>{title}</dt><dd>(.*?)</dd>", text)]


def test_a_replay_writes_a_complete_report(folder):
    text = (folder / "page.html").read_text()
    assert re.findall("<h2>(.*?)</h2>", text) == [
        "All frames", "slice 0", "slice 1", "Training data of the prior default",
    ]  # fmt: skip
    titles = ["Posterior mean", "Posterior sd", "Relative sd", "Posterior samples", "Zero-filled"]
    assert re.findall("<figcaption><b>(.*?)</b>", text) == 2 * [
        *titles,
        "Classical (regularised SENSE)",
    ]
    assert text.count("sample <output>1</output> of 3") == 2
    assert "For research only" in text
    with h5py.File(folder / "images.h5") as file:
        assert set(file["dataset"]) == {f"image_{n}" for n in (1, 2, 3, 4, 5)}
        words = file["dataset/image_1/attributes"][0]
    (kept,) = re.findall("<name>acceleration</name><value>(.*?)</value>", words.decode())
    assert facts(text, "Acceleration")[0].startswith(f"{float(kept):.2f}:")
    assert facts(text, "Plane") == ["axial", "axial"]
    assert facts(text, "Sampling")[0].startswith("3 samples by posterior, 2 denoiser evaluations")


def test_outputs_of_the_chain_come_first():
    assert report_outputs({"std,phase"}) == "std,phase,mean,samples,zero_filled,classical"
    assert report_outputs(set()) == "mean,std,samples,zero_filled,classical"


def test_report_of_a_file_equals_that_of_replay(run, folder, tmp_path):
    code, out, _ = run("report", folder / "images.h5", "-o", tmp_path / "again.html")
    assert (code, out) == (0, f"Report: {tmp_path / 'again.html'}\n")
    assert (tmp_path / "again.html").read_text() == (folder / "page.html").read_text()
    code, _, err = run("report", folder / "images.h5", "-o", tmp_path / "again.html", "--frames", 1)
    assert code == 2
    assert "again.html: already exists; --overwrite replaces it" in err
    asked = ("--overwrite", "--frames", 1)
    assert run("report", folder / "images.h5", "-o", tmp_path / "again.html", *asked)[0] == 0
    text = (tmp_path / "again.html").read_text()
    assert "2 frames, 1 of them shown, evenly spaced" in text
    assert [path.name for path in tmp_path.iterdir()] == ["again.html"]


def test_an_existing_report_is_refused_before_the_computation(run, folder, tmp_path):
    (tmp_path / "page.html").write_text("mine")
    asked = ("-o", tmp_path / "out.h5", "--report", tmp_path / "page.html")
    code, _, err = run("replay", folder / "scan.h5", *asked)
    assert code == 2
    assert "page.html: already exists" in err
    assert (tmp_path / "page.html").read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]


def _absent(file):
    return ("--group", "other"), "no group 'other' (groups of this file: dataset)"


def _foreign(file):
    for name in file["dataset"]:
        file[f"dataset/{name}/attributes"][:] = ""
    return (), "no images of scoremri in 'dataset'"


def _torn(file):
    file["dataset/image_1/attributes"][0] = "<ismrmrdMeta><meta>"
    return (), "image_1, image 0: invalid ISMRMRD attributes"


def _part(file):
    del file["dataset/image_2/header"]
    return (), "image_2 lacks data, header or attributes"


def _no_prior(file):
    return ("--prior", "absent.safetensors"), "absent.json: the card of the weights"


@pytest.mark.parametrize("spoil", [_absent, _foreign, _torn, _part, _no_prior])
def test_bad_files_are_one_sentence_and_leave_nothing(run, folder, tmp_path, spoil):
    path = tmp_path / "images.h5"
    shutil.copy(folder / "images.h5", path)
    with h5py.File(path, "r+") as file:
        asked, sentence = spoil(file)
    code, _, err = run("report", path, *asked)
    assert code == 2
    assert sentence in err
    assert "Traceback" not in err
    assert [each.name for each in tmp_path.iterdir()] == ["images.h5"]


def test_a_classical_frame_has_a_reason(run, folder, tmp_path):
    made = ["--matrix", "40x32", "--coils", "3", "-R", "2", "--calibration", "0"]
    assert run("simulate", "-o", tmp_path / "scan.h5", *made)[0] == 0
    asked = ("-o", tmp_path / "out.h5", "--report", tmp_path / "page.html")
    assert run("replay", tmp_path / "scan.h5", *asked, "-p", "sampler=none")[0] == 0
    text = (tmp_path / "page.html").read_text()
    assert "Not a posterior mean:" in text
    assert "because: " in text
    assert re.findall("<figcaption><b>(.*?)</b>", text) == [
        "Classical image",
        "Zero-filled",
        "Classical (regularised SENSE)",
    ]
    assert "Training data of the prior" not in text


# What a page of the width asks: does it fit, are its pictures there, does the slider flip them?
PROBE = """<body style="margin:0"><iframe src="page.html" style="width:%dpx;height:900px;border:0">
</iframe><pre id="state"></pre><script>
onload = () => {
  const page = document.querySelector("iframe").contentDocument, view = page.defaultView;
  const shown = () => [...page.querySelectorAll("figure:has(input) svg")]
    .map((svg) => view.getComputedStyle(svg).display);
  const before = shown(), slider = page.querySelector(".flip input");
  slider.value = 3;
  slider.dispatchEvent(new view.Event("input", {bubbles: true}));
  const boxes = [...page.querySelectorAll("svg.on")].map((svg) => svg.getBoundingClientRect());
  const [black, white] = page.querySelectorAll(".window input");
  const move = (end, value) => {
    end.value = value;
    end.dispatchEvent(new view.Event("input", {bubbles: true}));
  };
  const ends = () => [...page.querySelectorAll("figure:first-child .scale span")]
    .map((each) => each.textContent);
  const whole = ends();
  move(white, 60);
  move(black, 20);
  const filters = [...page.querySelectorAll("svg.on image")]
    .map((image) => view.getComputedStyle(image).filter);
  const window_ = ends();
  move(white, 10);
  document.querySelector("#state").textContent = JSON.stringify({
    over: page.documentElement.scrollWidth - view.innerWidth,
    columns: new Set(boxes.map((box) => Math.round(box.left))).size,
    shapes: boxes.map((box) => box.width / box.height), before, after: shown(),
    label: page.querySelector(".flip output").value,
    whole, window: window_, filters, pushed: black.value,
  });
};
</script>"""


@cache
def _look(*arguments):
    common = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
    done = subprocess.run(
        [BROWSER, *common, *arguments], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@browser
@pytest.mark.parametrize(("width", "columns"), [(1280, 3), (400, 1)])
def test_layout_and_interaction_in_a_browser(folder, width, columns):
    probe = folder / f"probe{width}.html"
    probe.write_text(PROBE % width)
    text = _look(
        "--allow-file-access-from-files", "--dump-dom", "--window-size=1400,1000", probe.as_uri()
    )
    found = json.loads(html.unescape(re.search('<pre id="state">(.*?)</pre>', text)[1]))
    assert found["over"] <= 0
    assert found["columns"] == columns
    with h5py.File(folder / "images.h5") as file:
        x, y, _ = file["dataset/image_1/header"][0]["field_of_view"]
    np.testing.assert_allclose(found["shapes"], x / y, rtol=0.01)
    assert found["before"] == ["block", "none", "none"] * 2
    assert found["after"] == ["none", "none", "block", "block", "none", "none"]
    assert found["label"] == "3"
    # the window of all greys, and of no colours: 20 % is black, 60 % white
    grey, sd, relative, *others = found["filters"][: len(found["filters"]) // 2]
    assert sd == relative == "none"
    assert set(others) == {grey}
    brightness, contrast = map(float, re.findall(r"\(([\d.]+)\)", grey))
    for share, expected in ((0.2, 0), (0.4, 0.5), (0.6, 1)):
        assert (share * brightness - 0.5) * contrast + 0.5 == pytest.approx(expected, abs=1e-3)
    ends, (low, high, *_) = [float(end) for end in found["whole"]], map(float, found["window"])
    assert ends[0] == 0
    assert [low, high] == pytest.approx([0.2 * ends[1], 0.6 * ends[1]], rel=0.01)
    assert found["pushed"] == "9"


@browser
def test_light_dark_and_print_styles(folder):
    page = (folder / "page.html").as_uri()
    ground = {}
    for name, scheme in (("light", 1), ("dark", 0)):
        picture = folder / f"{name}.png"
        setting = f"--blink-settings=preferredColorScheme={scheme}"
        _look(setting, f"--screenshot={picture}", "--window-size=800,600", page)
        ground[name] = np.asarray(Image.open(picture).convert("L"))
    assert ground["light"][2, 2] > 240
    assert ground["dark"][2, 2] < 40
    for shade in ground.values():  # letters stand out from the page in both
        assert np.ptp(shade[20:50, 20:400].astype(int)) > 150
    _look(f"--print-to-pdf={folder / 'page.pdf'}", page)
    assert (folder / "page.pdf").read_bytes().startswith(b"%PDF")
