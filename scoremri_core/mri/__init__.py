"""MRI: Fourier transforms, noise, coil maps, forward operator and classical reconstructions."""
