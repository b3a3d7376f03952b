"""The measurement of an image: Fourier transforms, noise, coils, and images without a prior."""
