"""DICOM export: a series of MR images per output.

Standard deviations are MR images too, as few viewers show Parametric Maps and dcm2niix ignores
their units.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from ismrmrd.xsd import ismrmrdHeader

from scoremri_core.errors import InputError
from scoremri_core.images import RESEARCH_ONLY
from scoremri_core.images.dicom_values import code, date, number, person, text, time, uid
from scoremri_core.images.series import Picture, Series
from scoremri_core.paths import PathLike

MAX_VALUE = 65_535  # 16 bits
MANUFACTURER = "scoremri"


def check_dicom(path: PathLike) -> None:
    """Raise InputError if pydicom is missing."""
    try:
        import pydicom
    except ImportError as error:
        raise InputError(f"{path}: DICOM needs pydicom: pip install 'scoremri[export]'") from error
    del pydicom


def read_dicom(path: PathLike, pixels: bool = True) -> Any:
    """Read a DICOM file.

    Parameters
    ----------
    path : path-like
    pixels : bool, optional
        Read the pixels, too.

    Returns
    -------
    pydicom.FileDataset

    Raises
    ------
    InputError
        pydicom is missing; not a DICOM file.
    """
    check_dicom(path)
    import pydicom

    try:
        return pydicom.dcmread(path, stop_before_pixels=not pixels)
    except (pydicom.errors.InvalidDicomError, OSError, EOFError, ValueError) as error:
        raise InputError(f"{path}: not readable as DICOM") from error


def write_series(
    folder: Path, series: Sequence[Series], header: ismrmrdHeader | None = None
) -> None:
    """Write series to a new folder, one folder each.

    All magnitudes have the same slope, so that mean and standard deviation can be compared in any
    viewer. UIDs are derived from scan and pixels, so that the same images have the same UIDs.

    Parameters
    ----------
    folder : Path
        New folder.
    series : sequence of Series
        Of one scan.
    header : ismrmrdHeader, optional
        With patient and study. Default: these are empty.

    Raises
    ------
    InputError
        pydicom is missing.
    """
    check_dicom(folder)
    scan = _Scan(series, header)
    folder.mkdir()
    for each in series:
        subfolder = folder / f"{each.index:03d}_{each.name}"
        subfolder.mkdir()
        for dataset in scan.images(each):
            dataset.save_as(
                subfolder / f"{dataset.InstanceNumber:05d}.dcm", enforce_file_format=True
            )


@dataclass(frozen=True)
class _Scale:
    """Rescaling of stored values, and window of a series."""

    slope: float
    intercept: float
    center: float
    width: float

    def stored(self, values: npt.NDArray[Any]) -> npt.NDArray[np.uint16]:
        """Convert values to 16-bit integers; non-finite values as zero."""
        finite = np.nan_to_num(values, nan=0, posinf=0, neginf=0)
        return np.clip(np.rint((finite - self.intercept) / self.slope), 0, MAX_VALUE).astype("<u2")


def _slope(maximum: float) -> float:
    """Slope of at most 16 characters, with no stored value above the maximum."""
    return float(f"{(maximum or 1) / MAX_VALUE * 1.000001:.8e}")


class _Scan:
    """Identity, study and slope of the series of a scan."""

    def __init__(self, series: Sequence[Series], header: ismrmrdHeader | None) -> None:
        self.header = header
        magnitudes = [
            float(np.nanmax(picture.pixels, initial=0, where=np.isfinite(picture.pixels)))
            for each in series
            if each.has_units
            for picture in each.pictures
        ]
        self.slope = _slope(max(magnitudes, default=0))
        digest = hashlib.sha256()
        for each in series:
            for picture in each.pictures:
                digest.update(np.ascontiguousarray(picture.pixels).tobytes())
        self.pixels = digest.hexdigest()
        reference = uid(self._value("measurementInformation", "frameOfReferenceUID"))
        # scanners number measurements from 1, so that the number alone is not unique
        measurement = self._value("measurementInformation", "measurementID")
        self.identity = f"{measurement} {reference}" if measurement and reference else self.pixels
        self.study = uid(self._value("studyInformation", "studyInstanceUID")) or self.uid("study")
        self.reference = reference or self.uid("place")

    def uid(self, *of: Any) -> str:
        """Derive a UID from the scan and further values."""
        from pydicom.uid import generate_uid

        return str(generate_uid(entropy_srcs=[str(self.identity), *map(str, of)]))

    def scale(self, series: Series) -> _Scale:
        """Return the scale of all images of a series."""
        if series.is_phase:
            slope, intercept = round(2 * np.pi / MAX_VALUE, 10), round(-np.pi, 10)
            return _Scale(slope, intercept, 0.0, round(2 * np.pi, 6))
        pixels = np.concatenate([picture.pixels.ravel() for picture in series.pictures])
        pixels = pixels[np.isfinite(pixels)]
        width = float(np.percentile(pixels, 99.5)) if pixels.size else 0.0
        slope = self.slope if series.has_units else _slope(float(pixels.max(initial=0)))
        width = float(f"{max(width, slope):.6g}")
        return _Scale(slope, 0.0, width / 2, width)

    def images(self, series: Series) -> Iterator[Any]:
        """Yield an MR image per slice of a series."""
        scale = self.scale(series)
        slices = (
            (volume, picture, z)
            for volume, pictures in enumerate(series.volumes, start=1)
            for picture in pictures
            for z in range(len(picture.pixels))
        )
        for instance, (volume, picture, z) in enumerate(slices, start=1):
            dataset = self._dataset(self.uid(self.pixels, series.index, series.name, instance))
            self._patient_and_study(dataset)
            self._series(dataset, series)
            self._sequence(dataset, picture)
            dataset.AcquisitionNumber, dataset.InstanceNumber = volume, instance
            _plane(dataset, picture.affine, z)
            _pixels(dataset, scale, picture.pixels[z])
            yield dataset

    def _dataset(self, instance: str) -> Any:
        from pydicom.dataset import Dataset, FileMetaDataset
        from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage

        dataset: Any = Dataset()
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = MRImageStorage
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = instance
        dataset.SpecificCharacterSet = "ISO_IR 192"
        return dataset

    def _value(self, section: str, name: str) -> Any:
        """Return a value of the ISMRMRD header, or None."""
        value = getattr(getattr(self.header, section, None), name, None)
        return getattr(value, "value", value)  # enumeration

    def _patient_and_study(self, dataset: Any) -> None:
        def subject(name: str) -> Any:
            return self._value("subjectInformation", name)

        def study(name: str) -> Any:
            return self._value("studyInformation", name)

        dataset.PatientName = person(subject("patientName"))
        dataset.PatientID = text(subject("patientID"))
        dataset.PatientBirthDate = date(subject("patientBirthdate"))
        dataset.PatientSex = code(subject("patientGender") or "")
        dataset.StudyInstanceUID = self.study
        dataset.StudyDate = date(study("studyDate"))
        dataset.StudyTime = time(study("studyTime"))
        dataset.StudyID = text(study("studyID"), 16)
        dataset.StudyDescription = text(study("studyDescription"))
        dataset.AccessionNumber = text(study("accessionNumber"), 16)
        dataset.ReferringPhysicianName = person(study("referringPhysicianName"))

    def _series(self, dataset: Any, series: Series) -> None:
        dataset.Modality = "MR"
        dataset.SeriesInstanceUID = self.uid(self.pixels, series.index, series.name)
        dataset.SeriesNumber = series.index
        dataset.SeriesDescription = text(series.description)
        dataset.Laterality = ""  # required unless BodyPartExamined names an unpaired body part
        dataset.ProtocolName = text(self._value("measurementInformation", "protocolName"))
        position = self._value("measurementInformation", "patientPosition")
        dataset.PatientPosition = code(position or "")
        dataset.FrameOfReferenceUID = self.reference
        dataset.PositionReferenceIndicator = ""
        dataset.Manufacturer = MANUFACTURER
        model = self._value("acquisitionSystemInformation", "systemModel")
        dataset.ManufacturerModelName = text(model)
        dataset.SoftwareVersions = text(version("scoremri"))
        # some readers recognise magnitude and phase by values 3 and 4
        kind = ("PHASE MAP", "P") if series.is_phase else ("OTHER", "M")
        dataset.ImageType = ["DERIVED", "PRIMARY", *kind, code(series.name)]
        comment = series.attribute("ImageComment")
        dataset.ImageComments = text(
            f"{RESEARCH_ONLY} {comment}. Pixels times slope: {series.units}", 10_240
        )
        dataset.DerivationDescription = text(comment, 1024)
        dataset.LossyImageCompression = "00"
        dataset.BurnedInAnnotation = "NO"

    def _sequence(self, dataset: Any, picture: Picture) -> None:
        def of(name: str, index: int = 0) -> str:
            values = self._value("sequenceParameters", name) or []
            return number(values[min(index, len(values) - 1)]) if values else ""

        dataset.ScanningSequence = "RM"
        dataset.SequenceVariant = "NONE"
        dataset.ScanOptions = ""
        dataset.MRAcquisitionType = "3D" if len(picture.pixels) > 1 else "2D"
        dataset.EchoTime = of("TE", picture.header.contrast)
        dataset.RepetitionTime = of("TR")
        dataset.FlipAngle = of("flipAngle_deg")
        dataset.EchoTrainLength = ""
        strength = self._value("acquisitionSystemInformation", "systemFieldStrength_T")
        dataset.MagneticFieldStrength = "" if strength is None else number(strength)


def _plane(dataset: Any, affine: npt.NDArray[np.float64], z: int) -> None:
    """Set the geometry of a slice: columns increase along the first direction, rows the second."""
    sides = np.linalg.norm(affine[:3, :3], axis=0)
    across, down, _ = (affine[:3, :3] / sides).T
    dataset.SliceThickness = number(sides[2])
    dataset.PixelSpacing = [number(sides[1]), number(sides[0])]
    dataset.ImageOrientationPatient = [number(value) for value in (*across, *down)]
    dataset.ImagePositionPatient = [number(value) for value in (affine @ [0, 0, z, 1])[:3]]


def _pixels(dataset: Any, scale: _Scale, values: npt.NDArray[Any]) -> None:
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.Rows, dataset.Columns = values.shape
    dataset.BitsAllocated = dataset.BitsStored = 16
    dataset.HighBit = 15
    dataset.PixelRepresentation = 0
    dataset.RescaleSlope, dataset.RescaleIntercept = number(scale.slope), number(scale.intercept)
    dataset.RescaleType = "US"
    dataset.WindowCenter, dataset.WindowWidth = number(scale.center), number(scale.width)
    dataset.VOILUTFunction = "LINEAR_EXACT"  # LINEAR requires a width of at least 1
    dataset.PixelData = scale.stored(values).tobytes()
