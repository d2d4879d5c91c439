"""The verb `models`: the stored table of architectures, or one that is made anew."""

from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Literal

from lightning_bnf.runtime.files import write_text
from lightning_bnf.runtime.progress import Progress
from lightning_bnf.runtime.refusal import Refusal
from lightning_bnf.training.architectures.table import Table, as_json, as_markdown, as_text, read_table


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


def checked_table(names: Sequence[str] | None) -> Table:
    """The table of the installed transformers, made anew; of all architectures where none is named."""
    from lightning_bnf.training.architectures.check import check
    from lightning_bnf.training.architectures.tiny import architectures

    chosen = [name for name in architectures() if names is None or name in names]
    with Progress(len(chosen), "Tiny models", "architecture", delay=3) as bar:
        rows = []
        for name in chosen:
            rows.append(check(name))
            bar.update()
    return Table(version("transformers"), tuple(rows))
