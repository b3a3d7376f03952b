"""Training a prior: manifest -> volumes -> slices -> augment -> loop -> measure -> card."""
