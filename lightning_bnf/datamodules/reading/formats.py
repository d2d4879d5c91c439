"""Which format a file has, told from its columns: TRL's paired and unpaired, groups, demonstrations, or prompts."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from lightning_bnf.datamodules.reading.columns import PAIRED_COLUMNS, SAMPLE_COLUMNS, SINGLE_COLUMNS
from lightning_bnf.datamodules.reading.errors import DataError, nearest


@dataclass(frozen=True)
class Format:
    """A name, the sets of columns of which a file must have one, and the further columns that are read if present."""

    name: str
    needs: tuple[frozenset[str], ...]
    may_have: frozenset[str]

    def matches(self, columns: Collection[str]) -> frozenset[str] | None:
        """The set of columns that `columns` fulfils, if any."""
        return next((need for need in self.needs if need <= set(columns)), None)

    def reads(self, columns: Collection[str]) -> frozenset[str]:
        """The columns of a file with `columns` that this format uses."""
        return ((self.matches(columns) or frozenset()) | self.may_have) & set(columns)


_EVERYWHERE = frozenset({"prompt_id", "family", "verifier", "max_new_tokens", "kept_out"})

# In this order: a file is of the first format whose columns it has. `label` comes before its absence, so that
# completions marked as bad are never taken for demonstrations.
FORMATS = (
    Format(
        "paired",
        (frozenset({"chosen", "rejected"}),),
        _EVERYWHERE | {"prompt"} | PAIRED_COLUMNS | SAMPLE_COLUMNS,
    ),
    Format("grouped", (frozenset({"prompt", "samples", "rejected"}),), _EVERYWHERE),
    Format(
        "unpaired",
        (frozenset({"prompt", "completion", "label"}), frozenset({"messages", "label"})),
        _EVERYWHERE | SINGLE_COLUMNS,
    ),
    Format(
        "demonstration",
        (frozenset({"prompt", "completion"}), frozenset({"messages"})),
        _EVERYWHERE | SINGLE_COLUMNS,
    ),
    Format("prompt", (frozenset({"prompt"}),), _EVERYWHERE),
)
FORMAT_NAMES = tuple(known.name for known in FORMATS)
KNOWN_COLUMNS = frozenset().union(*(need for known in FORMATS for need in (*known.needs, known.may_have)))

_ACCEPTED = (
    "chosen and rejected with or without prompt (pairs), prompt, samples and rejected (groups), prompt, completion and"
    " label (unpaired), messages or prompt and completion (demonstrations), prompt alone (prompts); other names through"
    " column_map"
)
_ALIKE = 0.85  # of 1: `choosen`, `promt`, `labels` are above it


def map_columns(path: str, columns: Collection[str], column_map: Mapping[str, str]) -> dict[str, str]:
    """From each column of the file to our name for it. `column_map` is from our name to the file's name."""
    for ours, theirs in column_map.items():
        if ours not in KNOWN_COLUMNS:
            near = nearest(ours, KNOWN_COLUMNS)
            hint = f"; did you mean {near!r}?" if near else f"; accepted: {', '.join(sorted(KNOWN_COLUMNS))}"
            raise DataError(f"{path}: column_map renames to {ours!r}, which is no column we read{hint}")
        if theirs not in columns:
            near = nearest(theirs, columns)
            hint = f"; did you mean {near!r}?" if near else f"; its columns are: {', '.join(sorted(columns))}"
            raise DataError(f"{path}: column_map takes {ours!r} from {theirs!r}, which the file does not have{hint}")
    renamed = {theirs: ours for ours, theirs in column_map.items()}
    # A column whose own name was given to another one keeps its content under a name that nothing reads.
    return {
        column: renamed.get(column, column if column not in column_map else f"{column} (replaced by column_map)")
        for column in columns
    }


def detect_format(path: str, columns: Collection[str], wanted: str = "auto", ignore: Sequence[str] = ()) -> Format:
    """The format of a file with `columns` (our names); `wanted` may name one. Misspelled columns are refused."""
    read = set(columns) - set(ignore)
    for column in sorted(read - KNOWN_COLUMNS):
        near = nearest(column, KNOWN_COLUMNS - read, cutoff=_ALIKE)
        if near:
            raise DataError(
                f"{path}: unknown column {column!r}; did you mean {near!r}? If so rename it or set column_map"
                f" {{{near}: {column}}}, if not list it under ignore_columns"
            )
    candidates = [known for known in FORMATS if wanted in ("auto", known.name)]
    found = next((known for known in candidates if known.matches(read)), None)
    if found is None:
        raise DataError(
            f"{path}: the columns {', '.join(sorted(columns))} {_misfit(read, wanted)}; accepted: {_ACCEPTED}"
        )
    return found


def _misfit(columns: set[str], wanted: str) -> str:
    sentence = "match no format" if wanted == "auto" else f"do not make the format {wanted!r} that was asked for"
    near = {column: nearest(column, KNOWN_COLUMNS - columns) for column in sorted(columns - KNOWN_COLUMNS)}
    guesses = [f"is {column!r} the column {ours!r}?" for column, ours in near.items() if ours]
    return f"{sentence} ({' '.join(guesses)})" if guesses else sentence
