"""The verb `likelihood`: multiple choice, held-out pairs, prose and distance from the base, of one model."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lightning_bnf.datamodules.reading.options import DataOptions
from lightning_bnf.datamodules.steps.layout import PADDED
from lightning_bnf.datamodules.tokens.renderer import TokenizedRow
from lightning_bnf.evaluation.likelihood.material import LikelihoodRows, Material, material, sampled
from lightning_bnf.evaluation.likelihood.measures import Line, Sums, lines, row_fingerprints, table, values
from lightning_bnf.evaluation.likelihood.scoring import (
    LABELS,
    all_rows,
    draw,
    giving,
    kept_samples,
    passed,
    rounded,
    scored,
    summed_logps,
    way_of,
)
from lightning_bnf.policies.base import Dtype, Policy
from lightning_bnf.policies.exported import exported
from lightning_bnf.runtime.arguments import PositiveInt, checked
from lightning_bnf.runtime.files import write_text
from lightning_bnf.runtime.fingerprints import tokenizer_fingerprints, weights_fingerprint
from lightning_bnf.runtime.ownership import check_claim, claim
from lightning_bnf.runtime.refusal import Refusal

DEFAULT_ROWS = LikelihoodRows()


@checked
def likelihood(
    source: str,
    output: Path,
    reference: str | None = None,
    rows: LikelihoodRows = DEFAULT_ROWS,
    options: DataOptions | None = None,
    max_tokens: PositiveInt = 2048,
    dtype: Dtype = "float32",
) -> None:
    """Measure a model by likelihood: multiple choice as lm-eval scores it, held-out pairs, prose, KL from its base.

    Writes likelihood.json and likelihood.md. One model is in memory at a time.

    Args:
        source: model to measure: exported folder (an adapter's too), hub id, GGUF file or bundled model.
        output: folder for the results: new, empty, or of this command.
        reference: model to compare with, row by row; null measures the model alone. rows.prompts need one.
        rows: which rows are measured.
        options: how files of pairs and prompts are read.
        max_tokens: token budget of a micro-batch.
        dtype: type of both models' weights; a GPU is used where there is one.
    """
    if rows.prompts is not None and reference is None:
        raise Refusal("reference must be a model where rows.prompts names a file, got none")
    check_claim("output", Path(output), "likelihood")
    policy = exported(source, dtype)
    of = material(rows, policy.tokenizer, policy.end_ids, options)
    if not all_rows(of, of.prompts):
        raise Refusal("rows must name choices, pairs, prose or prompts (beside verified), got none of them")
    meter = _Meter(of, rows, max_tokens, dtype)
    base = samples = None
    if reference is not None:
        _check_tokenizers(policy, exported(reference, dtype))
        base, samples = meter.base(reference)
    own, drawn = meter.policy(source, samples or [])
    if reference is not None and base is not None and drawn:
        base = replace(base, own_samples=meter.again(reference, drawn))
    mine = values(of, own, base)
    its = None if base is None else values(of, base)
    measured = lines(mine, its)
    claim("output", Path(output), "likelihood")
    _write(Path(output), measured, mine, its, {"rows": asdict(rows), "dtype": dtype, **meter.models}, of)
    print(table(measured))


class _Meter:
    """Loads one model after another, and scores the rows with it."""

    def __init__(self, of: Material, rows: LikelihoodRows, max_tokens: int, dtype: Dtype):
        self.of, self.rows, self.max_tokens, self.dtype = of, rows, max_tokens, dtype
        self.models: dict[str, dict[str, str]] = {}

    @contextmanager
    def _loaded(self, source: str, called: str) -> Iterator[Policy]:
        policy = exported(source, self.dtype)
        policy.load()
        policy.to("cuda" if torch.cuda.is_available() else "cpu")
        rows = all_rows(self.of, self.of.prompts)
        policy.check_head(PADDED.batch(rows[:1], LABELS).to(policy.causal_lm.device))
        self.models[called] = {
            "source": source,
            "weights": weights_fingerprint(policy.loaded),
            **tokenizer_fingerprints(policy.tokenizer),
        }
        yield policy

    def base(self, source: str) -> tuple[Sums, list[TokenizedRow]]:
        """The base's sums, and its samples."""
        with self._loaded(source, "reference") as policy:

            def make() -> list[list[int]]:
                return draw(policy, self.of.prompts, self.rows, "the base's samples")

            samples = kept_samples(self.rows, self.of.prompts, self.models["reference"]["weights"], make)
            return self._sums(policy, samples, "reference"), samples

    def policy(self, source: str, samples: list[TokenizedRow]) -> tuple[Sums, list[TokenizedRow]]:
        """The policy's sums, and samples of its own."""
        with self._loaded(source, "policy") as policy:
            found = self._sums(policy, samples, "policy")
            if not self.of.prompts:
                return found, []
            ids = draw(policy, self.of.prompts, self.rows, "the policy's samples")
            own = [sampled(row, one) for row, one in zip(self.of.prompts, ids, strict=True)]
            return replace(found, own_samples=self._some(policy, own, "the policy on its own")), own

    def again(self, source: str, rows: list[TokenizedRow]) -> list[np.ndarray]:
        """The base on the policy's samples."""
        with self._loaded(source, "reference") as policy:
            return self._some(policy, rows, "reference on the policy's")

    def _sums(self, policy: Policy, samples: list[TokenizedRow], called: str) -> Sums:
        rows = all_rows(self.of, samples)
        way, device = way_of(policy, rows, self.max_tokens), policy.causal_lm.device
        sums = scored(giving(policy), self.of, samples, way, device, f"{called}: log-probs")
        if not self.of.verified:
            return sums
        return replace(sums, passes=passed(policy, self.of.verified, f"{called}: answers that are verified"))

    def _some(self, policy: Policy, rows: list[TokenizedRow], called: str) -> list[np.ndarray]:
        way = way_of(policy, rows, self.max_tokens)
        return summed_logps(giving(policy), rows, way, policy.causal_lm.device, f"{called}: log-probs")


def _check_tokenizers(policy: Policy, reference: Policy) -> None:
    own, right = tokenizer_fingerprints(policy.tokenizer), tokenizer_fingerprints(reference.tokenizer)
    if differing := [name for name in right if own[name] != right[name]]:
        raise Refusal(
            f"reference must be a model of the source's tokenizer, got {reference.source!r}, whose "
            f"{' and '.join(differing)} differs: the same row would be other tokens"
        )


def _write(
    output: Path,
    measured: list[Line],
    mine: dict[str, np.ndarray],
    its: dict[str, np.ndarray] | None,
    made: dict[str, Any],
    of: Material,
) -> None:
    result = {
        **made,
        "versions": {name: version(name) for name in ("lightning_bnf", "torch", "transformers")},
        "fingerprints": row_fingerprints(of),
        "measures": [asdict(one) for one in measured],
        "values": rounded(mine),
        "reference_values": None if its is None else rounded(its),
    }
    write_text(output / "likelihood.json", json.dumps(result, indent=1) + "\n")
    write_text(output / "likelihood.md", table(measured) + "\n")
