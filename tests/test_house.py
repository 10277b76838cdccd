"""The rules of the house, read off the source by `ast`: floors, purity, libraries, names, sizes and docstrings."""

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import MappingProxyType

from house_source import (
    FUNCTIONS,
    ROOT,
    Function,
    Module,
    called_name,
    imports,
    modules,
    nodes,
    our_imports,
    report,
    words,
)

# docs/design.md, "Floors". A file imports from lower floors and from its own folder; sink and client stand apart.
FLOORS = MappingProxyType(
    {
        "mail": 1,
        "wire": 2,
        "policy": 2,
        "compose": 2,
        "spool": 3,
        "network": 3,
        "crypto": 3,
        "report": 3,
        "queue": 4,
        "reception": 5,
        "delivery": 5,
        "outreach": 5,
        "sink": 5,
        "client": 5,
        "cli": 7,
        "__main__": 8,
    }
)
ASSEMBLY = 6  # every file that stands in the package's own folder
APART = MappingProxyType({"sink": frozenset({"mail", "wire"}), "client": frozenset({"mail", "wire"})})
PURE = frozenset({"mail", "wire", "policy", "compose"})

EVERYWHERE = frozenset({"smarthost", "msgspec"})
# Where each other library may be imported; its exceptions are translated there.
LIBRARIES = MappingProxyType(
    {
        "idna": frozenset({"mail"}),
        "aiosmtpd": frozenset({"reception"}),
        "aiosmtplib": frozenset({"network"}),
        # The client stands apart, and may not import the adapter: docs/design.md, "The client".
        "aiohttp": frozenset({"network", "client"}),
        "yarl": frozenset({"network"}),
        "dns": frozenset({"network"}),
        "spf": frozenset({"network"}),
        "dkim": frozenset({"crypto"}),
        "cryptography": frozenset({"crypto"}),
        "argon2": frozenset({"crypto"}),
        "prometheus_client": frozenset({"report"}),
        "litestar": frozenset({"reception"}),
        "uvicorn": frozenset({"reception"}),
        "uvloop": frozenset({"running", "cli", "sink"}),
        # Not a library, but a second SMTP client: only the demo may play the application.
        "smtplib": frozenset({"cli"}),
    }
)

IMPURE_MODULES = words(
    """asyncio time random secrets socket ssl select selectors os pathlib shutil tempfile glob logging sqlite3
    threading multiprocessing subprocess concurrent queue signal contextvars uuid http smtplib ftplib mmap fcntl
    sched syslog platform getpass pwd grp resource warnings"""
)
IMPURE_CALLS = frozenset({"open", "print", "input", "now", "utcnow", "today"})

MUTABLE_CALLS = words("list dict set bytearray defaultdict OrderedDict Counter deque ChainMap")
MUTATORS = words(
    "append extend insert remove pop popitem clear update setdefault add discard sort reverse appendleft popleft"
)
CONSTANT = re.compile(r"_{0,2}[A-Z][A-Z0-9_]*")

BANNED_WORDS = words("""manager managers handler handlers helper helpers util utils common base info process do obj""")
# Names that a library calls, so that they are not ours to choose.
DICTATED_NAMES = frozenset({"do_GET", "do_POST", "do_HEAD", "process_request", "process_request_thread"})
WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")

MOST_LINES = 400
MOST_FUNCTION_LINES = 60
MOST_PARAMETERS = 6


def floor_offence(here: str, there: str) -> str | None:
    """Say what is wrong with an import from one place to another, or None."""
    if there == here:
        return None
    if here in APART:
        return None if there in APART[here] else f"{here} stands apart and knows {', '.join(sorted(APART[here]))} only"
    mine, its = FLOORS.get(here, ASSEMBLY), FLOORS.get(there, ASSEMBLY)
    if its < mine or mine == its == ASSEMBLY:
        return None
    side = "beside" if its == mine else "above"
    return f"{here} (floor {mine}) imports {there}, which is {side} it (floor {its})"


