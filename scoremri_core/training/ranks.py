"""Processes of a training run, one or several started by torchrun."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist

from scoremri_core.errors import InputError
from scoremri_core.recon.request import find_device


@dataclass(frozen=True)
class Ranks:
    """One process of a training run.

    Attributes
    ----------
    rank : int
        Of this process; rank 0 reads first, writes and logs.
    count : int
        Number of processes.
    device : str
    """

    rank: int = 0
    count: int = 1
    device: str = "cpu"

    @property
    def first(self) -> bool:
        """Whether this process writes and logs."""
        return self.rank == 0

    def share(self, batch: int) -> range:
        """Return the indices of this process's patches in a batch.

        Raises
        ------
        InputError
            The batch is not a multiple of the number of processes.
        """
        if batch % self.count:
            raise InputError(f"batch is {batch}: expected a multiple of the {self.count} processes")
        return range(self.rank, batch, self.count)

    def mean(self, value: float) -> float:
        """Average over the processes, each of which must call this."""
        if self.count == 1:
            return value
        total = torch.tensor(value, dtype=torch.float64, device=self.device)
        dist.all_reduce(total)
        return float(total) / self.count

    @contextmanager
    def in_turn(self) -> Iterator[None]:
        """Run the block in the first process, then in all others."""
        if self.count > 1 and not self.first:
            dist.barrier()
        yield
        if self.count > 1 and self.first:
            dist.barrier()


@contextmanager
def init_ranks(name: str) -> Iterator[Ranks]:
    """Join the processes started by torchrun, one GPU each; a single process without torchrun.

    Only the first process logs below the level of warnings.

    Parameters
    ----------
    name : str
        Device: "auto", "cpu", "cuda" or "cuda:N".

    Yields
    ------
    Ranks

    Raises
    ------
    InputError
        An unknown device.
    """
    device = find_device(name)
    if not dist.is_torchelastic_launched():
        yield Ranks(device=str(device))
        return
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    # the first process may read data for a long time
    backend = "nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, timeout=timedelta(hours=4))
    try:
        ranks = Ranks(dist.get_rank(), dist.get_world_size(), str(device))
        if not ranks.first:
            logging.getLogger("scoremri_core").setLevel(logging.WARNING)
        yield ranks
    finally:
        dist.destroy_process_group()
