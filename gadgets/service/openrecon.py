"""What OpenRecon, the container platform of Siemens scanners, wants beside a server.

A label (JSON of schema 1.1.0), a manual (PDF), and a container image that carries the label.
"""

from __future__ import annotations

import base64
import json
import re
import textwrap
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from datetime import date
from pathlib import Path
from typing import Any

import scoremri_core
from gadgets.stages.properties import NOISE_SOURCES, Properties
from scoremri_core.errors import InputError
from scoremri_core.samplers import SAMPLERS

NAME = "scoremri"  # name and id: one bundle format names its files by the one, one by the other
PORT = 9002
LABEL = "com.siemens-healthineers.magneticresonance.openrecon.metadata:1.1.0"
DEVICES = ("cuda", "cpu")
MOST_PARAMETERS = 14
SUMMARY = "Score-based reconstruction of Cartesian scans, with a map of its uncertainty."
CAUTION = "For research only: no medical device, and its images are not for diagnosis."
RESEARCH = "RESEARCH"

OUTPUTS = {
    "mean,std": "Mean and uncertainty",
    "mean": "Mean alone",
    "mean,std,phase": "Mean, uncertainty and phase",
    "mean,std,samples": "Mean, uncertainty and samples",
}
STEPS = ("auto", "10", "20", "40", "80")


@dataclass(frozen=True)
class Bundle:
    """The names of one version's files.

    Attributes
    ----------
    vendor : letters, digits and hyphens.
    device : cuda or cpu.
    """

    vendor: str
    device: str = "cuda"

    def __post_init__(self) -> None:
        """Refuse, with InputError, a vendor that cannot be part of a file name and an image's."""
        if not re.fullmatch(r"[A-Za-z0-9]+(-[A-Za-z0-9]+)*", self.vendor):
            raise InputError(f"vendor '{self.vendor}': expected letters, digits and single hyphens")

    @property
    def version(self) -> str:
        """The package's version, as semantic versioning writes it: 0.2.0.dev1 is 0.2.0-dev1."""
        found = re.match(r"(\d+)\.(\d+)(?:\.(\d+))?(.*)", scoremri_core.__version__)
        major, minor, patch, rest = found.groups() if found else ("0", "0", "0", "")
        rest = re.sub(r"[^0-9A-Za-z]+", "-", rest).strip("-")
        return f"{major}.{minor}.{patch or 0}" + (f"-{rest}" if rest else "")

    @property
    def base(self) -> str:
        """File name without its suffix."""
        return f"OpenRecon_{self.vendor}_{NAME}_V{self.version}"

    @property
    def image(self) -> str:
        """Name and tag of the container image."""
        return f"openrecon_{self.vendor}_{NAME}:v{self.version}".lower()

    def files(self) -> dict[str, Callable[[Path], Any]]:
        """Each file's name, and what writes it to a path."""
        description = label(self)
        texts = {
            "OpenReconLabel.json": json.dumps(description, indent=2) + "\n",
            f"{self.base}.Dockerfile": dockerfile(self, description),
            "build.sh": build_script(self),
        }
        files: dict[str, Callable[[Path], Any]] = {
            name: lambda path, text=text: path.write_text(text, "utf-8")  # type: ignore[misc]
            for name, text in texts.items()
        }
        files[f"{self.base}.pdf"] = lambda path: write_manual(path, self, description)
        return files


def label(bundle: Bundle) -> dict[str, Any]:
    """The label: what the scanner shows of the reconstruction and gives it to run."""
    cuda = bundle.device == "cuda"
    return {
        "general": {
            "name": {"en": NAME},
            "version": bundle.version,
            "vendor": bundle.vendor,
            "information": {"en": f"{SUMMARY} {CAUTION}"},
            "id": NAME,
            "regulatory_information": {
                "device_trade_name": NAME,
                "production_identifier": bundle.version,
                "manufacturer_address": "",
                "made_in": "",
                "manufacture_date": date.today().isoformat(),
                "material_number": f"{NAME}_{bundle.version}",
                "gtin": "",
                "udi": "",
                "safety_advices": CAUTION,
                "special_operating_instructions": "See the manual.",
                "additional_relevant_information": "",
            },
        },
        "reconstruction": {
            "transfer_protocol": {"protocol": "ISMRMRD", "version": "1.4.1"},
            "port": PORT,
            "emitter": "raw",
            "injector": "image",
            "can_process_adjustment_data": False,
            "can_use_gpu": cuda,
            "min_count_required_gpus": int(cuda),
            "min_required_gpu_memory": 4096 if cuda else 0,
            "min_required_memory": 8192,
            "min_count_required_cpu_cores": 2,
            "content_qualification_type": RESEARCH,
        },
        "parameters": parameters(),
    }


