"""State shared by the scans of one process."""

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
    """Weights, device, recording folder and observers of all scans.

    Attributes
    ----------
    priors : mapping of str to Denoiser
        Loaded priors; "default" includes those of all samplers.
    device : str
        Device of scans with device=auto.
    turns : Turns
        Turns at the device.
    capture : str
        Folder to save each scan in; empty saves nothing.
    observer : callable
        Returns the observer of one scan.
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
        """Load the priors onto the device.

        Parameters
        ----------
        priors : iterable of str
            Names or paths.
        device, capture, watch
            As the attributes.

        Raises
        ------
        InputError
            As `load_prior`, or the device is not available.
        """
        from scoremri_core import load_prior
        from scoremri_core.recon.request import find_device

        where = find_device(device)
        names = {_prior_name(sampler, name) for name in priors for sampler in SAMPLERS}
        loaded = {name: load_prior(name).to(where) for name in sorted(names)}
        return cls(loaded, device, capture=capture, observer=observer)

    def applied(self, properties: Properties) -> Properties:
        """Return the properties of a scan with loaded prior, device and capture folder.

        A client cannot choose where files are written.

        Raises
        ------
        InputError
            The prior was not loaded.
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
