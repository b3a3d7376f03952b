"""All files of a bundle except the image, which Docker builds from them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gadgets.openrecon.bundle import NAME, Bundle
from gadgets.openrecon.image import build_script, dockerfile, parameters
from gadgets.openrecon.label import label
from gadgets.openrecon.manual import readme, write_manual


def files(bundle: Bundle) -> dict[str, Callable[[Path], Any]]:
    """Return the files of a bundle: name, and function that writes the file to a path.

    Label, README.md and params.sh are a recipe of github.com/neurodesk/openrecon.
    """
    description = label(bundle)
    manual = readme(bundle, description)
    texts = {
        "OpenReconLabel.json": json.dumps(description, indent=2) + "\n",
        f"{bundle.base}.Dockerfile": dockerfile(bundle, description),
        "build.sh": build_script(bundle),
        "README.md": manual,
        "params.sh": parameters(bundle),
    }
    files: dict[str, Callable[[Path], Any]] = {
        name: lambda path, text=text: path.write_text(text, "utf-8")  # type: ignore[misc]
        for name, text in texts.items()
    }
    files[f"{bundle.base}.pdf"] = lambda path: write_manual(
        path, manual, f"{NAME} {bundle.version} for OpenRecon"
    )
    return files
