"""One process per method, for separate memory; they stay warm and run in turns."""

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
    """The process of one method.

    Parameters
    ----------
    group, name : str
        Of the method in `methods.GROUPS`.
    threads : int, optional
        Threads of each library; None for their defaults.

    Attributes
    ----------
    failure : str or None
        Why the method cannot be measured.
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
                start_new_session=True,  # only the parent receives interrupts and ends the workers
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
        """Send the case, on which the method warms up."""
        self._send((*self._row, case))

    def answer(self) -> Measurement | None:
        """Wait for the warm-up or a measurement; store a failure."""
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
        """Run the method once."""
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
    """Run the methods of a group, once to warm up and then in turns.

    The order is reversed in every other round, so that drifts of the machine's speed cancel.

    Parameters
    ----------
    group : str
    names : sequence of str
        Methods of the group.
    case : Case
    repetitions : int
        Rounds.
    threads : int, optional
        Of each process; None for the defaults of the libraries.
    advance : callable, optional
        Called with the name of a method after its warm-up and after each run.

    Returns
    -------
    dict of str to list of Measurement, or str
        The measurements of each method, round by round, or the reason of a failure.
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
                measurement = worker.run()
                if measurement is not None:
                    runs[worker.name].append(measurement)
                advance(worker.name)
    return {worker.name: worker.failure or runs[worker.name] for worker in workers}


def serve(connection: Connection) -> None:
    """Serve as the process of a method: warm up, then run on request until the pipe closes."""
    try:
        group, name, case = connection.recv()
        try:
            run = GROUPS[group][name](case)
            connection.send(None)
            while connection.recv() == "run":
                measurement = run()
                memory = own_high_water() if measurement.memory is None else measurement.memory
                connection.send(replace(measurement, memory=memory))
        except NotInstalledError as error:
            connection.send(str(error))
        except (ValueError, RuntimeError, MemoryError, OSError) as error:
            connection.send(f"failed: {' '.join(str(error).split()) or type(error).__name__}")
    except (EOFError, BrokenPipeError):
        return  # the parent process has ended


def _stop(*_: object) -> NoReturn:
    sys.exit(128 + signal.SIGTERM)  # removes temporary folders


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _stop)
    serve(Connection(int(sys.argv[1])))
