"""Posterior samplers: draw images given data, a forward operator and a denoiser."""

NONE = "none"  # no samples: a classical reconstruction only
SAMPLERS = ("posterior", "langevin", "hmc", "pula", NONE)
