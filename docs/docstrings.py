"""How docstrings are shown: `name : what it is` is one text, not a type with a remark."""

import re

import griffe

ENTRIES = ("Parameters", "Attributes", "Raises")
TEXTS = {"Returns": "Result", "Yields": "Results"}  # what is returned is told in sentences


class OneText(griffe.Extension):
    """Brings docstrings into a form in which griffe takes types from the signature alone."""

    def on_object(self, *, obj: griffe.Object, **kwargs: object) -> None:
        """Rewrite the docstring of a module, class, function or attribute."""
        if obj.docstring is not None:
            obj.docstring.value = rewritten(obj.docstring.value)


def rewritten(docstring: str) -> str:
    """The same docstring, with the text of an entry below its name."""
    section, lines = "", []
    for line, following in zip(
        docstring.split("\n"), [*docstring.split("\n")[1:], ""], strict=True
    ):
        if following and set(following) == {"-"}:
            section = line
            lines.append(TEXTS.get(section, section))
        elif section in ENTRIES and (entry := re.match(r"(\S.*?) : (.*)", line)):
            lines += [entry[1], f"    {entry[2]}"]
        else:
            lines.append(line)
    return "\n".join(lines)
