"""The table of all architectures, as it was last made."""

import json
from pathlib import Path
from typing import NamedTuple

from lightning_bnf.results.markdown import markdown_table

STORED = Path(__file__).with_name("architectures.json")
NOT_BUILT = "not built: "
"""How begins what is said of an architecture of which no tiny model could be made."""


class Architecture(NamedTuple):
    """A model type of transformers: the layouts in which its numbers are right, the fastest first, and what is said of
    those that are not; without any, why it is not trained or why no tiny model of it could be built."""

    name: str
    layouts: tuple[str, ...]
    said: str


class Table(NamedTuple):
    """Every architecture of one version of transformers, by name."""

    transformers: str
    rows: tuple[Architecture, ...]


def read_table(path: Path = STORED) -> Table:
    """The table in a file, such as the one that comes with the package."""
    stored = json.loads(path.read_text())
    rows = (Architecture(row["name"], tuple(row["layouts"]), row["said"]) for row in stored["architectures"])
    return Table(stored["transformers"], tuple(rows))


def as_json(table: Table) -> str:
    """One architecture a line."""
    rows = ",\n".join(f"  {json.dumps(row._asdict())}" for row in table.rows)
    return f'{{"transformers": "{table.transformers}",\n "architectures": [\n{rows}\n]}}\n'


def as_text(table: Table) -> str:
    """For the terminal: a line for each, what is said of it below, and the counts."""
    lines = []
    for row in table.rows:
        lines.append(f"{row.name:28s}{', '.join(row.layouts) or 'not trained'}")
        lines += [f"{'':28s}{row.said}"] * bool(row.said)
    return "\n".join([*lines, "", summary(table)])


def as_markdown(table: Table) -> str:
    """A table for the documentation."""
    rows = ((row.name, ", ".join(row.layouts), row.said) for row in table.rows)
    return markdown_table(("architecture", "layouts", "what is said"), *rows) + f"\n\n{summary(table)}"


def summary(table: Table) -> str:
    """How many of the architectures are trained in which way."""
    rows = table.rows
    built = [row for row in rows if not row.said.startswith(NOT_BUILT)]
    shared, trained = (sum(name in row.layouts for row in built) for name in ("shared_prompt", "padded"))
    return (
        f"transformers {table.transformers}: of {len(rows)} architectures {len(built)} were built as tiny random "
        f"models; {shared} are trained with shared prompts, {trained - shared} fall back to another layout, and "
        f"{len(built) - trained} are refused with a sentence."
    )
