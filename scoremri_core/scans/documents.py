"""XML from outside: in the encoding that it declares, and without the means to do harm."""

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
# of the encodings that Python knows, those that scanners write and that are decoded in one pass
KNOWN = re.compile(r"utf-?8|(us-)?ascii|iso-8859-\d{1,2}|latin-?1|windows-125\d")


def decoded(document: bytes, name: str) -> str:
    """Text of a document, without the declaration of the encoding that it no longer has.

    The encoding is that of its byte order mark, else the one that it declares, else UTF-8.  What
    is none of its characters becomes a replacement character: a patient's name is no reason to
    lose a scan.  Zeros that end a text on the wire are dropped.

    Raises
    ------
    InputError
        For an encoding that is not known.
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
                    f"{name}: its encoding '{found[3]}' is not known: expected UTF-8, UTF-16 with "
                    "a byte order mark, ISO-8859-n or Windows-125n"
                )
            if encoding.endswith("ascii"):  # as the ISMRMRD library declares what is UTF-8
                encoding = "utf-8"
    if encoding.startswith("utf-16"):
        document = document[: len(document) // 2 * 2]  # an odd byte is half of a final zero
    try:
        text = document.decode(encoding, "replace")
    except LookupError as error:
        raise InputError(f"{name}: its encoding '{encoding}' is not known") from error
    return undeclared(text.rstrip("\0"))


def undeclared(text: str) -> str:
    """A document that is text already, without the encoding that it had as bytes."""
    text = text.removeprefix("\ufeff")
    return DECLARED.sub(r"\1", text, count=1)


def parse(xml: str, name: str) -> ElementTree.Element:
    """Parse a document that has no DOCTYPE.

    Without a DOCTYPE there are no entities: none to expand without end, none to fetch.

    Raises
    ------
    InputError
        Where it has one, or is not well-formed.
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
        raise InputError("it has a <!DOCTYPE>, which it must not have")
