"""Images as DICOM: for each output, the standard deviation too, a series of MR images.

A Parametric Map would name the units of a standard deviation, but few viewers show it, and
dcm2niix reads its stored values; every viewer shows MR images in their units.
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

from scoremri_core.errors import InputError
from scoremri_core.images import RESEARCH_ONLY
from scoremri_core.images.dicom_values import code, date, number, person, text, time, uid
from scoremri_core.images.series import Picture, Series
from scoremri_core.paths import PathLike

TOP = 65_535  # of 16 bits
MANUFACTURER = "scoremri"


def check_dicom(path: PathLike) -> None:
    """Refuse, with InputError, where pydicom is missing: before the work."""
    try:
        import pydicom
    except ImportError as error:
        raise InputError(f"{path}: DICOM needs pydicom, of the extra `export`") from error
    del pydicom


def write_series(folder: Path, series: Sequence[Series], header: Any = None) -> None:
    """Write a folder for each series, in the new folder `folder`.

    A magnitude is a stored value times one slope, the same for all series, so that mean and
    standard deviation compare in any viewer.  UIDs follow from what was scanned and from the
    pixels, so that the same images get the same ones.

    Parameters
    ----------
    series : of one scan
    header : its ISMRMRD header, which knows patient and study; None leaves them empty
    """
    check_dicom(folder)
    scan = _Scan(series, header)
    folder.mkdir()
    for own in series:
        inside = folder / f"{own.index:03d}_{own.name}"
        inside.mkdir()
        for dataset in scan.images(own):
            dataset.save_as(inside / f"{dataset.InstanceNumber:05d}.dcm", enforce_file_format=True)


@dataclass(frozen=True)
class _Scale:
    """How the stored values of a series become its values, and which of these are shown."""

    slope: float
    intercept: float
    center: float
    width: float

    def stored(self, values: npt.NDArray[Any]) -> npt.NDArray[np.uint16]:
        """Whole numbers of 16 bits; of what is not finite, that of zero."""
        known = np.nan_to_num(values, nan=0, posinf=0, neginf=0)
        return np.clip(np.rint((known - self.intercept) / self.slope), 0, TOP).astype("<u2")


class _Scan:
    """What the series of a scan share: who was scanned, which study it is, one slope."""

    def __init__(self, series: Sequence[Series], header: Any) -> None:
        self.header = header
        magnitudes = [
            float(np.nanmax(picture.pixels, initial=0, where=np.isfinite(picture.pixels)))
            for own in series
            if not own.is_phase
            for picture in own.pictures
        ]
        # at most 16 characters, as DICOM has them, and no value above the top
        self.slope = float(f"{(max(magnitudes, default=0) or 1) / TOP * 1.000001:.8e}")
        digest = hashlib.sha256()
        for own in series:
            for picture in own.pictures:
                digest.update(np.ascontiguousarray(picture.pixels).tobytes())
        self.pixels = digest.hexdigest()
        place = uid(self._value("measurementInformation", "frameOfReferenceUID"))
        # scanners count measurements from 1 on: alone, the number is that of other scans too
        measurement = self._value("measurementInformation", "measurementID")
        self.identity = f"{measurement} {place}" if measurement and place else self.pixels
        self.study = uid(self._value("studyInformation", "studyInstanceUID")) or self.uid("study")
        self.reference = place or self.uid("place")

    def uid(self, *of: Any) -> str:
        """A UID that the scan and what it is of determine."""
        from pydicom.uid import generate_uid

        return str(generate_uid(entropy_srcs=[str(self.identity), *map(str, of)]))

    def scale(self, series: Series) -> _Scale:
        """One for all images of a series."""
        if series.is_phase:
            slope, intercept = round(2 * np.pi / TOP, 10), round(-np.pi, 10)
            return _Scale(slope, intercept, 0.0, round(2 * np.pi, 6))
        pixels = np.concatenate([picture.pixels.ravel() for picture in series.pictures])
        pixels = pixels[np.isfinite(pixels)]
        width = float(np.percentile(pixels, 99.5)) if pixels.size else 0.0
        width = float(f"{max(width, self.slope):.6g}")
        return _Scale(self.slope, 0.0, width / 2, width)

    def images(self, series: Series) -> Iterator[Any]:
        """An MR image of each slice of a series."""
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
        """A value of the ISMRMRD header, None where it has none."""
        value = getattr(getattr(self.header, section, None), name, None)
        return getattr(value, "value", value)  # of an enumeration

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
        # values 3 and 4 are read as magnitude and phase by those who look for them
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
    """Where a slice lies: column numbers grow along the first direction, row numbers the second."""
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
    dataset.VOILUTFunction = "LINEAR_EXACT"  # LINEAR is for whole numbers: no window is below 1
    dataset.PixelData = scale.stored(values).tobytes()
