"""Independence of the caller's settings and random state of torch and NumPy."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import wraps
from typing import ParamSpec, TypeVar

import numpy as np
import torch

from scoremri_core.threads import one_thread

P = ParamSpec("P")
R = TypeVar("R")


def isolated(function: Callable[P, R]) -> Callable[P, R]:
    """Decorate a function to run under `default_settings`."""

    @wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        with default_settings():
            return function(*args, **kwargs)

    return run


@contextmanager
def default_settings() -> Iterator[None]:
    """Run a block under default settings of torch and NumPy, then restore those of the caller.

    Inference mode, gradients and autocast are off, the default dtype is float32, the default device
    is the CPU, NumPy warns about results that are not finite, and its linear algebra uses one
    thread. The global random state of torch is restored.
    """
    with ExitStack() as stack:
        stack.enter_context(one_thread)
        stack.enter_context(np.errstate(divide="warn", over="warn", under="ignore", invalid="warn"))
        # modules draw initial weights before loading
        stack.enter_context(torch.random.fork_rng(devices=[]))
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.no_grad())
        for device in ("cpu", "cuda"):
            if torch.is_autocast_enabled(device):
                stack.enter_context(torch.autocast(device, enabled=False))
        # set only if needed: the former is process-wide, the latter slows every call
        if torch.get_default_dtype() != torch.float32:
            stack.callback(torch.set_default_dtype, torch.get_default_dtype())
            torch.set_default_dtype(torch.float32)
        if torch.get_default_device().type != "cpu":
            stack.enter_context(torch.device("cpu"))
        yield
