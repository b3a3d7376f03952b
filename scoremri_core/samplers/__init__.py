"""Posterior samplers: each draws images given data, a forward operator and a denoiser."""
