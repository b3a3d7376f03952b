"""One process, or the several that torchrun started."""

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
    """This process among those that train together.

    Attributes
    ----------
    rank : of this process; the one of rank 0 reads first, writes and reports.
    count : of processes.
    device : where this one computes.
    """

    rank: int = 0
    count: int = 1
    device: str = "cpu"

    @property
    def first(self) -> bool:
        """Whether this process writes and reports."""
        return self.rank == 0

    def share(self, batch: int) -> range:
        """Indices of the patches of a batch that are this process's.

        Raises
        ------
        InputError : the batch cannot be shared out evenly.
        """
        if batch % self.count:
            raise InputError(f"batch is {batch}: expected a multiple of the {self.count} processes")
        return range(self.rank, batch, self.count)

    def mean(self, value: float) -> float:
        """Mean over the processes, each of which must call this."""
        if self.count == 1:
            return value
        total = torch.tensor(value, dtype=torch.float64, device=self.device)
        dist.all_reduce(total)
        return float(total) / self.count

    @contextmanager
    def in_turn(self) -> Iterator[None]:
        """Let the first process go ahead, then all others."""
        if self.count > 1 and not self.first:
            dist.barrier()
        yield
        if self.count > 1 and self.first:
            dist.barrier()


@contextmanager
def init_ranks(name: str) -> Iterator[Ranks]:
    """Join the processes that torchrun started, each on a GPU of its own; otherwise be alone.

    Only the first process logs what is not a warning.

    Parameters
    ----------
    name : of the device, auto, cpu, cuda or cuda:N; InputError for any other.
    """
    device = find_device(name)
    if not dist.is_torchelastic_launched():
        yield Ranks(device=str(device))
        return
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    # the first process may be long at reading the data
    backend = "nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, timeout=timedelta(hours=4))
    try:
        ranks = Ranks(dist.get_rank(), dist.get_world_size(), str(device))
        if not ranks.first:
            logging.getLogger("scoremri_core").setLevel(logging.WARNING)
        yield ranks
    finally:
        dist.destroy_process_group()
