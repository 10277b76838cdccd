"""Reads the source of the project as syntax trees, once, for the rules of the house."""

import ast
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "src" / "smarthost"

Function = ast.FunctionDef | ast.AsyncFunctionDef
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


def words(text: str) -> frozenset[str]:
    """Give the words of a text as a set."""
    return frozenset(text.split())


class Module(NamedTuple):
    """One source file, read once."""

    path: Path
    text: str
    tree: ast.Module

    @property
    def parts(self) -> tuple[str, ...]:
        """Where it stands below src/smarthost, without the suffix."""
        return self.path.relative_to(SOURCE).with_suffix("").parts

    @property
    def place(self) -> str:
        """Its folder, or its own name when it stands in the package's folder: config_read.py belongs to config."""
        return place_of(self.parts[0])

    def at(self, node: ast.AST, what: str) -> str:
        """Write an offence as PATH:LINE: what."""
        return f"{self.path.relative_to(ROOT)}:{getattr(node, 'lineno', 1)}: {what}"


def place_of(name: str) -> str:
    """Give the place of a folder or top-level file: files that a larger one was split into share its first word."""
    return name if name.startswith("__") else name.partition("_")[0]


@cache
def modules(folder: Path = SOURCE) -> tuple[Module, ...]:
    """Parse every Python file below a folder."""
    found = []
    for path in sorted(folder.rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        found.append(Module(path, text, ast.parse(text, filename=str(path))))
    return tuple(found)


@cache
def nodes(module: Module) -> tuple[ast.AST, ...]:
    """Walk a module's tree once; every rule reads the same list."""
    return tuple(ast.walk(module.tree))


def imports(module: Module) -> Iterator[tuple[ast.AST, str]]:
    """Give every imported module as a dotted name; names imported from the package itself are joined to it."""
    for node in nodes(module):
        if isinstance(node, ast.Import):
            yield from ((node, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            name = absolute_name(module, node)
            if name == "smarthost":
                yield from ((node, f"smarthost.{alias.name}") for alias in node.names)
            else:
                yield node, name


def absolute_name(module: Module, node: ast.ImportFrom) -> str:
    """Resolve a relative import to its absolute name."""
    if not node.level:
        return node.module or ""
    package = ("smarthost", *module.parts)[: -node.level]
    return ".".join((*package, *([node.module] if node.module else [])))


def our_imports(module: Module) -> Iterator[tuple[ast.AST, str]]:
    """Give the folder (or top-level file) of every import of our own package; its `__version__` belongs to all."""
    for node, name in imports(module):
        package, _, rest = name.partition(".")
        if package == "smarthost" and rest and rest != "__version__":
            yield node, place_of(rest.split(".")[0])


def report(rule: str, offences: Iterable[str]) -> None:
    """Fail with the rule and every offender, one a line."""
    found = sorted(set(offences))
    assert not found, f"{rule}\n  " + "\n  ".join(found)


def called_name(node: ast.Call) -> str:
    """Give the last name of what is called, "" where it has none."""
    if isinstance(node.func, ast.Name):
        return node.func.id
    return node.func.attr if isinstance(node.func, ast.Attribute) else ""
