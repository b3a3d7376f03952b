"""Reports of files, and how they look in a browser where there is one."""

import json
import queue
import re
import shutil
import subprocess
import threading
from functools import cache, partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import h5py
import numpy as np
import pytest
from PIL import Image

import scoremri_core
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


def frames(text):
    """Return the frames of a page, as its viewer reads them."""
    return json.loads(re.search('id="frames-data">(.*?)</script>', text)[1])["frames"]


def titles(frame):
    return [panel["title"] for panel in frame["panels"]]


def test_a_replay_writes_a_complete_report(folder):
    text = (folder / "page.html").read_text()
    assert re.findall("<h2>(.*?)</h2>", text) == ["Run", "", "All frames", "Prior default"]
    shown = frames(text)
    assert [frame["name"] for frame in shown] == ["slice 0", "slice 1"]
    for frame in shown:
        assert titles(frame) == [
            "Posterior mean", "Posterior sd", "Relative sd", "Posterior samples", "Zero-filled",
            "Classical (regularised SENSE)",
        ]  # fmt: skip
        assert [len(panel["images"]) for panel in frame["panels"]] == [1, 1, 1, 3, 1, 1]
    assert "For research only" in text
    with h5py.File(folder / "images.h5") as file:
        assert set(file["dataset"]) == {f"image_{n}" for n in (1, 2, 3, 4, 5)}
        words = file["dataset/image_1/attributes"][0]
    (kept,) = re.findall("<name>acceleration</name><value>(.*?)</value>", words.decode())
    assert shown[0]["words"]["Acceleration"].startswith(f"{float(kept):.2f}:")
    assert shown[0]["words"]["Plane"] == "axial"
    sampling = "3 samples by posterior, 2 denoiser evaluations each, prior default, seed 0"
    assert shown[0]["words"]["Sampling"] == sampling
    run = dict(re.findall("<dt>(.*?)</dt><dd>(.*?)</dd>", text))
    assert run["Program"] == f"scoremri {scoremri_core.__version__}"
    assert run["Protocol"] == "head phantom t2"
    assert (run["Patient position"], run["Scan date"]) == ("HFS", "unknown")
    assert (run["Samples"], run["Noise levels"], run["Seed"]) == ("3", "2", "0")
    assert run["Outputs"] == "mean, std, samples, zero_filled, classical"


def test_series_that_the_report_does_not_know_are_shown(run, folder, tmp_path):
    path = tmp_path / "images.h5"
    shutil.copy(folder / "images.h5", path)
    rng = np.random.default_rng(0)
    maps = (rng.normal(size=(2, 2, 1, 40, 48)) + 1j).astype(np.complex64)  # two channels
    with h5py.File(path, "r+") as file:
        for number, data in (("8", maps), ("9", -np.abs(maps[:, :1]))):
            group = file.create_group(f"dataset/image_{number}")
            head = file["dataset/image_1/header"][:]
            head["image_series_index"] = int(number)
            group["header"] = head
            group["data"] = data
            kept = file["dataset/image_1/attributes"][:]
            new = [
                each.replace(b"scoremri_mean", b"scoremri_new" + number.encode()) for each in kept
            ]
            group.create_dataset("attributes", data=new, dtype=kept.dtype)
    assert run("report", path)[0] == 0
    for frame in frames(path.with_suffix(".html").read_text()):
        *_, first, second = frame["panels"]
        assert (len(first["images"]), len(second["images"])) == (2, 1)
        assert first["window"][0] == 0
        assert second["window"][0] == -second["window"][1]


def test_a_report_compares_with_a_reference(run, folder, tmp_path):
    page = tmp_path / "page.html"
    for reference in ("scan.h5", "images.h5"):
        asked = ("-o", page, "--overwrite", "--reference", folder / reference)
        assert run("report", folder / "images.h5", *asked)[0] == 0
        assert all("Reference" in titles(frame) for frame in frames(page.read_text()))
    made = ["--matrix", "32x32", "--coils", "2", "--slices", "2", "-R", "1"]
    assert run("simulate", "-o", tmp_path / "other.h5", *made)[0] == 0
    asked = ("-o", page, "--overwrite", "--reference", tmp_path / "other.h5")
    code, _, err = run("report", folder / "images.h5", *asked)
    assert code == 2
    assert "other.h5: reference of slice 0: 32 x 32, expected an image of " in err


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
    (frame,) = frames(text)
    assert titles(frame) == ["Classical image", "Zero-filled", "Classical (regularised SENSE)"]
    assert "Prior " not in text


