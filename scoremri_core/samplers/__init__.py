"""Posterior samplers: each draws images given data, a forward operator and a denoiser."""

NONE = "none"  # the classical image alone
SAMPLERS = ("posterior", "langevin", "hmc", "pula", NONE)
