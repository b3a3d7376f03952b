"""The header of MRD version 2 as that of version 1."""

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
    """A header of version 2 as the XML of version 1.

    The fields of both have the same names but for capitals and underscores.
    """
    converted = _converted(xsd.ismrmrdHeader, header)
    converted.version = None  # of another schema
    return undeclared(xsd.ToXML(converted))


def _plain(name: str) -> str:
    return name.replace("_", "").lower()


def _converted(kind: Any, value: Any) -> Any:
    """A value of mrd as the type that xsd has for it."""
    if value is None:
        return None
    inner = [each for each in get_args(kind) if each is not type(None)]
    if get_origin(kind) is list:
        return [_converted(inner[0], each) for each in value]
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
        # version 1 has no word for "no acceleration": it leaves the element out
        return next((each for each in kind if _plain(each.name) == _plain(value.name)), None)
    return _CONVERTERS[kind](value)


def _number(value: float) -> float:
    """With the digits that its text had: .8 is not .800000011920929, though it came in 32 bits."""
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
