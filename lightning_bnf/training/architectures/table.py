"""The verb `models`: the table of all architectures, as it was last made, or made anew."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from lightning_bnf.results.markdown import markdown_table
from lightning_bnf.runtime.files import write_text
from lightning_bnf.runtime.progress import Progress
from lightning_bnf.runtime.refusal import Refusal

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


def print_models(
    names: list[str] | None = None,
    check: bool = False,
    output: str | None = None,
    format: Literal["text", "markdown"] = "text",
) -> None:
    """List the architectures of transformers: in which layouts each was trained rightly, and what is said of the rest.

    Args:
        names: Architectures (transformers' model types) to list, such as [llama, gemma3_text]; null is all.
        check: Make the rows anew, on tiny random models of the installed transformers, instead of reading them off the
            table that comes with the package; about a second each.
        output: JSON file to write the rows to, such as the package's own table.
        format: Text for the terminal, or a markdown table.
    """
    table = checked_table(names) if check else read_table()
    known = {row.name: row for row in table.rows}
    for name in names or ():
        if name not in known:
            raise Refusal(f"names must be of {', '.join(known)}, got {name!r}")
    found = Table(table.transformers, tuple(known[name] for name in names or known))
    if output is not None:
        write_text(Path(output), as_json(found))
    print(as_markdown(found) if format == "markdown" else as_text(found))


def read_table(path: Path = STORED) -> Table:
    """The table in a file, such as the one that comes with the package."""
    stored = json.loads(path.read_text())
    rows = (Architecture(row["name"], tuple(row["layouts"]), row["said"]) for row in stored["architectures"])
    return Table(stored["transformers"], tuple(rows))


def checked_table(names: Sequence[str] | None) -> Table:
    """The table of the installed transformers, made anew; of all architectures where none is named."""
    from importlib.metadata import version

    from lightning_bnf.training.architectures.check import check
    from lightning_bnf.training.architectures.tiny import architectures

    chosen = [name for name in architectures() if names is None or name in names]
    with Progress(len(chosen), "Tiny models", "architecture", delay=3) as bar:
        rows = []
        for name in chosen:
            rows.append(check(name))
            bar.update()
    return Table(version("transformers"), tuple(rows))


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
