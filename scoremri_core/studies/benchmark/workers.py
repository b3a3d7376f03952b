"""A process for each row, so that its memory is its own; they stay warm and run in turns."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from types import TracebackType
from typing import NoReturn

from scoremri_core.studies.benchmark.bart import NotInstalledError
from scoremri_core.studies.benchmark.case import Case, Measurement
from scoremri_core.studies.benchmark.memory import own_high_water
from scoremri_core.studies.benchmark.methods import GROUPS

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")


class Worker:
    """The process of one row.

    Parameters
    ----------
    group, name : of the row, in `methods.GROUPS`.
    threads : each library may use; None leaves it to them.

    Attributes
    ----------
    failure : why the row cannot be measured, or None.
    """

    def __init__(self, group: str, name: str, threads: int | None = None) -> None:
        self.name = name
        self.failure: str | None = None
        self._row = group, name
        environment = dict(os.environ)
        if threads is not None:
            environment.update(dict.fromkeys(THREADS, str(threads)))
        self._connection, theirs = Pipe()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", __name__, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                env=environment,
                start_new_session=True,  # an interrupt is the parent's, which ends the others
            )

    def __enter__(self) -> Worker:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._connection.close()
        if error is not None:
            self._process.terminate()
        self._process.wait()

    def prepare(self, case: Case) -> None:
        """Send the case; the row warms up."""
        self._send((*self._row, case))

    def answer(self) -> Measurement | None:
        """Wait until the row is warm, or for what it measured; a failure is kept."""
        if self.failure is not None:
            return None
        try:
            answer = self._connection.recv()
        except (EOFError, OSError):
            answer = f"failed: its process ended with {self._process.wait()}"
        if isinstance(answer, str):
            self.failure = answer
            return None
        return answer if isinstance(answer, Measurement) else None

    def run(self) -> Measurement | None:
        """Run the row once."""
        self._send("run")
        return self.answer()

    def _send(self, message: object) -> None:
        if self.failure is None:
            try:
                self._connection.send(message)
            except OSError:
                self.failure = f"failed: its process ended with {self._process.wait()}"


def measure(
    group: str,
    names: Sequence[str],
    case: Case,
    repetitions: int,
    threads: int | None = None,
    advance: Callable[[str], None] = lambda note: None,
) -> dict[str, list[Measurement] | str]:
    """Run the rows of a group side by side, once to warm up and then in turns.

    The order of the rows is reversed from one round to the next, so that a machine that slows
    down or speeds up favours none of them.

    Parameters
    ----------
    group, names : of the rows.
    case : what they run on.
    repetitions : rounds.
    threads : of each process; None leaves it to the libraries.
    advance : called with a row's name when it is warm, and after each of its runs.

    Returns
    -------
    For each row its measurements, round by round, or why there are none.
    """
    runs: dict[str, list[Measurement]] = {name: [] for name in names}
    with ExitStack() as stack:
        workers = [stack.enter_context(Worker(group, name, threads)) for name in names]
        for worker in workers:
            worker.prepare(case)
        for worker in workers:
            worker.answer()
            advance(worker.name)
        for i in range(repetitions):
            for worker in workers if i % 2 == 0 else reversed(workers):
                found = worker.run()
                if found is not None:
                    runs[worker.name].append(found)
                advance(worker.name)
    return {worker.name: worker.failure or runs[worker.name] for worker in workers}


def serve(connection: Connection) -> None:
    """Be the process of a row: warm up, then run whenever asked, until the other end closes."""
    try:
        group, name, case = connection.recv()
        try:
            run = GROUPS[group][name](case)
            connection.send(None)
            while connection.recv() == "run":
                found = run()
                memory = own_high_water() if found.memory is None else found.memory
                connection.send(replace(found, memory=memory))
        except NotInstalledError as error:
            connection.send(str(error))
        except (ValueError, RuntimeError, MemoryError, OSError) as error:
            connection.send(f"failed: {' '.join(str(error).split()) or type(error).__name__}")
    except (EOFError, BrokenPipeError):
        return  # whoever asked is gone


def _stop(*_: object) -> NoReturn:
    sys.exit(128 + signal.SIGTERM)  # so that temporary folders are removed


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _stop)
    serve(Connection(int(sys.argv[1])))
