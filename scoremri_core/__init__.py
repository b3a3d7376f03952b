"""Score-based MRI reconstruction: arrays and mathematics, no sockets.

The front door is `reconstruct`; `load_prior` gives a trained denoiser.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from scoremri_core.priors import load_prior
    from scoremri_core.reconstruction import reconstruct
    from scoremri_core.result import Info, Reconstruction

__all__ = ["Info", "Reconstruction", "load_prior", "reconstruct"]

__version__: str


def __getattr__(name: str) -> Any:
    """Import the front door when it is first used: torch takes seconds to load."""
    if name == "__version__":
        from importlib.metadata import version

        return version("scoremri")
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from scoremri_core import priors, reconstruction

    return getattr(priors if name == "load_prior" else reconstruction, name)