def test_every_place_has_a_floor() -> None:
    """Each folder of the package stands on a floor of the table; files beside them are the assembly."""
    unknown = {module.place for module in modules() if len(module.parts) > 1} - set(FLOORS)
    report("A place without a floor (house.md 1)", unknown)


def test_floors_are_imported_downwards() -> None:
    """A file imports lower floors and its own folder only; the wings, and the adapters, never import each other."""
    offences = []
    for module in modules():
        for node, there in our_imports(module):
            if wrong := floor_offence(module.place, there):
                offences.append(module.at(node, wrong))
    report("Imports go down", offences)


def test_config_is_read_by_the_top_alone() -> None:
    """Nothing below the assembly imports config: parts receive policy's settings types."""
    offences = [
        module.at(node, f"{module.place} imports config")
        for module in modules()
        for node, there in our_imports(module)
        if there == "config" and FLOORS.get(module.place, ASSEMBLY) < ASSEMBLY
    ]
    report("config is for floors 6 and 7", offences)


def test_pure_floors_import_nothing_impure() -> None:
    """No clock, randomness, files, sockets or logging on the pure floors, and no library but msgspec."""
    offences = []
    for module in modules():
        if module.place in PURE:
            for node, name in imports(module):
                top = name.split(".")[0]
                if top in IMPURE_MODULES or name.startswith("urllib.request"):
                    offences.append(module.at(node, f"imports {name}"))
    report("Floors 1 and 2 are pure: what they need comes in as an argument", offences)


def test_pure_floors_call_nothing_impure() -> None:
    """mail, wire, policy and compose have no `async def`, open no file, print nothing and read no clock."""
    offences = []
    for module in modules():
        if module.place not in PURE:
            continue
        for node in nodes(module):
            if isinstance(node, ast.AsyncFunctionDef):
                offences.append(module.at(node, f"async def {node.name}"))
            elif isinstance(node, ast.Call) and called_name(node) in IMPURE_CALLS and is_impure_call(node):
                offences.append(module.at(node, f"calls {ast.unparse(node.func)}()"))
    report("Floors 1 and 2 are pure", offences)


def is_impure_call(node: ast.Call) -> bool:
    """Whether a suspicious name is the built-in or a method of datetime and date, not a method of our own."""
    if isinstance(node.func, ast.Name):
        return node.func.id in {"open", "print", "input"}
    owner = ast.unparse(node.func.value) if isinstance(node.func, ast.Attribute) else ""
    return owner.split(".")[-1] in {"datetime", "date", "Path"}


def test_libraries_live_where_the_table_says() -> None:
    """Each third-party library is imported in the folders of the table only."""
    offences = []
    for module in modules():
        for node, name in imports(module):
            top = name.split(".")[0]
            if top in EVERYWHERE or (top in sys.stdlib_module_names and top not in LIBRARIES):
                continue
            if module.place not in LIBRARIES.get(top, frozenset()):
                where = ", ".join(sorted(LIBRARIES.get(top, ()))) or "not in the table of libraries"
                offences.append(module.at(node, f"imports {top} (allowed: {where})"))
    report("Each library lives in one place", offences)


def test_imports_stand_at_the_top() -> None:
    """No function imports anything: what a file needs is seen in its first lines."""
    offences = [
        module.at(inner, f"import inside {function.name}")
        for module in modules()
        for function in nodes(module)
        if isinstance(function, FUNCTIONS)
        for inner in ast.walk(function)
        if isinstance(inner, ast.Import | ast.ImportFrom)
    ]
    report("No import inside a function", offences)


