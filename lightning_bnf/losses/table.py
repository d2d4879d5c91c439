"""The verb `losses`: a table of all losses, made from the classes themselves."""

import inspect
import re
import textwrap
from dataclasses import dataclass
from typing import Any, Literal

from lightning_bnf import losses
from lightning_bnf.losses.base import Loss
from lightning_bnf.results.markdown import markdown_table
from lightning_bnf.runtime.refusal import Refusal


@dataclass(frozen=True)
class Entry:
    """A loss as its class describes it.

    equation: lines; needs: words such as "pairs"; arguments: name -> default (None where there is none); doc: its page
    """

    name: str
    paper: str
    equation: tuple[str, ...]
    needs: tuple[str, ...]
    arguments: dict[str, Any]
    doc: str


def print_losses(names: list[str] | None = None, format: Literal["text", "markdown"] = "text") -> None:
    """List the losses: equation, needs, arguments, paper.

    Args:
        names: losses whose full page is printed instead, such as [BNF, DPO].
        format: text for the terminal, or a markdown table.
    """
    entries = table()
    known = {entry.name: entry for entry in entries}
    for name in names or ():
        if name not in known:
            raise Refusal(f"names must be one of {', '.join(known)}, got {name!r}")
        print(f"{name}\n\n{known[name].doc}\n")
    if not names:
        print(as_markdown(entries) if format == "markdown" else as_text(entries))


def table() -> list[Entry]:
    """All losses, those without pairs first, then by name."""
    classes = [value for value in vars(losses).values() if isinstance(value, type) and issubclass(value, Loss)]
    entries = [_entry(loss) for loss in classes if not inspect.isabstract(loss)]
    return sorted(entries, key=lambda entry: ("pairs" in entry.needs, entry.name != "BNF", entry.name.lower()))


def _entry(loss: type[Loss]) -> Entry:
    doc = inspect.cleandoc(loss.__doc__ or "")
    paragraphs = doc.split("\n\n")
    blocks = [block for block in paragraphs if block.startswith("    ") and not block.strip().startswith("symbol")]
    cited = re.search(r"\(([^()]*(?:ICLR|arXiv|paper)[^()]*)\)", " ".join(paragraphs[0].split()))
    parameters = inspect.signature(loss).parameters.values()
    return Entry(
        name=loss.__name__,
        paper=cited[1].replace('"', "") if cited else "",
        equation=tuple(line.strip() for line in blocks[0].splitlines()),
        needs=_needs(loss),
        arguments={p.name: None if p.default is inspect.Parameter.empty else p.default for p in parameters},
        doc=doc,
    )


def _needs(loss: type[Loss]) -> tuple[str, ...]:
    """What the class declares, in words. Losses around other losses need what these need."""
    if "needs_reference" not in dir(loss):
        return ("what its losses need", *(["pairs"] if loss.needs_pairs else []))
    found = {
        "pairs": loss.needs_pairs,
        "groups": loss.needs_groups,
        "both labels": loss.needs_both_labels,
        "preferred": loss.labels == (1,),
        "reference": loss.needs_reference,
        **{name.replace("_", " "): True for name in loss.needs_columns},
        "a pass over the step": bool(loss.step_passes),
        "state": bool(loss.state),
    }
    return tuple(name for name, needed in found.items() if needed)


def as_text(entries: list[Entry]) -> str:
    """For the terminal: each loss with its equation and arguments."""
    parts = []
    for entry in entries:
        equation = "\n".join(f"    {line}" for line in entry.equation)
        details = f"needs {', '.join(entry.needs) or 'nothing'}"
        if entry.arguments:
            details += f"; {_arguments(entry)}"
        wrapped = textwrap.indent(textwrap.fill(details, 112), "    ")
        title = f"{entry.name}  ({entry.paper})" if entry.paper else entry.name
        parts.append(f"{title}\n{equation}\n{wrapped}")
    return "\n\n".join(parts) + "\n\nA loss's page: python -m lightning_bnf losses --names '[BNF]'"


def as_markdown(entries: list[Entry]) -> str:
    """A table for the documentation."""
    rows = []
    for entry in entries:
        equation = "<br>".join(f"`{line}`" for line in entry.equation)
        arguments = f"`{_arguments(entry)}`" if entry.arguments else ""
        paper = re.sub(r"arXiv (\d+\.\d+)", r"[arXiv \1](https://arxiv.org/abs/\1)", entry.paper)
        rows.append((entry.name, equation, ", ".join(entry.needs), arguments, paper))
    return markdown_table(("loss", "equation", "needs", "arguments", "paper"), *rows)


def _arguments(entry: Entry) -> str:
    return ", ".join(name if value is None else f"{name}={value!r}" for name, value in entry.arguments.items())
