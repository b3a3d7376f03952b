"""Small scans whose k-space is a sum over pixels, without FFT or code of the package."""

import ismrmrd
import numpy as np
from ismrmrd import xsd

HEADER = """<?xml version="1.0"?>
<ismrmrdHeader xmlns="http://www.ismrm.org/ISMRMRD">
  <acquisitionSystemInformation>
    <relativeReceiverNoiseBandwidth>0.8</relativeReceiverNoiseBandwidth>
  </acquisitionSystemInformation>
  <experimentalConditions><H1resonanceFrequency_Hz>123000000</H1resonanceFrequency_Hz>
  </experimentalConditions>
  <encoding>
    <encodedSpace>
      <matrixSize><x>{ex}</x><y>{ey}</y><z>{ez}</z></matrixSize>
      <fieldOfView_mm><x>{fx}</x><y>{fy}</y><z>5</z></fieldOfView_mm>
    </encodedSpace>
    <reconSpace>
      <matrixSize><x>{rx}</x><y>{ry}</y><z>{ez}</z></matrixSize>
      <fieldOfView_mm><x>{gx}</x><y>{gy}</y><z>5</z></fieldOfView_mm>
    </reconSpace>
    <encodingLimits>
      <kspace_encoding_step_1>
        <minimum>0</minimum><maximum>{last}</maximum><center>{center}</center>
      </kspace_encoding_step_1>
      <average><minimum>0</minimum><maximum>{averages}</maximum><center>0</center></average>
    </encodingLimits>
    <trajectory>{trajectory}</trajectory>
    {parallel}
  </encoding>
</ismrmrdHeader>"""

PARALLEL = """<parallelImaging><accelerationFactor>
<kspace_encoding_step_1>2</kspace_encoding_step_1>
<kspace_encoding_step_2>1</kspace_encoding_step_2></accelerationFactor>
<calibrationMode>{mode}</calibrationMode></parallelImaging>"""


def header(ny, nx, *, oversampling=1, last=None, center=None, averages=1, mode=None, **other):
    """Return an ISMRMRD header with pixels of 2 x 3 mm (y, x)."""
    values = {
        "ex": nx * oversampling,
        "ey": ny,
        "ez": 1,
        "fx": 3 * nx * oversampling,
        "fy": 2 * ny,
        "rx": nx,
        "ry": ny,
        "gx": 3 * nx,
        "gy": 2 * ny,
        "last": ny - 1 if last is None else last,
        "center": ny // 2 if center is None else center,
        "averages": averages - 1,
        "trajectory": "cartesian",
        "parallel": PARALLEL.format(mode=mode) if mode else "",
    }
    return HEADER.format(**{**values, **other})


def parsed(xml):
    return xsd.CreateFromDocument(xml.encode())


def letter(ny, nx):
    """Return the image of an L at low y and low x on a faint ellipse."""
    y, x = np.mgrid[:ny, :nx]
    image = 0.3 * (((y - ny / 2) / (0.45 * ny)) ** 2 + ((x - nx / 2) / (0.45 * nx)) ** 2 < 1)
    image[ny // 8 : ny // 2, nx // 8 : nx // 8 + nx // 12 + 1] = 1
    image[ny // 2 - ny // 12 - 1 : ny // 2, nx // 8 : nx // 3] = 1
    return image


def coil_maps(coils, ny, nx):
    """Return smooth complex maps (coil, y, x) with sum of squares 1."""
    y, x = np.mgrid[:ny, :nx]
    angle = 2 * np.pi * np.arange(coils) / coils
    cy, cx = ny / 2 * (1 + 1.1 * np.sin(angle)), nx / 2 * (1 + 1.1 * np.cos(angle))
    distance = ((y - cy[:, None, None]) / ny) ** 2 + ((x - cx[:, None, None]) / nx) ** 2
    maps = np.exp(-1.5 * distance) * np.exp(1j * (angle[:, None, None] + 0.7 * x / nx))
    return maps / np.sqrt((np.abs(maps) ** 2).sum(0))


def kspace(image, ky, kx, oversampling=1):
    """Compute samples (..., ky, kx) at integer frequencies of the encoded field of view."""
    ny, nx = image.shape[-2:]
    y, x = np.arange(ny) - ny // 2, np.arange(nx) - nx // 2
    along_y = np.exp(-2j * np.pi * np.outer(ky, y) / ny) / np.sqrt(ny)
    width = nx * oversampling
    along_x = np.exp(-2j * np.pi * np.outer(x, kx) / width) / np.sqrt(width)
    return (along_y @ image @ along_x).astype(np.complex64)


def expected(image, ky=None, coils=4):
    """Compute centred k-space (coil, y, x) without oversampling by a sum over pixels."""
    ny, nx = image.shape
    maps = coil_maps(coils, ny, nx)
    ksp = kspace(maps * image, np.arange(ny) - ny // 2, np.arange(nx) - nx // 2)
    if ky is not None:
        absent = np.setdiff1d(np.arange(ny), np.asarray(ky) + ny // 2)
        ksp[:, absent] = 0
    return ksp


def acquisitions(
    image,
    *,
    oversampling=1,
    steps=None,
    center=None,
    center_sample=None,
    samples=None,
    coils=4,
    noise=0.0,
    seed=0,
    last=True,
    **counters,
):
    """Return the readouts of a slice in the order of `steps` (encode step 1)."""
    ny, nx = image.shape
    center = ny // 2 if center is None else center
    steps = np.arange(ny) if steps is None else np.asarray(steps)
    samples = nx * oversampling if samples is None else samples
    center_sample = samples // 2 if center_sample is None else center_sample
    data = kspace(
        coil_maps(coils, ny, nx) * image,
        steps - center,
        np.arange(samples) - center_sample,
        oversampling,
    )
    rng = np.random.default_rng(seed)
    data = data + noise * (rng.normal(size=data.shape) + 1j * rng.normal(size=data.shape))
    readouts = []
    for i, step in enumerate(steps):
        readout = ismrmrd.Acquisition.from_array(data[:, i].astype(np.complex64))
        readout.idx.kspace_encode_step_1 = int(step)
        for name, value in counters.items():
            setattr(readout.idx, name, value)
        readout.center_sample = center_sample
        readout.sample_time_us = 5
        readout.measurement_uid = 42
        readout.acquisition_time_stamp = 1000 + i
        readout.position[:] = (1.5, -2.5, 3.5 + readout.idx.slice)
        readout.read_dir[:] = (0, 1, 0)
        readout.phase_dir[:] = (0, 0, 1)
        readout.slice_dir[:] = (1, 0, 0)
        readout.patient_table_position[:] = (0, 0, -100)
        readouts.append(readout)
    if last:
        readouts[-1].set_flag(ismrmrd.ACQ_LAST_IN_SLICE)
    return readouts


def noise_readout(sigma, coils=4, samples=2048, dwell=5.0, seed=1):
    """Return a noise readout with standard deviation `sigma` of each real component."""
    rng = np.random.default_rng(seed)
    data = sigma * (rng.normal(size=(coils, samples)) + 1j * rng.normal(size=(coils, samples)))
    readout = ismrmrd.Acquisition.from_array(data.astype(np.complex64))
    readout.set_flag(ismrmrd.ACQ_IS_NOISE_MEASUREMENT)
    readout.sample_time_us = dwell
    return readout


def measured_noise(frame):
    """Return the noise covariance (coil, coil) of a frame in the units of its input."""
    return frame.kspace.noise_covariance * frame.kspace.unit**2
