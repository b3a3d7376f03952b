"""Reports: orientation, colours, words, and security of the page."""

import base64
import hashlib
import json
import math
import re
import zlib
from html.parser import HTMLParser

import numpy as np
import pytest

from scoremri_core.priors.storage import read_card
from scoremri_core.reports import card, pixels
from scoremri_core.reports.facts import Facts
from scoremri_core.reports.frame import Panel, ReportFrame
from scoremri_core.reports.geometry import Geometry, letters
from scoremri_core.reports.report import report

X, Y, Z = np.eye(3)  # to the left, to the back, to the head
AXES = {"L": X, "R": -X, "P": Y, "A": -Y, "H": Z, "F": -Z}
WANTED = {"axial": ("L", "P"), "coronal": ("L", "F"), "sagittal": ("P", "F")}  # right, bottom


def planes():
    for name, (right, bottom) in WANTED.items():
        for transposed in (False, True):
            for signs in ((1, 1), (1, -1), (-1, 1), (-1, -1)):
                read, phase = AXES[right] * signs[0], AXES[bottom] * signs[1]
                yield name, *((phase, read) if transposed else (read, phase))


@pytest.mark.parametrize(("plane", "read", "phase"), list(planes()))
def test_display_of_a_plane_does_not_depend_on_encoding_directions(plane, read, phase):
    geometry = Geometry((120.0, 80.0, 5.0), tuple(read), tuple(phase))
    assert geometry.plane == plane
    view = geometry.view()
    right, bottom = WANTED[plane]
    assert (view.edges["right"], view.edges["bottom"]) == (right, bottom)
    # position of a pixel from the axes of the scan and from those of the view
    ny, nx = 4, 6
    index = np.arange(ny * nx).reshape(ny, nx)
    at = lambda y, x: (x - 2.5) * 20 * read + (y - 1.5) * 20 * phase  # noqa: E731
    shown = view.of(index)
    rows, columns = shown.shape
    assert view.size == (20 * columns, 20 * rows)
    for row, column in np.ndindex(rows, columns):
        y, x = divmod(int(shown[row, column]), nx)
        here = (column - (columns - 1) / 2) * 20 * AXES[right]
        here = here + (row - (rows - 1) / 2) * 20 * AXES[bottom]
        np.testing.assert_allclose(here, at(y, x))
    # the arrow points to increasing y
    across, along = view.phase_encode
    y_of = view.of(np.arange(ny)[:, None] * np.ones((1, nx)))
    slope = np.gradient(y_of)
    assert (np.sign(slope[1].mean()), np.sign(slope[0].mean())) == (across, along)


def test_oblique_planes_have_two_letters_and_a_tilt():
    tilt = math.radians(30)
    read = (math.cos(tilt), math.sin(tilt), 0.0)
    assert letters(read) == "LP"
    assert letters(tuple(-np.array(read))) == "RA"
    assert letters((0.99, 0.0, -0.14)) == "L"
    phase = (0.0, math.cos(tilt), math.sin(tilt))
    assert Geometry((1, 1, 1), (1, 0, 0), phase).plane == "axial, tilted by 30 degrees"


@pytest.mark.parametrize("read", [(0, 0, 0), (0, 1, 0), (2, 0, 0), (math.nan, 0, 0)])
def test_invalid_directions_are_unknown(read):
    geometry = Geometry((30.0, 20.0, 5.0), read, (0, 1, 0))
    assert geometry.plane.startswith("unknown")
    view = geometry.view()
    assert view.edges == {}
    image = np.arange(6).reshape(2, 3)
    np.testing.assert_array_equal(view.of(image), image)


def decoded(image, shape):
    """Decode an image as the viewer does."""
    planes = np.frombuffer(zlib.decompress(base64.b64decode(image["data"])), np.uint8)
    low, high = planes.reshape(2, -1).astype(float)
    codes = low + 256 * high
    values = np.where(codes == 65_535, np.nan, image["lowest"] + codes * image["step"])
    return values.reshape(shape)


@pytest.mark.parametrize("unit", [1e-8, 1.0, 1e6])
def test_values_of_the_viewer_are_true(unit):
    values = unit * np.random.default_rng(0).normal(1, 1, (7, 5))
    values[2, 3], values[0, 0] = np.nan, 20 * unit
    found = decoded(pixels.encode(values, 2 * unit), values.shape)
    np.testing.assert_allclose(found, values, rtol=0, atol=2 * unit / 3999)
    empty = np.full((2, 2), np.inf)
    assert np.isnan(decoded(pixels.encode(empty, 1), empty.shape)).all()
    bright = np.array([[0.0, 1.0, 1e4]])  # far outside the window
    np.testing.assert_allclose(decoded(pixels.encode(bright, 1), (1, 3)), bright, atol=0.08)


