"""Posterior samplers: each draws images given data, a forward operator and a denoiser."""

SAMPLERS = ("posterior", "langevin", "hmc", "pula", "none")  # "none": the classical image alone
