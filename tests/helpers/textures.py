"""Synthetic slices for training."""

import numpy as np

from scoremri_core.training.slices import Slice


def textures(count=3):
    rng = np.random.default_rng(0)
    images = [np.kron(rng.uniform(0.2, 1, (6, 6)), np.ones((8, 8))) for _ in range(count)]
    return [Slice(image.astype(np.float16), "s", "T1W") for image in images]