def test_modules_hold_nothing_mutable() -> None:
    """A list, dict or set at module level is a constant by name and nothing in the package changes it."""
    changed = {name for module in modules() for name in changed_names(module)}
    offences = []
    for module in modules():
        for name, value in module_assignments(module):
            if not is_mutable(value) or name == "__all__":
                continue
            if CONSTANT.fullmatch(name) is None:
                offences.append(module.at(value, f"{name} is mutable and not named as a constant"))
            elif name in changed:
                offences.append(module.at(value, f"{name} is changed somewhere: hand it in, or freeze it"))
        offences.extend(module.at(node, "global statement") for node in nodes(module) if isinstance(node, ast.Global))
    report("Nothing at module level is mutable", offences)


def module_assignments(module: Module) -> Iterator[tuple[str, ast.expr]]:
    """Give name and value of each assignment at the top of a module, `if` and `try` blocks included."""
    waiting: list[ast.stmt] = list(module.tree.body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Assign):
            yield from ((target.id, node.value) for target in node.targets if isinstance(target, ast.Name))
        elif isinstance(node, ast.AnnAssign) and node.value is not None and isinstance(node.target, ast.Name):
            yield node.target.id, node.value
        elif isinstance(node, ast.If | ast.Try | ast.With):
            waiting.extend(child for child in ast.iter_child_nodes(node) if isinstance(child, ast.stmt))


def is_mutable(value: ast.expr) -> bool:
    """Whether an expression makes a list, dict, set or another container that can change."""
    if isinstance(value, ast.List | ast.Dict | ast.Set | ast.ListComp | ast.DictComp | ast.SetComp):
        return True
    return isinstance(value, ast.Call) and called_name(value) in MUTABLE_CALLS


def changed_names(module: Module) -> Iterator[str]:
    """Give the names of constants that a module assigns into, deletes from, or calls a mutating method of."""
    for node in nodes(module):
        if isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store | ast.Del):
            yield constant_name(node.value)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in MUTATORS:
            yield constant_name(node.func.value)
        elif isinstance(node, ast.AugAssign):
            yield constant_name(node.target)


def constant_name(node: ast.expr) -> str:
    """Give the constant's name that an expression ends in, or ""."""
    name = node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""
    return name if CONSTANT.fullmatch(name) else ""


def test_files_are_short() -> None:
    """No source file has more than 400 lines."""
    report(
        f"Files have at most {MOST_LINES} lines",
        (
            module.at(module.tree, f"{lines} lines")
            for module in modules()
            if (lines := len(module.text.splitlines())) > MOST_LINES
        ),
    )


def test_functions_are_short() -> None:
    """No function has more than 60 lines, decorators left out."""
    report(
        f"Functions have at most {MOST_FUNCTION_LINES} lines",
        (
            module.at(node, f"{node.name} has {lines} lines")
            for module in modules()
            for node in nodes(module)
            if isinstance(node, FUNCTIONS) and (lines := (node.end_lineno or 0) - node.lineno + 1) > MOST_FUNCTION_LINES
        ),
    )


def test_functions_take_few_parameters() -> None:
    """No function takes more than 6 parameters besides self or cls."""
    report(
        f"Functions take at most {MOST_PARAMETERS} parameters",
        (
            module.at(node, f"{node.name} takes {count}")
            for module in modules()
            for node in nodes(module)
            if isinstance(node, FUNCTIONS) and (count := count_parameters(node)) > MOST_PARAMETERS
        ),
    )


def count_parameters(function: Function) -> int:
    """Count the named parameters of a function without self and cls."""
    arguments = function.args
    names = [argument.arg for argument in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]
    return len(names) - (names[:1] in (["self"], ["cls"]))


def test_files_open_with_a_sentence() -> None:
    """The first statement of every file is its docstring."""
    report(
        "Each file says in its first line what it is for",
        (module.at(module.tree, "no docstring") for module in modules() if not ast.get_docstring(module.tree)),
    )


def test_public_names_are_explained() -> None:
    """Each public class, function and method of a public class has a docstring."""
    offences = []
    for module in modules():
        for owner, node in public_definitions(module.tree, ""):
            if not ast.get_docstring(node) and not is_overload(node):
                offences.append(module.at(node, f"{owner}{node.name} has no docstring"))
    report("Public names are explained", offences)


