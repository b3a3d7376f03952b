"""The manual, a PDF that each bundle comes with."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from gadgets.openrecon.bundle import CAUTION, NAME, SUMMARY, Bundle

PAGE = 8.27, 11.69  # inches, A4
MARGIN, LEADING = 0.9, 0.19  # inches
TEXT, HEADING = 10, 13  # points
WIDTH = 90  # characters of text that fit between the margins
LINES = int((PAGE[1] - 2 * MARGIN) / LEADING)


def manual(bundle: Bundle, description: Mapping[str, Any]) -> list[tuple[str, list[str]]]:
    """The manual: sections, each a heading and paragraphs."""
    needs = description["reconstruction"]
    gpu = f", a GPU with {needs['min_required_gpu_memory']} MB" if needs["can_use_gpu"] else ""
    chosen = []
    for each in description["parameters"]:
        if each["type"] == "choice":
            known = "; ".join(f"{v['id']}" for v in each["values"])
        else:
            known = f"{each['minimum']} to {each['maximum']}"
        chosen.append(
            f"{each['label']['en']} ({each['id']}): {each['information']['en']} "
            f"Values: {known}. At first: {each['default']}."
        )
    return [
        (
            f"{NAME} {bundle.version}",
            [
                f"An OpenRecon reconstruction by {bundle.vendor}. {SUMMARY}",
                CAUTION,
            ],
        ),
        (
            "What it does",
            [
                "It takes the raw data of an accelerated Cartesian scan, 2D or 3D, with its noise "
                "scan and its calibration lines, and draws images from the posterior: images that "
                "agree with the measurements and with what images of the body look like, as a "
                "neural network has learned it. Their mean is the image that is sent, their "
                "standard deviation the map of its uncertainty.",
                "A frame that cannot be sampled, for instance one without calibration lines, is "
                "sent as a classical image and says so in its comment. No frame is lost.",
            ],
        ),
        (
            "How to install it",
            [
                f"Load {bundle.base}.zip as your OpenRecon manual says. It needs "
                f"{needs['min_count_required_cpu_cores']} cores, {needs['min_required_memory']} MB "
                f"of memory{gpu}.",
            ],
        ),
        ("What can be chosen", chosen),
        (
            "What comes back",
            [
                "Series in the order of the choice of images: the mean, the uncertainty, then the "
                "rest. All are in the same units, so that uncertainty divides by mean.",
                "The attributes of each image say how it was made: the method, its steps, samples "
                "and seed, the noise level and how well the samples agree with the data.",
            ],
        ),
        (
            "What to beware of",
            [
                "Fine structures that the measurements do not determine come from what the network "
                "has seen. The uncertainty map shows where samples differ; it does not show what "
                "all of them get wrong alike, as they may with implants, disease or parts of the "
                "body that were not in the training data.",
                "Compare with the scanner's own reconstruction, which should stay switched on.",
            ],
        ),
    ]


def write_manual(path: Path, bundle: Bundle, description: Mapping[str, Any]) -> None:
    """Write the manual as a PDF."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_pdf import PdfPages
    from matplotlib.figure import Figure

    title = f"{NAME} {bundle.version} for OpenRecon"
    metadata = {"Title": title, "Author": bundle.vendor, "CreationDate": None}
    with rc_context({"pdf.fonttype": 42}), PdfPages(path, metadata=metadata) as pdf:
        for number, lines in enumerate(pages(manual(bundle, description)), 1):
            figure = Figure(figsize=PAGE)
            for i, (size, text) in enumerate(lines):
                weight = "bold" if size > TEXT else "normal"
                height = 1 - (MARGIN + i * LEADING) / PAGE[1]
                figure.text(
                    MARGIN / PAGE[0], height, text, size=size, weight=weight, va="top",
                    parse_math=False,
                )  # fmt: skip
            figure.text(0.5, 0.5 * MARGIN / PAGE[1], f"{title}, page {number}", size=8, ha="center")
            pdf.savefig(figure)


def pages(sections: Iterable[tuple[str, list[str]]]) -> list[list[tuple[int, str]]]:
    """Lines of each page, with their sizes; a heading is never the last of its page."""
    out: list[list[tuple[int, str]]] = [[]]
    for heading, paragraphs in sections:
        if len(out[-1]) > LINES - 6:
            out.append([])
        out[-1] += [(TEXT, "")] * bool(out[-1]) + [(HEADING, heading), (TEXT, "")]
        for paragraph in paragraphs:
            lines = [(TEXT, line) for line in textwrap.wrap(paragraph, WIDTH)] + [(TEXT, "")]
            if len(out[-1]) + len(lines) > LINES:
                out.append([])
            out[-1] += lines
    return out
