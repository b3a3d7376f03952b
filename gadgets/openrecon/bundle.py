"""Names of the files and of the image of an OpenRecon bundle."""

from __future__ import annotations

import re
from dataclasses import dataclass

import scoremri_core
from scoremri_core.errors import InputError

NAME = "scoremri"  # name and id; the bundle formats use either in file names
DEVICES = ("cuda", "cpu")
PORT = 9002
SUMMARY = "Score-based reconstruction of Cartesian scans, with an uncertainty map."
CAUTION = "For research only: not a medical device, not for diagnosis."


@dataclass(frozen=True)
class Bundle:
    """Names of the files and of the image.

    Attributes
    ----------
    vendor : str
        Letters, digits and hyphens.
    device : str
        "cuda" or "cpu".
    """

    vendor: str
    device: str = "cuda"

    def __post_init__(self) -> None:
        """Raise InputError for an invalid vendor."""
        if not re.fullmatch(r"[A-Za-z0-9]+(-[A-Za-z0-9]+)*", self.vendor):
            raise InputError(f"vendor '{self.vendor}': expected letters, digits and single hyphens")

    @property
    def version(self) -> str:
        """Semantic version of the package: 0.2.0.dev1 is 0.2.0-dev1."""
        found = re.match(r"(\d+)\.(\d+)(?:\.(\d+))?(.*)", scoremri_core.__version__)
        major, minor, patch, rest = found.groups() if found else ("0", "0", "0", "")
        rest = re.sub(r"[^0-9A-Za-z]+", "-", rest).strip("-")
        return f"{major}.{minor}.{patch or 0}" + (f"-{rest}" if rest else "")

    @property
    def base(self) -> str:
        """File name without suffix."""
        return f"OpenRecon_{self.vendor}_{NAME}_V{self.version}"

    @property
    def image(self) -> str:
        """Name and tag of the container image."""
        return f"openrecon_{self.vendor}_{NAME}:v{self.version}".lower()

    @property
    def wheel(self) -> str:
        """File name of the package's wheel."""
        return f"{NAME}-{scoremri_core.__version__}-py3-none-any.whl"