def test_viewer_gets_the_images_as_shown():
    rng = np.random.default_rng(1)
    mean, std, sample = rng.uniform(1, 2, (3, 4, 6))
    geometry = Geometry((120.0, 80.0, 5.0), tuple(-Y), tuple(X))  # transposed and flipped
    maps = Panel("Coil maps", (std, sample), (0.0, 1.0))
    shown = ReportFrame("one", mean, std, (sample,), {"Zero-filled": std}, (maps,), geometry)
    read = json.loads(json.dumps(shown.as_json()))
    titles = [panel["title"] for panel in read["panels"]]
    assert titles[1:] == [
        "Posterior sd", "Relative sd", "Posterior samples", "Zero-filled", "Coil maps",
    ]  # fmt: skip
    images = [std, 100 * std / mean, sample, std]
    for panel, image in zip(read["panels"], [mean, *images], strict=False):
        expected = geometry.view().of(image)
        assert panel["shape"] == [6, 4]
        low, high = panel["window"]
        found = decoded(panel["images"][0], panel["shape"])
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-3 * (high - low))
    assert len(read["panels"][-1]["images"]) == 2
    assert read["size"] == [80, 120]


def test_facts_in_words():
    good = Facts("posterior", 8, 11, "default", "3", 0.02, 0.02, 1.1, 0.0, 0.0, 3.1)
    words = good.in_words()
    assert "raised" not in words["Noise"]
    assert words["Misfit"].startswith("1.10: the residual is explained by thermal noise")
    assert words["Unsampled"].startswith("none")
    assert words["Sampling"] == (
        "8 samples by posterior, 11 denoiser evaluations each, prior default, seed 3"
    )
    assert good.notice() == ""
    bad = Facts("posterior", 8, 11, "default", "3", 0.02, 0.03, 2.5, 0.0, 0.25, 3.1, factor=100)
    words = bad.in_words()
    assert "raised by 50%" in words["Noise"]
    assert "residual exceeds thermal noise" in words["Misfit"]
    assert words["Unsampled"].startswith("25% of k-space is far from any sample")
    assert bad.unit == "units of k-space x 100"
    fallen = Facts("none", fallback="no calibration lines")
    assert "because: no calibration lines" in fallen.notice()
    assert set(fallen.in_words().values()) >= {"unknown"}
    assert "sampler 'none'" in Facts("none").notice()


def test_relative_deviation_is_limited_to_signal():
    mean = np.array([[1.0, 0.5], [0.05, 0.0]])
    shown = ReportFrame("one", mean, std=np.full((2, 2), 0.1))
    np.testing.assert_allclose(shown.relative, [[0.1, 0.2], [np.nan, np.nan]])
    assert shown.median_relative == "15.0%"
    assert ReportFrame("none", mean).median_relative == "unknown"


class Reader(HTMLParser):
    """Parser of the links, tags and scripts of a page."""

    EMPTY = ("meta", "input")

    def __init__(self, text):
        super().__init__()
        self.links, self.open, self.scripts, self.data, self._in = [], [], [], [], None
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.links += [v for k, v in attributes if k in ("src", "href", "action", "srcset")]
        assert not any(name.startswith("on") for name, _ in attributes)
        if tag not in self.EMPTY:
            self.open.append(tag)
        if tag == "script":
            self._in = (
                self.data if dict(attributes).get("type") == "application/json" else self.scripts
            )

    def handle_endtag(self, tag):
        assert self.open.pop() == tag
        self._in = None

    def handle_data(self, data):
        if self._in is not None:
            self._in.append(data)


def test_page_is_self_contained_and_runs_no_foreign_script():
    evil = '<script>alert(1)</script>"><img src=x onerror=alert(1)>&amp;<!--'
    facts = Facts(evil, 2, 1, evil, evil, 1.0, 1.0, 1.0, 0.0, 1.0)
    image = np.eye(4)
    shown = ReportFrame(evil, image, image, (image, image), {evil: image}, facts=facts)
    fallen = ReportFrame(evil, image, facts=Facts(fallback=evil))
    named = {"description": evil, "limits": [evil], "sha256": evil}
    named["training_data"] = [{"subject": evil, "contrasts": evil, "licence": evil}]
    text = report([shown, fallen], evil, lambda name: named, {evil: evil})
    read = Reader(text)
    assert read.open == []
    assert read.links == ["#frame-1", "#frame-2"]
    assert [frame["name"] for frame in json.loads("".join(read.data))["frames"]] == [evil, evil]
    (script,) = read.scripts
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = re.search('content="(default-src[^"]*)"', text)[1]
    assert policy.startswith("default-src 'none'; style-src 'unsafe-inline';")
    assert f"script-src 'sha256-{digest}'" in policy
    assert "connect-src" not in policy
    assert "alert(1)" in text
    assert "<img" not in text
    assert "url(" not in text
    assert "http" not in text.replace("http-equiv", "")


def test_card_lists_training_data_and_measurements():
    text = card.section("default", read_card("default"))
    assert "For research only" in text
    assert "openms_p01</td><td>FLAIR, T1W, T2W</td><td>CC-BY" in text
    assert "<tr><td>validation</td><td>0.56</td>" in text
    assert "never measured" not in text
    assert "unknown" in card.section("other", None)


def test_a_prior_that_was_never_measured_says_so():
    text = card.section("mine", {"description": "Denoiser.", "training_data": []})
    assert "This prior was never measured" in text
