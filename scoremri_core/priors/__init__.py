"""Image priors: networks and closed forms that denoise."""

from scoremri_core.priors.base import Denoiser
from scoremri_core.priors.storage import load_prior, save_prior, shipped_priors

__all__ = ["Denoiser", "load_prior", "save_prior", "shipped_priors"]