def public_definitions(parent: ast.Module | ast.ClassDef, owner: str) -> Iterator[tuple[str, ast.ClassDef | Function]]:
    """Give the public classes, functions and methods below a module or class with their owner's name."""
    for node in parent.body:
        if isinstance(node, (ast.ClassDef, *FUNCTIONS)) and not node.name.startswith("_"):
            yield owner, node
            if isinstance(node, ast.ClassDef):
                yield from public_definitions(node, f"{owner}{node.name}.")


def is_overload(node: ast.ClassDef | Function) -> bool:
    """Whether a definition is a typing overload or a property's setter: the first one carries the sentence."""
    return any(ast.unparse(decorator).split(".")[-1] in {"overload", "setter"} for decorator in node.decorator_list)


def test_names_say_something() -> None:
    """No file, class or function is named by a word that fits everything."""
    offences = []
    for module in modules():
        if banned := banned_words(module.path.stem):
            offences.append(module.at(module.tree, f"file name has {banned}"))
        for node in nodes(module):
            if not isinstance(node, (ast.ClassDef, *FUNCTIONS)) or node.name in DICTATED_NAMES:
                continue
            if banned := banned_words(node.name):
                offences.append(module.at(node, f"{node.name} has {banned}"))
    report("Names say what a thing is", offences)


def banned_words(identifier: str) -> str:
    """Give the banned words of an identifier, joined, "" where there are none."""
    found = {word.lower() for word in WORD.findall(identifier)}
    return ", ".join(sorted(found & BANNED_WORDS))


def test_tasks_are_kept() -> None:
    """Nobody starts a task without keeping a reference: the loop's own is weak, and its exception would be lost."""
    report(
        "A task that is started is kept",
        (
            module.at(node, ast.unparse(node)[:80])
            for module in modules()
            for node in nodes(module)
            if isinstance(node, ast.Expr)
            and isinstance(node.value, ast.Call)
            and called_name(node.value) in {"create_task", "ensure_future"}
            and not is_task_group(node.value)
        ),
    )


def is_task_group(call: ast.Call) -> bool:
    """Whether the task belongs to a TaskGroup, which keeps it."""
    return isinstance(call.func, ast.Attribute) and "group" in ast.unparse(call.func.value).lower()


def test_nothing_is_left_for_later() -> None:
    """No file of the project has a mark for unfinished work."""
    mark = re.compile(r"\b(?:TO" + r"DO|FIX" + r"ME|X" + r"XX)\b")
    offences = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()[:80]}"
        for folder in ("src", "tests", "benchmarks", "docs", "conf", "systemd", ".ci")
        for path in sorted((ROOT / folder).rglob("*"))
        if path.is_file()
        and path.suffix in {".py", ".md", ".toml", ".service", ".socket", ""}
        and "node_modules" not in path.parts
        for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1)
        if mark.search(line)
    ]
    report("Nothing is left for later in the code: the issue tracker is for that", offences)


def test_every_test_says_what_it_shows() -> None:
    """Every test function has a sentence of docstring."""
    report(
        "Each test says what it shows",
        (
            module.at(node, f"{node.name} has no docstring")
            for module in modules(ROOT / "tests")
            if module.path.name.startswith("test_")
            for node in nodes(module)
            if isinstance(node, FUNCTIONS) and node.name.startswith("test_") and not ast.get_docstring(node)
        ),
    )


def test_test_files_have_their_own_names() -> None:
    """No two test files share a name: they are imported without packages."""
    seen: dict[str, Path] = {}
    offences = []
    for module in modules(ROOT / "tests"):
        name = module.path.name
        if name in seen and name != "conftest.py":
            offences.append(f"{module.path.relative_to(ROOT)} and {seen[name].relative_to(ROOT)}")
        seen[name] = module.path
    report("Test files have their own names", offences)