def parameters() -> list[dict[str, Any]]:
    """What a user may choose at the scanner: properties of the node by their names, and the chain.

    Those that are the site's and not a scan's, such as the device and the prior, are left out.
    """
    known = {field.name: field.default for field in fields(Properties)}
    default = {name: _text(value) for name, value in known.items()}
    shown = [
        _choice("config", "Chain", "What runs.", {"score_recon": "Score-based"}, "score_recon"),
        _choice(
            "sampler",
            "Method",
            "How the posterior is sampled; none sends the classical image.",
            {name: name for name in SAMPLERS},
            default["sampler"],
        ),
        _choice(
            "outputs",
            "Images",
            "Series that are sent. Uncertainty: the standard deviation of each pixel.",
            OUTPUTS,
            default["outputs"],
        ),
        _choice(
            "maps",
            "Sets of coil maps",
            "2 where the object is larger than the field of view; auto finds out.",
            {name: name for name in ("auto", "1", "2")},
            default["maps"],
        ),
        _choice(
            "noise",
            "Noise level from",
            "The noise scan, the data themselves, or auto: the scan if there is one.",
            {name: name for name in NOISE_SOURCES},
            default["noise"],
        ),
        _choice(
            "steps",
            "Steps",
            "Noise levels of the method: more take longer; auto is the method's own.",
            {name: name for name in STEPS},
            default["steps"],
        ),
        _int("samples", "Samples", "Posterior samples of each image.", 1, 64, known["samples"]),
        _int("coils", "Virtual coils", "Compress the array to these; 0: no.", 0, 128, 0),
        _int("seed", "Seed", "Of the random numbers.", 0, 2**31 - 1, known["seed"]),
    ]
    if "scale" in known:
        shown.append(
            _choice(
                "scale",
                "Scale",
                "One factor for all images of a scan, since scanners keep whole numbers.",
                {"auto": "auto", "off": "off"},
                "auto",
            )
        )
    return shown


def _text(value: Any) -> str:
    """A property's value as a chain's XML would write it."""
    return "auto" if value is None else ",".join(value) if isinstance(value, tuple) else str(value)


def _shown(kind: str, name: str, title: str, information: str) -> dict[str, Any]:
    return {
        "id": name,
        "type": kind,
        "label": {"en": title},
        "information": {"en": information},
    }


def _choice(
    name: str, title: str, information: str, values: Mapping[str, str], default: str
) -> dict[str, Any]:
    return {
        **_shown("choice", name, title, information),
        "values": [{"id": each, "name": {"en": words}} for each, words in values.items()],
        "default": default,
    }


def _int(
    name: str, title: str, information: str, minimum: int, maximum: int, default: Any
) -> dict[str, Any]:
    return {
        **_shown("int", name, title, information),
        "minimum": minimum,
        "maximum": maximum,
        "default": default,
    }


def wheel(bundle: Bundle) -> str:
    """File name of the package's wheel."""
    return f"{NAME}-{scoremri_core.__version__}-py3-none-any.whl"


TORCH = {
    "cuda": """\
# These scanners have drivers for CUDA 11.8. The last torch with wheels for it is 2.7, and the last
# CuPy 13. PyTorch keeps such wheels on an index of its own, whose address the build is given:
# TORCH_INDEX, the one that ends in cu118.
ARG TORCH_INDEX
RUN pip install --no-cache-dir "torch>=2.7,<2.8" --index-url "$TORCH_INDEX" \\
    && python -c "import torch; assert torch.version.cuda == '11.8', torch.version.cuda"
""",
    "cpu": """\
# PyTorch keeps wheels without CUDA, which are far smaller, on an index of its own: TORCH_INDEX, the
# one that ends in cpu; without it the image gets the libraries of CUDA too.
ARG TORCH_INDEX=""
RUN pip install --no-cache-dir "torch>=2.7,<2.8" ${TORCH_INDEX:+--index-url "$TORCH_INDEX"}
""",
}


def dockerfile(bundle: Bundle, description: Mapping[str, Any]) -> str:
    """Instructions for an image with the package, its label and `serve` as its command."""
    encoded = base64.b64encode(json.dumps(description).encode()).decode()
    command = ["scoremri", "serve", "--host", "0.0.0.0", "--port", str(PORT)]
    cupy = ' "cupy-cuda11x>=13,<14"' if bundle.device == "cuda" else ""
    return f"""\
# {NAME} {bundle.version} for OpenRecon ({bundle.device}); build.sh builds the bundle with it.
FROM python:3.12-slim
{TORCH[bundle.device]}
COPY {wheel(bundle)} /tmp/
RUN pip install --no-cache-dir /tmp/{wheel(bundle)}{cupy} \\
    && rm /tmp/{wheel(bundle)}

EXPOSE {PORT}
CMD {json.dumps(command)}

# The label, OpenReconLabel.json in base64: the scanner reads it before anything is started.
LABEL "{LABEL}"="{encoded}"
"""


def build_script(bundle: Bundle) -> str:
    """A script that makes of these files the bundle that a scanner takes."""
    base, needed = bundle.base, wheel(bundle)
    index = ""
    if bundle.device == "cuda":
        index = ': "${TORCH_INDEX:?the address of the index of wheels of torch for CUDA 11.8}"\n'
    return f"""\
#!/bin/sh
# Builds {base}.zip: the image and the manual, as OpenRecon takes them.
set -eu
cd "$(dirname "$0")"
if [ ! -f {needed} ]; then
    echo "first: pip wheel --no-deps -w . FOLDER_OF_SCOREMRI, which makes {needed}" >&2
    exit 2
fi
{index}docker build --platform linux/amd64 --build-arg TORCH_INDEX="${{TORCH_INDEX:-}}" \\
    -t {bundle.image} -f {base}.Dockerfile .
docker save -o {base}.tar {bundle.image}
python3 -m zipfile -c {base}.zip {base}.tar {base}.pdf
"""


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


PAGE = 8.27, 11.69  # inches, A4
MARGIN, LEADING = 0.9, 0.19  # inches
TEXT, HEADING = 10, 13  # points
WIDTH = 90  # characters of text that fit between the margins
LINES = int((PAGE[1] - 2 * MARGIN) / LEADING)


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
