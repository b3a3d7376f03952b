"""What the scans of one resident process have in common."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from gadgets.stages.observer import ScanObserver
from gadgets.stages.properties import Properties
from gadgets.stream.turns import Turns
from scoremri_core.errors import InputError
from scoremri_core.samplers import SAMPLERS


@dataclass(frozen=True)
class Shared:
    """One copy of the weights, one device, one folder for recordings.

    Attributes
    ----------
    priors : loaded, by name; with "default" come those of all samplers.
    device : where scans compute that leave it to the server.
    turns : at the device.
    capture : folder where each scan is saved; empty saves nothing.
    observer : makes the observer of a scan.
    """

    priors: Mapping[str, Any]
    device: str = "auto"
    turns: Turns = field(default_factory=Turns)
    capture: str = ""
    observer: Callable[[], ScanObserver] = ScanObserver

    @classmethod
    def load(
        cls,
        priors: Iterable[str],
        device: str = "auto",
        capture: str = "",
        observer: Callable[[], ScanObserver] = ScanObserver,
    ) -> Shared:
        """Load priors, and see what the device is.

        Raises
        ------
        InputError
            As `load_prior`, and where there is no such device.
        """
        from scoremri_core import load_prior
        from scoremri_core.recon.request import find_device

        where = find_device(device)
        names = {_prior_name(sampler, name) for name in priors for sampler in SAMPLERS}
        loaded = {name: load_prior(name).to(where) for name in sorted(names)}
        return cls(loaded, device, capture=capture, observer=observer)

    def applied(self, properties: Properties) -> Properties:
        """The properties of a scan as they are served here.

        Its prior is one of those loaded.  What is written on this machine, and where, is not for
        a client to say.

        Raises
        ------
        InputError
            For a prior that was not loaded.
        """
        prior: Any = properties.prior
        if properties.sampler != "none":
            name = _prior_name(properties.sampler, prior)
            found = self.priors.get(name, self.priors.get(prior))
            if found is None:
                known = ", ".join(self.priors) or "none"
                raise InputError(f"prior '{name}' was not loaded by this server: known are {known}")
            prior = found
        device = self.device if properties.device == "auto" else properties.device
        return replace(properties, prior=prior, device=device, capture=self.capture)


def _prior_name(sampler: str, given: str) -> str:
    from scoremri_core.samplers.registry import find_sampler

    return find_sampler(sampler, None, {}).prior_name(given)
