"""Hook of MkDocs: equations become MathML when the site is built, so that no script is needed."""

import re
from html import unescape

from latex2mathml.converter import convert

INLINE = re.compile(r'<span class="arithmatex">\\\((.*?)\\\)</span>', re.S)
BLOCK = re.compile(r'<div class="arithmatex">\\\[(.*?)\\\]</div>', re.S)
TAG = re.compile(r"\\tag\{(\d+)\}")


def on_page_content(html: str, **kwargs: object) -> str:
    """Convert the equations of a page; those with a tag get their number and an anchor."""
    html = INLINE.sub(lambda found: convert(unescape(found[1])), html)
    return BLOCK.sub(lambda found: block(unescape(found[1])), html)


def block(latex: str) -> str:
    """Convert a display equation."""
    number = TAG.search(latex)
    mathml = convert(TAG.sub("", latex), display="block")
    if number is None:
        return f'<div class="equation">{mathml}</div>'
    return f'<div class="equation" id="eq-{number[1]}">{mathml}<span>({number[1]})</span></div>'
