"""Dockerfile of the container image, and the script that builds the bundle."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any

from gadgets.openrecon.bundle import NAME, PORT, Bundle

LABEL = "com.siemens-healthineers.magneticresonance.openrecon.metadata:1.1.0"
TORCH = {
    "cuda": """\
# The scanners' drivers support CUDA 11.8; torch 2.7 and CuPy 13 are the last versions for it.
# TORCH_INDEX: address of PyTorch's index of wheels for CUDA 11.8 (ends in cu118).
ARG TORCH_INDEX
RUN pip install --no-cache-dir "torch>=2.7,<2.8" --index-url "$TORCH_INDEX" \\
    && python -c "import torch; assert torch.version.cuda == '11.8', torch.version.cuda"
""",
    "cpu": """\
# TORCH_INDEX: address of PyTorch's index of wheels without CUDA (ends in cpu). If it is not given,
# the image includes the CUDA libraries.
ARG TORCH_INDEX=""
RUN pip install --no-cache-dir "torch>=2.7,<2.8" ${TORCH_INDEX:+--index-url "$TORCH_INDEX"}
""",
}


# What the build of github.com/neurodesk/openrecon starts, and imports for the chain "score_recon".
ENTRY = "/opt/code/python-ismrmrd-server"
MAIN = """\
import os, sys
os.execvp("scoremri", ["scoremri", "serve", *sys.argv[1:], "--default-chain", "score_recon.xml"])
"""
MODULE = """\
def process(connection, config, metadata):
    raise RuntimeError("scoremri serves the scan itself: start main.py")
"""


def dockerfile(bundle: Bundle, description: Mapping[str, Any]) -> str:
    """Return the Dockerfile of an image with package, label and `serve` as its command."""
    encoded = _encoded(json.dumps(description))
    command = ["scoremri", "serve", "--host", "0.0.0.0", "--port", str(PORT)]
    command += ["--default-chain", "score_recon.xml"]  # for any name from the scanner
    cupy = ' "cupy-cuda11x>=13,<14"' if bundle.device == "cuda" else ""
    return f"""\
# {NAME} {bundle.version} for OpenRecon ({bundle.device}), used by build.sh
FROM python:3.12-slim
{TORCH[bundle.device]}
COPY {bundle.wheel} /tmp/
RUN pip install --no-cache-dir /tmp/{bundle.wheel}{cupy} \\
    && rm /tmp/{bundle.wheel}

RUN mkdir -p {ENTRY} \\
    && echo {_encoded(MAIN)} | base64 -d > {ENTRY}/main.py \\
    && echo {_encoded(MODULE)} | base64 -d > {ENTRY}/score_recon.py

EXPOSE {PORT}
CMD {json.dumps(command)}

# OpenReconLabel.json in base64
LABEL "{LABEL}"="{encoded}"
"""


def _encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def parameters(bundle: Bundle) -> str:
    """Return the params.sh of a recipe of github.com/neurodesk/openrecon."""
    return f"""\
#!/bin/bash
# A recipe of github.com/neurodesk/openrecon: copy OpenReconLabel.json, README.md and params.sh to
# recipes/{NAME}, build and tag the image with build.sh, then run ../build.sh --local-cache there.
export toolName={NAME}
export version={bundle.version}
export baseDockerImage=vnmd/${{toolName}}_${{version}}
export localDockerImage={bundle.image}
"""


def build_script(bundle: Bundle) -> str:
    """Return a script that builds the bundle for the scanner."""
    base, needed = bundle.base, bundle.wheel
    index = ""
    if bundle.device == "cuda":
        index = ': "${TORCH_INDEX:?address of the index of torch wheels for CUDA 11.8}"\n'
    return f"""\
#!/bin/sh
# Builds {base}.zip with the image and the manual.
set -eu
cd "$(dirname "$0")"
if [ ! -f {needed} ]; then
    echo "first: pip wheel --no-deps -w . FOLDER_OF_SCOREMRI, which builds {needed}" >&2
    exit 2
fi
{index}docker build --platform linux/amd64 --build-arg TORCH_INDEX="${{TORCH_INDEX:-}}" \\
    -t {bundle.image} -f {base}.Dockerfile .
docker save -o {base}.tar {bundle.image}
python3 -m zipfile -c {base}.zip {base}.tar {base}.pdf
"""
