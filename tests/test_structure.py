"""The rooms of the package: imports go down only, in no circle, and files and functions are short."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "lightning_bnf"

LEVELS = (
    ("runtime", "results"),
    ("losses",),
    ("batch",),
    ("datamodules",),
    ("policies",),
    ("training", "generation"),
    ("evaluation",),
    ("preparation", "module", "reproduction"),
    ("export", "costs"),
    ("callbacks",),
    ("cli",),
    ("__main__",),
)
"""From the ground up: a room imports from those below it, and from itself."""

HEIGHT = {room: height for height, rooms in enumerate(LEVELS) for room in rooms}
MODULES = sorted(PACKAGE.rglob("*.py"))


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(path: Path) -> Iterator[str]:
    """The package's modules that a file imports, wherever in it; names of a package's modules are followed."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "lightning_bnf":
            inside = {f"{node.module}.{alias.name}" for alias in node.names} & NAMES
            yield from inside or {node.module}
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == "lightning_bnf")


NAMES = {name_of(path) for path in MODULES}
IMPORTS = {name_of(path): sorted(set(imported(path))) for path in MODULES}


def room(name: str) -> str:
    return name.split(".")[1] if "." in name else "lightning_bnf"


def test_no_import_runs_up() -> None:
    up = [
        f"{name} imports {other}"
        for name, others in IMPORTS.items()
        for other in others
        if "lightning_bnf" not in (room(name), room(other))
        and room(name) != room(other)
        and HEIGHT[room(other)] >= HEIGHT[room(name)]
    ]
    assert not up, "\n".join(up)


def test_no_modules_import_each_other_in_a_circle() -> None:
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, " -> ".join((*trail[trail.index(name) :], name))
        if name not in done:
            for other in IMPORTS.get(name, []):
                if other != name and not name.startswith(f"{other}."):  # a package's own modules may name it
                    visit(other, (*trail, name))
            done.add(name)

    for name in IMPORTS:
        visit(name, ())


def test_few_modules_lie_at_the_root() -> None:
    loose = [path.stem for path in PACKAGE.glob("*.py") if path.stem not in ("__init__", "__main__")]
    assert len(loose) <= 4, loose
    rooms = {path.name for path in PACKAGE.iterdir() if path.is_dir() and path.name != "__pycache__"} | set(loose)
    assert rooms <= set(HEIGHT), "a new room needs its place in LEVELS"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_files_and_functions_are_short(path: Path) -> None:
    text = path.read_text()
    assert text.count("\n") <= 400
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            assert lines <= 60, f"{node.name}: {lines} lines"
