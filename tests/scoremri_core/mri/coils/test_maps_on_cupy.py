"""Coil maps with a mock of CuPy: NumPy restricted to functions of CuPy.

`tests/gpu.sh` tests with CuPy on a GPU.
"""

import sys
from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pytest

from scoremri_core.mri.coils.maps import estimate_coil_maps

# functions in the reference of CuPy 14
FUNCTIONS = [
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
MODULES = {
    "fft": ["fft", "fft2", "fftfreq", "fftn", "fftshift", "ifft", "ifft2", "ifftn", "ifftshift"],
    "linalg": ["det", "eigh", "eigvalsh", "inv", "norm", "pinv", "qr", "solve", "svd"],
}


class Restricted:
    """Some names of a module."""

    def __init__(self, module, names, **more):
        self._module, self._names = module, names
        self.__dict__.update(more)
        self.used = set()

    def __getattr__(self, name):
        if name not in self._names:
            raise AttributeError(f"CuPy has no {name}, or it is not listed")
        self.used.add(name)
        return getattr(self._module, name)


@pytest.fixture
def cupy(monkeypatch):
    windows = SimpleNamespace(sliding_window_view=np.lib.stride_tricks.sliding_window_view)
    module = Restricted(
        np,
        FUNCTIONS,
        lib=SimpleNamespace(stride_tricks=windows),
        cuda=SimpleNamespace(Device=lambda index: nullcontext()),
        **{name: Restricted(getattr(np, name), names) for name, names in MODULES.items()},
    )
    monkeypatch.setitem(sys.modules, "cupy", module)
    return module


@pytest.mark.parametrize("sets", [1, 2, "auto"])
def test_maps_with_functions_of_cupy_only(cupy, sets):
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
    cpu = estimate_coil_maps(kspace, sets, covariance)
    gpu = estimate_coil_maps(kspace, sets, covariance, device="cuda")
    np.testing.assert_array_equal(gpu, cpu)
    assert {"asarray", "where"} <= cupy.used
    assert "eigh" in cupy.linalg.used


def test_mock_lacks_other_functions(cupy):
    with pytest.raises(AttributeError, match="no nanpercentile_of_all"):
        cupy.nanpercentile_of_all  # noqa: B018
