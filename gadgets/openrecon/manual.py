"""The PDF manual of a bundle."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from gadgets.openrecon.bundle import CAUTION, NAME, SUMMARY, Bundle

PAGE = 8.27, 11.69  # inches, A4
MARGIN, LEADING = 0.9, 0.19  # inches
TEXT, HEADING = 10, 13  # points
WIDTH = 86  # characters between the margins
LINES = int((PAGE[1] - 2 * MARGIN) / LEADING)


def manual(bundle: Bundle, description: Mapping[str, Any]) -> list[tuple[str, list[str]]]:
    """Return the sections of the manual, each a heading and paragraphs."""
    needs = description["reconstruction"]
    gpu = f", a GPU with {needs['min_required_gpu_memory']} MB" if needs["can_use_gpu"] else ""
    parameters = []
    for item in description["parameters"]:
        if item["type"] == "choice":
            known = "; ".join(value["id"] for value in item["values"])
        else:
            known = f"{item['minimum']} to {item['maximum']}"
        parameters.append(
            f"{item['label']['en']} ({item['id']}): {item['information']['en']} "
            f"Values: {known}. Default: {item['default']}."
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
            "Description",
            [
                "Reconstructs accelerated 2D and 3D Cartesian scans from raw data with noise scan "
                "and calibration lines. It draws samples of the posterior: images that agree with "
                "the measurements and with a prior that a neural network has learned from images. "
                "Their mean is the reconstructed image, their standard deviation the uncertainty "
                "map.",
                "A frame that cannot be sampled, for example without calibration lines, is sent as "
                "a classical image with a note in its comment. No frame is lost.",
            ],
        ),
        (
            "Installation",
            [
                f"Install {bundle.base}.zip as described in OpenRecon's manual. It requires "
                f"{needs['min_count_required_cpu_cores']} cores, {needs['min_required_memory']} MB "
                f"of memory{gpu}.",
            ],
        ),
        ("Parameters", parameters),
        (
            "Output",
            [
                "Series in the order of the parameter Images (mean, uncertainty, others), all in "
                "the same units.",
                "The attributes of each image record the method, its steps, samples and seed, the "
                "noise level and the misfit between samples and data.",
            ],
        ),
        (
            "Limitations",
            [
                "Fine structures that the measurements do not determine come from the prior. The "
                "uncertainty map shows where samples differ; it does not show errors common to all "
                "samples, as are possible with implants, disease or anatomy outside the training "
                "data.",
                "Keep the scanner's reconstruction switched on and compare with it.",
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
    """Break sections into pages of lines, each with its font size.

    A heading is never the last line of a page.
    """
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
