"""The Berkeley Advanced Reconstruction Toolbox, if its command `bart` is installed.

Uecker et al., "Berkeley Advanced Reconstruction Toolbox", ISMRM 23:2486 (2015).
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from scoremri_core.studies.benchmark.memory import high_water

POLL_SECONDS = 0.005


class NotInstalledError(Exception):
    """A program or package to compare with is not installed."""


class Bart:
    """Run BART on arrays in a temporary folder.

    Attributes
    ----------
    memory : float or None
        Peak of all calls in MB, polled every 5 ms; None if the system does not report it.

    Raises
    ------
    NotInstalledError
        No `bart` on the path.
    """

    def __init__(self) -> None:
        command = shutil.which("bart")
        if command is None:
            raise NotInstalledError("not installed (Debian package bart)")
        self._command = command
        self._folder = tempfile.TemporaryDirectory(prefix="scoremri-bart-")
        self.memory: float | None = None

    def __enter__(self) -> Bart:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._folder.cleanup()

    def put(self, name: str, array: ArrayLike) -> None:
        """Write a complex array (coil, y, x) under a name."""
        data = np.asarray(array, np.complex64)[:, None]  # (coil, z, y, x)
        self._file(name, "hdr").write_text(
            "# Dimensions\n" + " ".join(map(str, data.shape[::-1])) + "\n"
        )
        np.ascontiguousarray(data).tofile(self._file(name, "cfl"))

    def get(self, name: str) -> NDArray[np.complex64]:
        """Read an array without its axes of length one."""
        header = self._file(name, "hdr").read_text().splitlines()
        sizes = [int(size) for size in header[header.index("# Dimensions") + 1].split()]
        data = np.fromfile(self._file(name, "cfl"), np.complex64)
        return data.reshape(sizes[::-1]).squeeze()

    def run(self, *arguments: str) -> float:
        """Run a tool of the toolbox and return its seconds, including start and files.

        Raises
        ------
        RuntimeError
            The tool failed.
        """
        start = time.perf_counter()
        process = subprocess.Popen(
            [self._command, *arguments],
            cwd=self._folder.name,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        watcher = threading.Thread(target=self._watch, args=(process,), daemon=True)
        try:
            watcher.start()
            _, errors = process.communicate()
            seconds = time.perf_counter() - start
        finally:
            process.kill()  # after another exception
            process.wait()  # ends the watcher
        if process.returncode:
            lines: list[Any] = errors.strip().splitlines() or [f"exit code {process.returncode}"]
            raise RuntimeError(f"bart {arguments[0]}: {lines[-1]}")
        return seconds

    def _watch(self, process: subprocess.Popen[str]) -> None:
        # the peak of wait4 includes the memory of the parent process
        while process.returncode is None:
            peak = high_water(process.pid)
            if peak is not None:
                self.memory = max(peak, self.memory or 0)
            time.sleep(POLL_SECONDS)

    def _file(self, name: str, suffix: str) -> Path:
        return Path(self._folder.name, f"{name}.{suffix}")
