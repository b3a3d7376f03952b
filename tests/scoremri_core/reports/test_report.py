"""Reports: orientation, colours, words, and security of the page."""

import base64
import hashlib
import io
import math
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from scoremri_core.priors.storage import read_card
from scoremri_core.reports import card, pixels
from scoremri_core.reports.facts import Facts
from scoremri_core.reports.frame import ReportFrame, section
from scoremri_core.reports.geometry import Geometry, letters
from scoremri_core.reports.page import page, table
from scoremri_core.reports.panel import panel

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


def decoded(uri):
    kind, data = uri.split(",")
    assert kind == "data:image/png;base64"
    return Image.open(io.BytesIO(base64.b64decode(data)))


def test_greys_are_linear_and_missing_values_grey():
    values = np.array([[0.0, 1.0, 2.0], [4.0, 8.0, np.nan]])
    grey = np.asarray(decoded(pixels.grey(values, 4)))
    np.testing.assert_array_equal(grey, [[0, 64, 128], [255, 255, 0]])
    rgb = np.asarray(decoded(pixels.colour(values, 4)).convert("RGB")).astype(int)
    assert (rgb[1, 2] == pixels.GAP_GREY).all()
    np.testing.assert_array_equal(rgb[1, 0], rgb[1, 1])
    lightness = rgb.sum(-1).ravel()[:4]
    assert (np.diff(lightness) > 0).all()
    ends = re.findall("#[0-9a-f]{6}", pixels.bar(True))
    assert ends[0] == "#{:02x}{:02x}{:02x}".format(*rgb[0, 0])
    assert ends[-1] == "#{:02x}{:02x}{:02x}".format(*rgb[1, 0])


def test_length_of_the_scale_bar():
    view = Geometry((220.0, 180.0, 5.0), tuple(X), tuple(Y)).view()
    drawn = panel("data:,", view, "a label")
    assert 'viewBox="0 0 220 180"' in drawn
    assert f"h{view.bar}" in drawn
    assert f">{view.bar} mm<" in drawn
    assert 20 <= view.bar <= 220 / 3


def test_facts_in_words():
    good = Facts("posterior", 8, 11, "default", "3", 0.02, 0.02, 1.1, 0.0, 0.0, 3.1)
    words = good.in_words()
    assert "raised" not in words["Noise"]
    assert words["Misfit"].startswith("1.10: the residual is explained by thermal noise")
    assert words["Unsampled"].startswith("none")
    assert words["Sampling"] == "8 samples by posterior, 11 denoiser evaluations each, seed 3"
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

    def __init__(self, text):
        super().__init__()
        self.links, self.open, self.scripts, self._in = [], [], [], False
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.links += [v for k, v in attributes if k in ("src", "href", "action", "srcset")]
        assert not any(name.startswith("on") for name, _ in attributes)
        if tag not in ("meta", "input", "image", "path"):
            self.open.append(tag)
        self._in = tag == "script"

    def handle_endtag(self, tag):
        if tag not in ("image", "path"):
            assert self.open.pop() == tag
        self._in = False

    def handle_data(self, data):
        if self._in:
            self.scripts.append(data)


def test_page_is_self_contained_and_runs_no_foreign_script():
    evil = '<script>alert(1)</script>"><img src=x onerror=alert(1)>&amp;'
    facts = Facts(evil, 2, 1, evil, evil, 1.0, 1.0, 1.0, 0.0, 1.0)
    image = np.eye(4)
    shown = ReportFrame(evil, image, image, (image, image), {evil: image}, facts=facts)
    fallen = ReportFrame(evil, image, facts=Facts(fallback=evil))
    named = {"description": evil, "limits": [evil], "sha256": evil}
    named["training_data"] = [{"subject": evil, "contrasts": evil, "licence": evil}]
    text = page(
        evil, evil,
        [table([("a", shown), ("b", fallen)]), section(shown, "a"), section(fallen, "b"),
         card.section(evil, named), card.section(evil, None)],
    )  # fmt: skip
    read = Reader(text)
    assert read.open == []
    assert all(link.startswith(("data:image/png;base64,", "#")) for link in read.links)
    assert len(read.scripts) == 1
    digest = base64.b64encode(hashlib.sha256(read.scripts[0].encode()).digest()).decode()
    policy = re.search('content="(default-src[^"]*)"', text)[1]
    assert policy.startswith("default-src 'none'; img-src data:;")
    assert f"script-src 'sha256-{digest}'" in policy
    assert "connect-src" not in policy
    assert "alert(1)" in text
    assert "<img" not in text
    assert "url(" not in text
    assert "http" not in text.replace("http-equiv", "")


def test_card_lists_the_training_data():
    text = card.section("default", read_card("default"))
    assert "For research only" in text
    assert "openms_p01</td><td>FLAIR, T1W, T2W</td><td>CC-BY" in text
    assert "Unknown" in card.section("other", None)
