"""Training a prior: manifest -> volumes -> slices -> augment -> loop -> measure -> card."""

ARCHITECTURES = ("unet", "residual-unet")
LOSSES = ("denoising", "signed")
