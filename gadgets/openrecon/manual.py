"""The manual of a bundle, as Markdown and as PDF."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from gadgets.openrecon.bundle import CAUTION, NAME, SUMMARY, Bundle
from scoremri_core.errors import InputError


def readme(bundle: Bundle, description: Mapping[str, Any]) -> str:
    """Return the manual as Markdown."""
    return "\n".join(
        line
        for heading, paragraphs in _sections(bundle, description)
        for line in (f"# {heading}", "", *(x for text in paragraphs for x in (text, "")))
    )


def _sections(bundle: Bundle, description: Mapping[str, Any]) -> list[tuple[str, list[str]]]:
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


def write_manual(path: Path, text: str, title: str) -> None:
    """Write Markdown of headings and paragraphs as a PDF.

    Raises
    ------
    InputError
        fpdf2 is missing.
    """
    try:
        from fpdf import FPDF
    except ImportError as error:
        raise InputError(f"{path}: needs fpdf2: pip install 'scoremri[openrecon]'") from error
    pdf = FPDF(format="A4")
    pdf.set_title(title)
    pdf.set_creation_date(datetime(2026, 1, 1, tzinfo=timezone.utc))  # the same file each time
    pdf.set_margin(23)
    pdf.set_auto_page_break(True, 23)
    pdf.add_page()
    for line in text.splitlines():
        heading = line.startswith("#")
        pdf.set_font("helvetica", "B" if heading else "", 13 if heading else 10)
        words = line.lstrip("# ")
        pdf.multi_cell(0, 5, words, align="L", new_x="LMARGIN", new_y="NEXT")
    path.write_bytes(pdf.output())
