"""Conversion of MRD version 2 headers to version 1."""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Callable
from enum import Enum
from typing import Any, Union, get_args, get_origin, get_type_hints

import numpy as np
from ismrmrd import xsd
from xsdata.models.datatype import XmlDate, XmlTime

from scoremri_core.scans.documents import undeclared


def header_xml(header: Any) -> str:
    """Convert a header of version 2 to the XML of version 1.

    Field names of both versions differ only in capitals and underscores.

    Parameters
    ----------
    header : mrd.Header

    Returns
    -------
    str
    """
    converted = _converted(xsd.ismrmrdHeader, header)
    converted.version = None  # version of the other schema
    return undeclared(xsd.ToXML(converted))


def _plain(name: str) -> str:
    return name.replace("_", "").lower()


def _converted(kind: Any, value: Any) -> Any:
    """Convert a value of mrd to the type of ismrmrd.xsd."""
    if value is None:
        return None
    inner = [type_ for type_ in get_args(kind) if type_ is not type(None)]
    if get_origin(kind) is list:
        return [_converted(inner[0], item) for item in value]
    if get_origin(kind) in (Union, types.UnionType):
        return _converted(inner[0], value)
    if dataclasses.is_dataclass(kind):
        names = {_plain(name): name for name in vars(value)}
        hints = get_type_hints(kind)
        items = {
            field.name: _converted(hints[field.name], getattr(value, names[plain]))
            for field in dataclasses.fields(kind)
            if (plain := _plain(field.name)) in names
        }
        return kind(**items)  # type: ignore[operator]
    if isinstance(value, Enum):
        if kind is str:
            return value.name
        # version 1 omits the element for "no acceleration"
        return next((member for member in kind if _plain(member.name) == _plain(value.name)), None)
    return _CONVERTERS[kind](value)


def _number(value: float) -> float:
    """Convert 32-bit numbers with their shortest digits: 0.8, not 0.800000011920929."""
    single = np.float32(value)
    return float(str(single)) if single == value else float(value)


def _clock(value: Any) -> XmlTime:
    seconds, nanoseconds = divmod(value.numpy_value.astype(int), 10**9)
    minutes, second = divmod(int(seconds), 60)
    return XmlTime(minutes // 60, minutes % 60, second, int(nanoseconds))


_CONVERTERS: dict[Any, Callable[[Any], Any]] = {
    str: str,
    int: int,
    float: _number,
    bytes: lambda text: text.encode(),
    XmlDate: XmlDate.from_date,
    XmlTime: _clock,
}
