"""The linear algebra of NumPy uses one thread during computations."""

import threading

import numpy as np
import pytest
from threadpoolctl import ThreadpoolController, threadpool_limits

from scoremri_core import reconstruct
from scoremri_core.kspace import KSpace
from scoremri_core.recon.calibrate import calibrate
from scoremri_core.threads import one_thread


def threads():
    libraries = ThreadpoolController().select(user_api="blas").info()
    return {library["num_threads"] for library in libraries}


@pytest.fixture
def two_threads():
    with threadpool_limits(2, user_api="blas"):
        if threads() != {2}:
            pytest.skip("BLAS has no threads here")
        yield


def test_threads_are_restored_when_the_last_thread_leaves(two_threads):
    """Here the thread that leaves last is not the one that entered first."""
    entered, leave, seen = threading.Event(), threading.Event(), []

    def second():
        with one_thread:
            entered.set()
            leave.wait(10)
            seen.append(threads())
        seen.append(threads())

    other = threading.Thread(target=second)
    with one_thread:
        other.start()
        assert entered.wait(10)
        assert threads() == {1}
    assert threads() == {1}
    leave.set()
    other.join(10)
    assert seen == [{1}, {2}]
    for _ in range(2):
        with one_thread:
            assert threads() == {1}
        assert threads() == {2}


def test_threads_are_restored_after_an_error(two_threads):
    with pytest.raises(KeyError), one_thread:
        raise KeyError
    assert threads() == {2}


def test_rounding_does_not_depend_on_the_number_of_threads():
    rng = np.random.default_rng(0)
    kspace = (rng.normal(size=(8, 256, 256, 2)) @ [1, 1j]).astype(np.complex64)
    found = []
    for number in (1, 2):
        with threadpool_limits(number, user_api="blas"):
            slice_ = calibrate(KSpace.of(kspace))
            result = reconstruct(kspace[..., ::2, ::2], sampler="none")
            found.append((slice_.noise.covariance, slice_.maps, result.mean))
    for one, two in zip(*found, strict=True):
        np.testing.assert_array_equal(one, two)
