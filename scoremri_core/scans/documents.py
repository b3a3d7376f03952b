"""Untrusted XML: character encodings, parsing without entities."""

from __future__ import annotations

import codecs
import re
from xml.etree import ElementTree

from scoremri_core.errors import InputError

MARKS = {
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
}
DECLARED = re.compile(r"""(<\?xml[^>]*?)\s+encoding\s*=\s*(["'])([^"'>]*)\2""")
# encodings that scanners write and that Python decodes in one pass
KNOWN = re.compile(r"utf-?8|(us-)?ascii|iso-8859-\d{1,2}|latin-?1|windows-125\d")


def decoded(document: bytes, name: str) -> str:
    """Decode a document and remove its encoding declaration.

    The encoding is that of the byte order mark, else the declared one, else UTF-8. Invalid
    characters are replaced, so that a patient name cannot fail a scan. Trailing zeros are dropped.

    Parameters
    ----------
    document : bytes
    name : str
        Source of the document, for errors.

    Returns
    -------
    str

    Raises
    ------
    InputError
        Unknown encoding.
    """
    encoding = "utf-8"
    for mark, marked in MARKS.items():
        if document.startswith(mark):
            document, encoding = document[len(mark) :], marked
            break
    else:
        found = DECLARED.match(document[:200].lstrip().decode("latin-1"))
        if found is not None:
            encoding = found[3].strip().lower()
            if not KNOWN.fullmatch(encoding):
                raise InputError(
                    f"{name}: unknown encoding '{found[3]}': expected UTF-8, UTF-16 with "
                    "a byte order mark, ISO-8859-n or Windows-125n"
                )
            if encoding.endswith("ascii"):  # the ISMRMRD library declares UTF-8 as ASCII
                encoding = "utf-8"
    if encoding.startswith("utf-16"):
        document = document[: len(document) // 2 * 2]  # an odd byte is half of a trailing zero
    try:
        text = document.decode(encoding, "replace")
    except LookupError as error:
        raise InputError(f"{name}: unknown encoding '{encoding}'") from error
    return undeclared(text.rstrip("\0"))


def undeclared(text: str) -> str:
    """Remove the byte order mark and the encoding declaration of a decoded document."""
    text = text.removeprefix("\ufeff")
    return DECLARED.sub(r"\1", text, count=1)


def parse(xml: str, name: str) -> ElementTree.Element:
    """Parse an XML document, without entities.

    Parameters
    ----------
    xml : str
    name : str
        Source of the document, for errors.

    Returns
    -------
    Element
        Root.

    Raises
    ------
    InputError
        The document has a DOCTYPE, which could define entities, or is not well-formed.
    """
    parser = ElementTree.XMLParser(target=_Builder())
    try:
        parser.feed(xml.encode("utf-8", "replace"))
        root: ElementTree.Element = parser.close()
    except (ElementTree.ParseError, LookupError, ValueError) as error:
        if isinstance(error, InputError):
            raise InputError(f"{name}: {error}") from None
        raise InputError(f"{name}: not well-formed XML ({error})") from error
    return root


class _Builder(ElementTree.TreeBuilder):
    def doctype(self, name: str, pubid: str | None, system: str | None) -> None:
        raise InputError("a <!DOCTYPE> is not allowed")
