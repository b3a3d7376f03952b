"""Reconstruction methods of the studies by name; those that need a model have a file each."""

ZERO_FILLED = "zero-filled"
CG_SENSE = "CG-SENSE"
L1_WAVELET = "L1-wavelet"
CONV_DECODER = "ConvDecoder"
POSTERIOR_MEAN = "posterior mean"
NETWORKS = ("varnet", "modl", "updnet")  # trained end to end
EXTRA = "compare"  # brings MONAI

LAMBDAS = (0.003, 0.01, 0.03)  # of L1-wavelet; the best is chosen where the reference is known
FIXED_LAMBDA = LAMBDAS[1]  # where it is not
