"""Score-based MRI reconstruction: arrays and mathematics, no sockets.

The front door is `reconstruct`; `load_prior` gives a trained denoiser.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from scoremri_core.priors import load_prior
    from scoremri_core.recon.progress import Progress
    from scoremri_core.recon.reconstruction import reconstruct, reconstruct_volume
    from scoremri_core.recon.reconstructor import Reconstructor
    from scoremri_core.recon.result import Info, Reconstruction
    from scoremri_core.samplers.hmc import HmcOptions
    from scoremri_core.samplers.langevin import LangevinOptions
    from scoremri_core.samplers.posterior import PosteriorOptions
    from scoremri_core.samplers.pula import PulaOptions

_WHERE = {
    "HmcOptions": "samplers.hmc",
    "Info": "recon.result",
    "LangevinOptions": "samplers.langevin",
    "PosteriorOptions": "samplers.posterior",
    "Progress": "recon.progress",
    "PulaOptions": "samplers.pula",
    "Reconstruction": "recon.result",
    "Reconstructor": "recon.reconstructor",
    "load_prior": "priors",
    "reconstruct": "recon.reconstruction",
    "reconstruct_volume": "recon.reconstruction",
}

__all__ = [
    "HmcOptions",
    "Info",
    "LangevinOptions",
    "PosteriorOptions",
    "Progress",
    "PulaOptions",
    "Reconstruction",
    "Reconstructor",
    "load_prior",
    "reconstruct",
    "reconstruct_volume",
]

__version__: str


def __getattr__(name: str) -> Any:
    """Import the front door when it is first used: torch takes seconds to load."""
    if name == "__version__":
        from importlib.metadata import version

        return version("scoremri")
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_WHERE[name]}"), name)