# Layout of a page, and its response to the pointer.
PROBE = """<body style="margin:0"><iframe src="page.html" style="width:%dpx;height:900px;border:0">
</iframe><script>
onload = async () => {
  const page = document.querySelector("iframe").contentDocument, view = page.defaultView;
  const all = (words) => [...page.querySelectorAll(words)];
  const drawn = () => new Promise((done) => view.requestAnimationFrame(() => setTimeout(done)));
  const heading = () => page.querySelector("#viewer h2").textContent;
  const outputs = () => all(".figures output").map((each) => each.textContent);
  const set = (words, value) => {
    const input = page.querySelector(words);
    input.value = value;
    input.dispatchEvent(new view.Event("input", {bubbles: true}));
  };
  while (heading() !== "slice 0") await drawn();
  const [canvas] = all("canvas"), box = canvas.getBoundingClientRect();
  canvas.setPointerCapture = () => {};  // refuses pointers that do not exist
  const point = (name, u, v) => canvas.dispatchEvent(new view.PointerEvent(`pointer${name}`, {
    clientX: box.left + u * box.width, clientY: box.top + v * box.height}));
  const drag = async (tool, from, to) => {
    page.querySelector(`[value=${tool}]`).click();
    point("move", ...from); point("down", ...from); point("move", ...to); point("up", ...to);
    await drawn();
  };
  const boxes = all("canvas").map((each) => each.getBoundingClientRect());
  const found = {over: page.documentElement.scrollWidth - view.innerWidth,
    columns: new Set(boxes.map((each) => Math.round(each.left))).size,
    shapes: boxes.map((each) => each.width / each.height),
    titles: all("figcaption b").map((b) => b.textContent)};
  point("move", 0.51, 0.51);
  await drawn();
  found.place = page.querySelector(".tools output").value;
  found.values = outputs();
  await drag("rectangle", [0.25, 0.25], [0.75, 0.75]);
  found.rectangle = outputs()[0];
  set(".compare select", "difference");
  await drawn();
  found.difference = outputs()[1];
  await drag("window", [0.5, 0.5], [0.75, 0.5]);
  found.window = all("figure:first-child .scale span").map((each) => each.textContent);
  set("figure .slider:not([hidden]) input", 3);
  set(".frames input", 2);
  while (heading() !== "slice 1") await drawn();
  found.sample = page.querySelector("figure .slider:not([hidden]) span").textContent;
  await fetch("found", {method: "POST", body: JSON.stringify(found)});
};
</script>"""


def _probe(folder, width):
    """Return what the probe finds on a page of the width."""
    (folder / f"probe{width}.html").write_text(PROBE % width)
    found = queue.Queue()

    class Handler(SimpleHTTPRequestHandler):
        def do_POST(self):
            found.put(self.rfile.read(int(self.headers["Content-Length"])))

        def log_message(self, *_):
            pass

    options = ["--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-port=0"]
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=folder)) as http:
        threading.Thread(target=http.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{http.server_port}/probe{width}.html"
        with subprocess.Popen(
            [BROWSER, *options, "--window-size=1400,1000", address], stderr=subprocess.DEVNULL
        ) as process:
            try:
                return json.loads(found.get(timeout=60))
            finally:
                process.terminate()
                http.shutdown()


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
    found = _probe(folder, width)
    assert found["over"] <= 0
    assert found["columns"] == columns
    with h5py.File(folder / "images.h5") as file:
        x, y, _ = file["dataset/image_1/header"][0]["field_of_view"]
        mean, sd, zero_filled = (
            file[f"dataset/image_{n}/data"][0, 0, 0].astype(float) for n in (1, 2, 4)
        )
    np.testing.assert_allclose(found["shapes"], x / y, rtol=0.01)
    assert found["titles"][:3] == ["Posterior mean", "Comparison", "Posterior sd"]
    # an axial plane whose pixels are shown as they are stored
    tolerance = 1e-3 * mean.max()
    ny, nx = mean.shape
    row, column = ny // 2, nx // 2
    place, _, values = found["place"].partition(": ")
    assert place == f"x {column}, y {row}"
    at = (row, column)
    assert [float(each) for each in values.split(" ± ")] == pytest.approx(
        [mean[at], sd[at]], abs=tolerance
    )
    pair = [float(each) for each in found["values"][1].split(" | ")]
    assert pair == pytest.approx([zero_filled[at], mean[at]], abs=tolerance)
    middle = np.s_[ny // 4 : -(ny // 4), nx // 4 : -(nx // 4)]
    numbers = re.search(r"region (.*), sd (.*), (.*) pixels", found["rectangle"]).groups()
    inside = mean[middle]
    expected = [inside.mean(), inside.std(ddof=1), inside.size]
    assert [float(each) for each in numbers] == pytest.approx(expected, abs=tolerance)
    less = re.search("region (.*), sd", found["difference"])[1]
    assert float(less) == pytest.approx((zero_filled - mean)[middle].mean(), abs=tolerance)
    low, high = (float(each) for each in found["window"])  # a fourth of the width: 4^(1/4)
    top = np.percentile(mean, 99.8)
    assert high - low == pytest.approx(top * 2**0.5, rel=0.02)
    assert low + high == pytest.approx(top, rel=0.02)
    assert found["sample"] == "3 of 3"


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
