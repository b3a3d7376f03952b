"""Training a prior: manifest -> volumes -> slices -> augment -> loop -> measure -> card."""

from typing import Any

ARCHITECTURES = ("unet", "residual-unet", "ncsnv2")
LOSSES = ("denoising", "signed")
OPTIMIZERS = ("adamw", "adam")
SCHEDULES = ("cosine", "constant")
DEPTHS = ("plain", "deeper", "deepest")

# Training settings of the papers and their public code, by option of the command line; those that
# are not published keep their defaults.
PRESETS: dict[str, dict[str, Any]] = {
    # Jalal et al. 2021, brain: the configurations of csgm-mri-langevin, which read the checkpoint
    # of step 100,000
    "jalal2021": {
        "architecture": "ncsnv2",
        "width": 128,
        "depth": "deepest",
        "levels": 2311,
        "sigma_begin": 232.0,
        "sigma_end": 0.0066,
        "steps": 100_000,
        "patch": 384,
        "learning_rate": 1e-4,
        "optimizer": "adam",
        "adam_eps": 1e-3,
        "schedule": "constant",
        "ema_decay": 0.999,
        "processed": 0.0,
    },
    # Ramzi et al. 2020: s = 50 where the images, times 1e6, are of the order of 100
    "ramzi2020": {
        "architecture": "residual-unet",
        "channels": "32,64,128",
        "blocks": "2,2,2",
        "loss": "signed",
        "signed_sd": 0.5,
        "processed": 0.0,
        "learning_rate": 1e-4,
        "optimizer": "adam",
        "schedule": "constant",
        "spectral_norm": True,
    },
}
