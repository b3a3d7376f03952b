"""Posterior samplers: each draws images given data, a forward operator and a denoiser."""

SAMPLERS = ("posterior", "none")  # "none": the classical image alone
