"""Coil maps with a stand-in for CuPy: NumPy, less what CuPy lacks.

Where there is a GPU, `tests/gpu.sh` compares CuPy itself.
"""

import sys
from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pytest

from scoremri_core.mri.coils.maps import estimate_coil_maps

# of the functions that CuPy's reference lists (cupy 14), those that coil maps may need
KNOWN = [
    "abs",
    "angle",
    "arange",
    "argmax",
    "argsort",
    "asarray",
    "bool_",
    "broadcast_to",
    "ceil",
    "clip",
    "complex64",
    "concatenate",
    "cos",
    "diag",
    "dot",
    "einsum",
    "empty",
    "empty_like",
    "exp",
    "eye",
    "float32",
    "full",
    "full_like",
    "imag",
    "int32",
    "int64",
    "isfinite",
    "linspace",
    "matmul",
    "max",
    "maximum",
    "mean",
    "median",
    "min",
    "minimum",
    "moveaxis",
    "nan_to_num",
    "ndarray",
    "newaxis",
    "ones",
    "outer",
    "percentile",
    "real",
    "reshape",
    "roll",
    "sin",
    "sort",
    "sqrt",
    "stack",
    "sum",
    "swapaxes",
    "take_along_axis",
    "tensordot",
    "trace",
    "transpose",
    "where",
    "zeros",
    "zeros_like",
]
PARTS = {
    "fft": ["fft", "fft2", "fftfreq", "fftn", "fftshift", "ifft", "ifft2", "ifftn", "ifftshift"],
    "linalg": ["det", "eigh", "eigvalsh", "inv", "norm", "pinv", "qr", "solve", "svd"],
}


class Only:
    """Some names of a module; any other is missing."""

    def __init__(self, module, names, **more):
        self._module, self._names = module, names
        self.__dict__.update(more)
        self.asked = set()

    def __getattr__(self, name):
        if name not in self._names:
            raise AttributeError(f"CuPy has no {name}, or it is not on the list")
        self.asked.add(name)
        return getattr(self._module, name)


@pytest.fixture
def cupy(monkeypatch):
    windows = SimpleNamespace(sliding_window_view=np.lib.stride_tricks.sliding_window_view)
    module = Only(
        np,
        KNOWN,
        lib=SimpleNamespace(stride_tricks=windows),
        cuda=SimpleNamespace(Device=lambda index: nullcontext()),
        **{part: Only(getattr(np, part), names) for part, names in PARTS.items()},
    )
    monkeypatch.setitem(sys.modules, "cupy", module)
    return module


@pytest.mark.parametrize("sets", [1, 2, "auto"])
def test_only_what_cupy_has_is_needed_and_the_maps_are_the_same(cupy, sets):
    rng = np.random.default_rng(0)
    y, x = np.meshgrid(*(np.linspace(-1, 1, 40),) * 2, indexing="ij")
    places = [(-1.2, 0), (1.2, 0), (0, 1.2)]
    coils = np.array([np.exp(-((y - a) ** 2) - (x - b) ** 2) for a, b in places])
    shift, back = np.fft.ifftshift, np.fft.fftshift
    images = coils * (np.hypot(y, x) < 0.8)
    kspace = back(np.fft.fft2(shift(images, (1, 2)), norm="ortho"), (1, 2))
    kspace = (kspace + 1e-3 * rng.normal(size=kspace.shape)).astype(np.complex64)
    kspace[:, :10] = kspace[:, 30:] = 0
    covariance = 1e-6 * np.eye(3)
    here = estimate_coil_maps(kspace, sets, covariance)
    there = estimate_coil_maps(kspace, sets, covariance, device="cuda")
    np.testing.assert_array_equal(there, here)
    assert {"asarray", "where"} <= cupy.asked
    assert "eigh" in cupy.linalg.asked


def test_the_stand_in_refuses_what_cupy_lacks(cupy):
    with pytest.raises(AttributeError, match="no nanpercentile_of_all"):
        cupy.nanpercentile_of_all  # noqa: B018
