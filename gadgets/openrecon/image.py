"""The container image, which carries the label, and what packs it with the manual."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any

from gadgets.openrecon.bundle import NAME, PORT, Bundle

LABEL = "com.siemens-healthineers.magneticresonance.openrecon.metadata:1.1.0"
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
    command += ["--default-chain", "score_recon.xml"]  # whatever name a scanner sends
    cupy = ' "cupy-cuda11x>=13,<14"' if bundle.device == "cuda" else ""
    return f"""\
# {NAME} {bundle.version} for OpenRecon ({bundle.device}); build.sh builds the bundle with it.
FROM python:3.12-slim
{TORCH[bundle.device]}
COPY {bundle.wheel} /tmp/
RUN pip install --no-cache-dir /tmp/{bundle.wheel}{cupy} \\
    && rm /tmp/{bundle.wheel}

EXPOSE {PORT}
CMD {json.dumps(command)}

# The label, OpenReconLabel.json in base64: the scanner reads it before anything is started.
LABEL "{LABEL}"="{encoded}"
"""


def build_script(bundle: Bundle) -> str:
    """A script that makes of these files the bundle that a scanner takes."""
    base, needed = bundle.base, bundle.wheel
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
