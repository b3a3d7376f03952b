"""Images as DICOM: MR images, with the standard deviation as a parametric map."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from scoremri_core.errors import InputError
from scoremri_core.images import RESEARCH_ONLY
from scoremri_core.images.series import Picture, Series
from scoremri_core.paths import PathLike

STD = "std"
TOP = 65_535  # of 16 bits
MANUFACTURER = "scoremri"


def check_dicom(path: PathLike) -> None:
    """Refuse, with InputError, where pydicom or highdicom is missing: before the work."""
    _modules(path)


def write_series(folder: Path, series: Sequence[Series], header: Any = None) -> None:
    """Write a folder for each series, in the new folder `folder`.

    A magnitude is a value times one slope, the same for all series, so that mean and standard
    deviation compare in any viewer.  A standard deviation is a Parametric Map, whose units are
    told, made from the images of the mean.  UIDs follow from what was scanned and from the
    pixels, so that the same images get the same ones.

    Parameters
    ----------
    series : of one scan
    header : its ISMRMRD header, which knows patient and study; None leaves them empty
    """
    _modules(folder)
    scan = _Scan(series, header)
    folder.mkdir()
    for own in series:
        (folder / f"{own.index:03d}_{own.name}").mkdir()
    for own in series:
        inside = folder / f"{own.index:03d}_{own.name}"
        if own.name.startswith(STD):
            datasets = scan.parametric_maps(own)
        else:
            datasets = [scan.image(own, *place) for place in _slices(own)]
        for number, dataset in enumerate(datasets, start=1):
            dataset.save_as(inside / f"{number:05d}.dcm", enforce_file_format=True)


def _slices(series: Series) -> list[tuple[int, int, Picture, int]]:
    """Every slice: number in its series, number of its volume, the image and its index in z."""
    places = [
        (volume, picture, z)
        for volume, pictures in enumerate(series.volumes, start=1)
        for picture in pictures
        for z in range(len(picture.pixels))
    ]
    return [(number, *place) for number, place in enumerate(places, start=1)]


class _Scan:
    """What the series of a scan share: identity, scale, window."""

    def __init__(self, series: Sequence[Series], header: Any) -> None:
        self.series = series
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
        measurement = self._section("measurementInformation")
        # scanners count measurements from 1 on: alone, the number is that of other scans too
        place = getattr(measurement, "frameOfReferenceUID", None)
        number = getattr(measurement, "measurementID", None)
        self.identity = f"{number} {place}" if number and place else self.pixels
        study = self._section("studyInformation")
        self.study = getattr(study, "studyInstanceUID", None) or self.uid("study")
        self.reference = getattr(measurement, "frameOfReferenceUID", None) or self.uid("place")

    def uid(self, *of: Any) -> str:
        """A UID that the scan and what it is of determine."""
        from pydicom.uid import generate_uid

        return str(generate_uid(entropy_srcs=[str(self.identity), *map(str, of)]))

    def image(self, series: Series, number: int, volume: int, picture: Picture, z: int) -> Any:
        """An MR image of one slice."""
        from pydicom.dataset import Dataset, FileMetaDataset
        from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage

        affine = picture.affine
        sides = np.linalg.norm(affine[:3, :3], axis=0)
        slope, intercept = self.slope, 0.0
        if series.is_phase:
            slope, intercept = round(2 * np.pi / TOP, 10), round(-np.pi, 10)
        values = np.nan_to_num(picture.pixels[z], nan=0, posinf=0, neginf=0)
        stored = np.clip(np.rint((values - intercept) / slope), 0, TOP).astype("<u2")
        center, width = self.window(series)

        dataset: Any = Dataset()
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dataset.file_meta.MediaStorageSOPClassUID = MRImageStorage
        self._patient_and_study(dataset)
        dataset.SOPClassUID = MRImageStorage
        dataset.SOPInstanceUID = self.uid(self.pixels, series.index, series.name, number)
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        dataset.Modality = "MR"
        dataset.ImageType = ["DERIVED", "PRIMARY", "P" if series.is_phase else "M"]
        dataset.SeriesInstanceUID = self.uid(self.pixels, series.index, series.name)
        dataset.SeriesNumber = series.index
        dataset.SeriesDescription = series.description[:64]
        dataset.AcquisitionNumber = volume
        dataset.InstanceNumber = number
        dataset.ImageComments = _comment(series)
        dataset.DerivationDescription = series.told("ImageComment")[:1024]
        dataset.ScanningSequence = "RM"
        dataset.SequenceVariant = "NONE"
        dataset.ScanOptions = ""
        dataset.MRAcquisitionType = "3D" if len(picture.pixels) > 1 else "2D"
        self._sequence(dataset, picture)
        dataset.SliceThickness = _number(sides[2])
        dataset.FrameOfReferenceUID = self.reference
        dataset.PositionReferenceIndicator = ""
        # rows go along the read direction: the first three are where a column number grows
        axes = affine[:3, :3] / sides
        dataset.ImageOrientationPatient = [_number(v) for v in (*axes[:, 0], *axes[:, 1])]
        corner = affine @ [0, 0, z, 1]
        dataset.ImagePositionPatient = [_number(v) for v in corner[:3]]
        dataset.PixelSpacing = [_number(sides[1]), _number(sides[0])]
        dataset.SamplesPerPixel = 1
        dataset.PhotometricInterpretation = "MONOCHROME2"
        dataset.Rows, dataset.Columns = stored.shape
        dataset.BitsAllocated = dataset.BitsStored = 16
        dataset.HighBit = 15
        dataset.PixelRepresentation = 0
        dataset.RescaleSlope, dataset.RescaleIntercept = _number(slope), _number(intercept)
        dataset.RescaleType = "US"
        dataset.WindowCenter, dataset.WindowWidth = _number(center), _number(width)
        dataset.LossyImageCompression = "00"
        dataset.BurnedInAnnotation = "NO"
        dataset.PixelData = stored.tobytes()
        return dataset

    def parametric_maps(self, series: Series) -> list[Any]:
        """A map for each volume of the standard deviation, on the images of the mean."""
        from highdicom.pm import ParametricMap, RealWorldValueMapping
        from pydicom.sr.coding import Code

        unit = Code("[arb'U]", "UCUM", "arbitrary unit")
        means = [own for own in self.series if own.name == "mean"]
        # a scan's frames that could not be sampled have a mean alone
        by_place = {
            (picture.frame, picture.header.slice, z): (own, number, volume, picture, z)
            for own in means[:1]
            for number, volume, picture, z in _slices(own)
        }
        maps = []
        for volume, pictures in enumerate(series.volumes, start=1):
            sources: list[Any] = []
            stored: list[Any] = []
            for picture in pictures:
                for z, values in enumerate(picture.pixels):
                    place = (picture.frame, picture.header.slice, z)
                    own = by_place.get(place, (series, len(sources) + 1, volume, picture, z))
                    sources.append(self.image(*own))
                    known = np.nan_to_num(values, nan=0, posinf=0, neginf=0)
                    stored.append(np.clip(np.rint(known / self.slope), 0, TOP).astype(np.uint16))
            mapping = RealWorldValueMapping(
                lut_label="SD",
                lut_explanation=f"standard deviation of the complex value, {series.units}"[:64],
                unit=unit,
                value_range=(0, TOP),
                slope=float(_number(self.slope)),
                intercept=0.0,
            )
            center, width = self.window(series)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of names of persons that a scan leaves out
                made = ParametricMap(
                    sources,
                    np.stack(stored),
                    series_instance_uid=self.uid(self.pixels, series.index, series.name),
                    series_number=series.index,
                    sop_instance_uid=self.uid(self.pixels, series.index, series.name, volume),
                    instance_number=volume,
                    manufacturer=MANUFACTURER,
                    manufacturer_model_name=MANUFACTURER,
                    software_versions=version("scoremri"),
                    device_serial_number="0",
                    contains_recognizable_visual_features=False,
                    real_world_value_mappings=[mapping],
                    window_center=center,
                    window_width=width,
                    content_label="STD_MAP",
                    content_description=series.description[:64],
                    series_description=series.description[:64],
                )
            made.ImageComments = _comment(series)
            maps.append(made)
        return maps

    def window(self, series: Series) -> tuple[float, float]:
        """Centre and width of the window of a series, in its units, the same for all images."""
        if series.is_phase:
            return 0.0, round(2 * np.pi, 6)
        pixels = np.concatenate([picture.pixels.ravel() for picture in series.pictures])
        pixels = pixels[np.isfinite(pixels)]
        width = float(np.percentile(pixels, 99.5)) if pixels.size else 0.0
        width = float(f"{max(width, self.slope):.6g}")
        return width / 2, width

    def _section(self, name: str) -> Any:
        return getattr(self.header, name, None)

    def _patient_and_study(self, dataset: Any) -> None:
        subject, study = self._section("subjectInformation"), self._section("studyInformation")
        measurement = self._section("measurementInformation")
        system = self._section("acquisitionSystemInformation")
        dataset.SpecificCharacterSet = "ISO_IR 192"
        dataset.PatientName = getattr(subject, "patientName", None) or ""
        dataset.PatientID = getattr(subject, "patientID", None) or ""
        dataset.PatientBirthDate = _digits(getattr(subject, "patientBirthdate", None))
        gender = getattr(subject, "patientGender", None)
        dataset.PatientSex = getattr(gender, "value", gender) or ""
        dataset.StudyInstanceUID = self.study
        dataset.StudyDate = _digits(getattr(study, "studyDate", None))
        dataset.StudyTime = _digits(getattr(study, "studyTime", None))
        dataset.StudyID = str(getattr(study, "studyID", None) or "")[:16]
        dataset.StudyDescription = str(getattr(study, "studyDescription", None) or "")[:64]
        dataset.AccessionNumber = ""
        dataset.ReferringPhysicianName = ""
        position = getattr(measurement, "patientPosition", None)
        dataset.PatientPosition = getattr(position, "value", position) or ""
        dataset.ProtocolName = str(getattr(measurement, "protocolName", None) or "")[:64]
        dataset.Manufacturer = MANUFACTURER
        dataset.ManufacturerModelName = str(getattr(system, "systemModel", None) or "")[:64]
        dataset.SoftwareVersions = version("scoremri")
        strength = getattr(system, "systemFieldStrength_T", None)
        dataset.MagneticFieldStrength = "" if strength is None else _number(strength)

    def _sequence(self, dataset: Any, picture: Picture) -> None:
        sequence = self._section("sequenceParameters")

        def of(name: str, number: int = 0) -> str:
            values = getattr(sequence, name, None) or []
            return _number(values[min(number, len(values) - 1)]) if values else ""

        dataset.EchoTime = of("TE", picture.header.contrast)
        dataset.RepetitionTime = of("TR")
        dataset.FlipAngle = of("flipAngle_deg")
        dataset.EchoTrainLength = ""


def _comment(series: Series) -> str:
    own = series.told("ImageComment")
    return f"{RESEARCH_ONLY} {own}. Pixels times slope: {series.units}"[:10_240]


def _number(value: float) -> str:
    """A decimal string, which has at most 16 characters."""
    return f"{value:.9g}" if value >= 0 else f"{value:.8g}"


def _digits(value: Any) -> str:
    """Dates and times as DICOM has them: 20190314, 223435."""
    return "".join(character for character in str(value or "") if character.isdigit())


def _modules(path: PathLike) -> None:
    try:
        import highdicom
        import pydicom
    except ImportError as error:
        raise InputError(
            f"{path}: DICOM needs pydicom and highdicom, of the extra `export`"
        ) from error
    del highdicom, pydicom
