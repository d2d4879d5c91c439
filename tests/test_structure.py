"""The rooms of the package: imports go down only, in no circle, and files and functions are short."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "lightning_bnf"

LEVELS = (
    ("runtime",),
    ("results",),
    ("losses",),
    ("batch",),
    ("datamodules",),
    ("policies",),
    ("training", "generation"),
    ("evaluation",),
    ("preparation", "module"),
    ("export", "costs", "pages", "judging"),
    ("callbacks", "reproduction"),
    ("cli", "aligned"),
    ("alignment",),
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


TESTED_ELSEWHERE = {
    "callbacks/run_plots.py": "through fit and its files, in cli/test_main.py",
    "costs/plan/report.py": "its text is the command's, in costs/plan/test_command.py",
    "costs/plan/run.py": "what is planned, in costs/plan/test_workload.py, test_duration.py and test_advice.py",
    "datamodules/reading/answers.py": "through the formats, by good rows and bad ones, in reading/test_records.py",
    "policies/head/softmax.py": "against the whole vocabulary and the kernel: test_tiles.py, test_triton_softmax.py",
    "policies/reference/providers.py": "against the start and against each other, in test_build.py and test_cached.py",
    "policies/skeleton.py": "against loaded models in policies/test_sharding.py, its sizes in costs/plan/test_step.py",
    "preparation/card.py": "against the files that are written beside it, in preparation/test_prepare.py",
}
"""Modules without a test file of their own: why. The losses are tested together, on purpose."""


def test_tests_mirror_the_package() -> None:
    inside = [path.relative_to(PACKAGE) for path in MODULES if path.name not in ("__init__.py", "__main__.py")]
    without = {
        path.as_posix()
        for path in inside
        if path.parts[0] != "losses" and not (ROOT / "tests" / path.with_name(f"test_{path.name}")).is_file()
    }
    assert without == set(TESTED_ELSEWHERE), "a test file for every module, or a line here that says why not"


@pytest.mark.parametrize("path", sorted((ROOT / "tests").rglob("*.py")), ids=lambda path: path.name)
def test_test_files_are_short(path: Path) -> None:
    assert path.read_text().count("\n") <= 400


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_files_and_functions_are_short(path: Path) -> None:
    text = path.read_text()
    assert text.count("\n") <= 400
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            assert lines <= 60, f"{node.name}: {lines} lines"
