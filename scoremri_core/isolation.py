"""Independence of the caller's settings of torch and NumPy, and of their random state."""

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
    """Let a function run under default settings of torch and NumPy, and leave the caller's alone.

    These are: inference mode and gradients off, default dtype float32, default device the CPU, no
    autocast, NumPy warning (not raising) where a result is not finite, and its linear algebra in
    one thread. Global random states are the same afterwards.
    """

    @wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        with default_settings():
            return function(*args, **kwargs)

    return run


@contextmanager
def default_settings() -> Iterator[None]:
    """The context that `isolated` functions run in."""
    with ExitStack() as stack:
        stack.enter_context(one_thread)
        stack.enter_context(np.errstate(divide="warn", over="warn", under="ignore", invalid="warn"))
        # modules draw initial weights before they are loaded
        stack.enter_context(torch.random.fork_rng(devices=[]))
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.no_grad())
        for device in ("cpu", "cuda"):
            if torch.is_autocast_enabled(device):
                stack.enter_context(torch.autocast(device, enabled=False))
        # both are of the whole process or slow every call: entered only where they are needed
        if torch.get_default_dtype() != torch.float32:
            stack.callback(torch.set_default_dtype, torch.get_default_dtype())
            torch.set_default_dtype(torch.float32)
        if torch.get_default_device().type != "cpu":
            stack.enter_context(torch.device("cpu"))
        yield
