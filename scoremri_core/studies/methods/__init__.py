"""What others do with an undersampled slice, for comparison: one method a file."""

NETWORKS = ("varnet", "modl", "updnet")  # trained end to end
EXTRA = "compare"  # brings MONAI
