"""E2E-VarNet of MONAI: coil maps and image from one network.

Sriram et al., "End-to-end variational networks for accelerated MRI reconstruction", MICCAI 2020.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from scoremri_core.errors import InputError
from scoremri_core.mri.fourier import to_image
from scoremri_core.mri.sampling import calibration_extent
from scoremri_core.studies.methods import EXTRA


class VarNet(nn.Module):
    """MONAI's network with calibration lines along any axis; returns the root sum of squares.

    Parameters
    ----------
    width : int, optional
        Channels of the U-Nets' finest scale.
    cascades : int, optional
        Of data consistency and U-Net.

    Raises
    ------
    InputError
        MONAI is not installed.
    """

    def __init__(self, width: int = 8, cascades: int = 4) -> None:
        super().__init__()
        try:
            from monai.apps.reconstruction.networks.blocks.varnetblock import VarNetBlock
            from monai.apps.reconstruction.networks.nets.complex_unet import ComplexUnet
        except ImportError as error:
            raise InputError(f"varnet: needs MONAI, of the extra `{EXTRA}`") from error

        def unet(finest: int) -> Any:
            widths = tuple(finest * m for m in (1, 1, 2, 4, 8, 1))
            return ComplexUnet(features=widths)

        self.sensitivities = unet(max(4, width // 2))
        self.cascades = nn.ModuleList(VarNetBlock(unet(width)) for _ in range(cascades))

    def forward(self, kspace: Tensor, maps: Tensor, mask: Tensor) -> Tensor:
        """Return the magnitude, (batch, y, x); the coil maps are estimated by the network."""
        data = torch.view_as_real(kspace)
        sampled = mask[:, None, :, :, None]
        coil_maps = self._coil_maps(kspace, mask)
        predicted = data
        for cascade in self.cascades:
            predicted = cascade(predicted, data, sampled, coil_maps)
        coils = to_image(torch.view_as_complex(predicted.contiguous()))
        power: Tensor = torch.view_as_real(coils).square().sum((1, -1))
        return (power + 1e-12).sqrt()

    def _coil_maps(self, kspace: Tensor, mask: Tensor) -> Tensor:
        """Estimate maps (batch, coil, y, x, 2) from the calibration lines (Sriram, Eq. 12)."""
        centre = torch.zeros_like(kspace)
        for i, sampled in enumerate(mask.cpu().numpy()):
            rows, columns = calibration_extent(sampled)
            centre[i, :, rows, columns] = kspace[i, :, rows, columns]
        images = torch.view_as_real(to_image(centre))
        batch, coils, ny, nx, _ = images.shape
        found: Tensor = self.sensitivities(images.reshape(batch * coils, 1, ny, nx, 2))
        found = found.reshape(batch, coils, ny, nx, 2)
        norm = (found.square().sum((1, -1), keepdim=True) + 1e-12).sqrt()
        return found / norm
