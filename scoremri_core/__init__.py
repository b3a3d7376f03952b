"""Score-based MRI reconstruction on arrays.

`reconstruct` draws posterior samples of a slice or a stack, `reconstruct_volume` of a volume;
`load_prior` loads a denoiser.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from scoremri_core.errors import CalibrationError, InputError
    from scoremri_core.priors import load_prior
    from scoremri_core.recon.progress import Progress
    from scoremri_core.recon.reconstruction import reconstruct, reconstruct_volume
    from scoremri_core.recon.reconstructor import Reconstructor
    from scoremri_core.recon.result import Info, Reconstruction
    from scoremri_core.samplers.hmc import HmcOptions
    from scoremri_core.samplers.langevin import LangevinOptions
    from scoremri_core.samplers.posterior import PosteriorOptions
    from scoremri_core.samplers.pula import PulaOptions

_MODULES = {
    "CalibrationError": "errors",
    "HmcOptions": "samplers.hmc",
    "Info": "recon.result",
    "InputError": "errors",
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
    "CalibrationError",
    "HmcOptions",
    "Info",
    "InputError",
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
    """Import a public name on first use, since torch takes seconds to load."""
    if name == "__version__":
        from importlib.metadata import version

        return version("scoremri")
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    """List the public names, for completion and `help`, without importing them."""
    return sorted({*globals(), *__all__, "__version__"})
