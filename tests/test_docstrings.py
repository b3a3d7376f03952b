"""Docstrings of the public interface are complete, as numpydoc checks them.

Complete: every parameter with its type, the result, and every field of a dataclass. Elsewhere in
`scoremri_core` (files, images, studies, training) the sections that are present are correct.
"""

import ast
import importlib
import inspect
import pkgutil
import re
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Protocol

import pytest
import torch

import scoremri_core
from scoremri_core.priors import base

pytest.importorskip("numpydoc")
from numpydoc.docscrape import ClassDoc
from numpydoc.validate import validate

API = Path(__file__).parent.parent / "docs" / "api.md"
COMPLETE = (
    "errors",
    "kspace",
    "mri",
    "priors",
    "recon",
    "reports",
    "samplers",
    "score",
    "simulation",
)
# not wanted, or a matter of taste
IGNORED = {"ES01", "EX01", "SA01", "PR07", "PR08", "RT03", "RT04", "SS02", "SS05"}
PRESENT = {"PR01", "PR04", "RT01", "YD01"}


def public(module):
    """Yield the public functions, classes and methods that a module defines."""
    for name, value in vars(module).items():
        if name.startswith("_") or getattr(value, "__module__", "") != module.__name__:
            continue
        if inspect.isfunction(value):
            yield name, value
        elif inspect.isclass(value):
            yield name, value
            for method, function in vars(value).items():
                inherited = any(hasattr(parent, method) for parent in value.__mro__[1:])
                if not method.startswith("_") and callable(function) and not inherited:
                    yield f"{name}.{method}", function


PROTOCOLS = {
    method for _, value in public(base) if inspect.isclass(value) for method in vars(value)
}


def modules():
    for found in pkgutil.walk_packages(scoremri_core.__path__, "scoremri_core."):
        if not found.name.endswith("__main__"):
            yield importlib.import_module(found.name)
    # of the stream, what docs/api.md shows
    for module in sorted(set(re.findall(r"^::: (gadgets[\w.]+)\.\w+$", API.read_text(), re.M))):
        yield importlib.import_module(module)


def problems(module, name, value):
    """Return the codes and texts of what numpydoc finds in one docstring."""
    room = module.__name__.split(".")[1]
    complete = room in COMPLETE or f"::: {module.__name__}.{name}\n" in API.read_text()
    if inspect.isclass(value) and (
        issubclass(value, torch.nn.Module) or Protocol in value.__bases__
    ):
        complete = False  # layers of networks; interfaces, which have no constructor
    if module is not base and name.rpartition(".")[2] in PROTOCOLS:
        complete = False  # documented in `priors.base`
    ignored = IGNORED if complete else IGNORED | PRESENT
    found = [
        error
        for error in validate(f"{module.__name__}.{name}")["errors"]
        if error[0] not in ignored
    ]
    if is_dataclass(value) or hasattr(value, "_fields"):
        found = [error for error in found if error[0] != "PR01"]
        if complete:
            known = (
                [field.name for field in fields(value) if field.init]
                if is_dataclass(value)
                else value._fields
            )
            described = {
                one.strip()
                for part in value.__mro__  # fields that are inherited are described there
                if part.__module__.startswith(("scoremri_core", "gadgets"))
                for text in [ClassDoc(part)]
                for entry in [*text["Parameters"], *text["Attributes"]]
                for one in entry.name.split(",")
            }
            missing = [name for name in known if name[0] != "_" and name not in described]
            found += [("PR01", f"Attributes {missing} not documented")] if missing else []
    return [f"{module.__name__}.{name}: {code} {words}" for code, words in found]


def test_docstrings_are_complete():
    found = []
    for module in modules():
        for name, value in public(module):
            found += problems(module, name, value)
    assert found == [], "\n".join(found)


def raised(function):
    """Return the names of the exceptions that a function raises itself."""
    names, statements = set(), list(function.body)
    while statements:
        node = statements.pop()
        if isinstance(node, ast.FunctionDef | ast.Lambda):
            continue
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            names.add(node.exc.func.id)
        statements += ast.iter_child_nodes(node)
    return names


def test_docstrings_name_the_errors_that_are_raised():
    for path in sorted(Path(scoremri_core.__file__).parent.rglob("*.py")):
        tree = ast.parse(path.read_text())
        classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
        for owner in (tree, *(node for node in classes if not node.name.startswith("_"))):
            for function in owner.body:
                if not isinstance(function, ast.FunctionDef) or function.name.startswith("_"):
                    continue
                described = ast.get_docstring(function) or ""
                missing = [name for name in raised(function) if name not in described]
                assert missing == [], f"{path}: {function.name}"
