"""What is found out from the loaded model before the first step: the layout, and the budget of a micro-batch."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import cast

import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch import nn

from lightning_bnf.datamodules.reading.errors import DataError
from lightning_bnf.datamodules.steps.layout import LAYOUTS, PADDED, Layout, LayoutName, layout_for, tokens_in_common
from lightning_bnf.datamodules.steps.plan import Budget
from lightning_bnf.datamodules.tokens.renderer import TokenizedRow
from lightning_bnf.datamodules.tokens.rows import RowArrays, as_rows
from lightning_bnf.losses.base import Loss
from lightning_bnf.policies.attention import is_flash, reach_of, windows_of
from lightning_bnf.policies.base import Policy
from lightning_bnf.policies.invariance import rotated_alike
from lightning_bnf.policies.probes import Probe
from lightning_bnf.runtime.distributed import gather_objects
from lightning_bnf.training.budget import DrySteps, choose_budget
from lightning_bnf.training.fake_step import FakeOptimizer
from lightning_bnf.training.optimization import Optimization, OptimizerFactory


@dataclass(frozen=True)
class PolicyFitting:
    """What a policy's loaded model takes, beside its optimizer: `datamodules.contract.Fitting`."""

    policy: Policy
    optimization: Optimization
    optimizer: OptimizerFactory | None
    context: Callable[[], AbstractContextManager[None]]
    """What the run's forward passes are inside, such as autocast."""
    tried: list[LayoutName] = field(default_factory=list, compare=False)
    """Not empty once the model itself was tried: another split tries what its rows can break alone."""

    def layout(self, name: LayoutName, rows: Sequence[TokenizedRow], labels: Sequence[int]) -> Layout:
        """See `check_rows` and `choose_layout`."""
        check_rows(self.policy, rows, labels)
        with self.context():
            known, self.tried[:] = bool(self.tried), [name]
            return choose_layout(name, self.policy, rows, labels, known)

    def budget(self, rows: Sequence[TokenizedRow], layout: Layout, loss: Loss, step_rows: int) -> Budget:
        """See `choose_budget`."""
        optimizer = FakeOptimizer(self.policy, self.optimization, self.optimizer)
        with self.context():
            steps = DrySteps(self.policy, rows, layout, loss.labels, loss.fused)
            return choose_budget(steps, step_rows, optimizer.state_bytes)


def check_rows(policy: Policy, rows: Sequence[TokenizedRow], labels: Sequence[int]) -> None:
    """Raises `DataError` for token ids that the loaded model has no embedding of, and for rows longer than its learned
    positions. Rows longer than it was made for are counted in a warning: computed positions go on for ever."""
    model = policy.causal_lm
    embeddings, limit = model.get_input_embeddings(), 0
    known = cast(torch.Tensor, embeddings.weight).shape[0]
    if isinstance(declared := getattr(model.config.get_text_config(), "max_position_embeddings", 0), int):
        limit = max(declared, 0)  # 0 where the config names none
    columns = as_rows(rows).columns
    longest, unknown = columns.tokens(labels).largest(), np.flatnonzero(columns.largest >= known)
    if len(unknown):
        row = int(unknown[0])
        raise DataError(
            f"{rows[row].source}: token ids must be below {known}, the model's vocabulary, got {columns.largest[row]}: "
            f"the tokenizer of {policy.source!r} is larger than its model"
        )
    over = int((longest > limit).sum()) if limit else 0
    if not over:
        return
    told = f"{over} of {len(rows)} rows, such as {rows[int(longest.argmax())].source} of {longest.max()} tokens"
    others = (layer for layer in model.modules() if isinstance(layer, nn.Embedding) and layer is not embeddings)
    if any(limit <= layer.num_embeddings <= limit + 16 for layer in others):  # some begin at 2
        raise DataError(
            f"data.options.max_length must be at most {limit}, the positions that {policy.source!r} has learned, got "
            f"{told}"
        )
    rank_zero_warn(f"{told}, are longer than the {limit} positions that {policy.source!r} was made for")


def preferred_layouts(
    name: LayoutName, attention: str, rows: Sequence[TokenizedRow], labels: Sequence[int], reach: float
) -> list[LayoutName]:
    """The layout asked for, and under `auto` those that are tried, the fastest first, before rows are padded; sharing
    where no row has two completions is padded, or packed, unless prompts have much in common.

    attention: transformers' name of the attention implementation; reach: tokens of the longest sequence that it needs
    no mask for. Raises `DataError` where it cannot share prompts.
    """
    lengths = PADDED.lengths_of(rows, labels)
    several = bool((lengths.counts > 1).any())
    sequences = reach >= lengths.values.max(initial=0)
    shares: list[LayoutName] = ["shared_prompt", "packed_shared"]
    if name in shares and is_flash(attention) and not sequences:
        raise DataError(
            f"layout must be 'auto', 'packed' or 'padded' with attention {attention} and a model that does not hand "
            f"down who sees whom, got {name!r}; or take another attention, such as sdpa"
        )
    if sequences and name in ("auto", "packed_shared") and not several and tokens_in_common(rows):
        return ["packed_shared"]
    if name == "auto" and several and (sequences or not is_flash(attention)):
        return ["packed_shared", "shared_prompt"] if sequences else ["shared_prompt"]
    if name == "auto":
        return ["packed"] if is_flash(attention) else ["padded"]
    if name in shares and not several:
        return ["padded" if name == "shared_prompt" else "packed"]
    return [name]


def choose_layout(
    name: LayoutName, policy: Policy, rows: Sequence[TokenizedRow], labels: Sequence[int], known: bool = False
) -> Layout:
    """The layout asked for, if the loaded model gives the same log-probs and gradients with it as with single rows.

    `known`: whether the model itself has been tried on other rows, so that only what rows can break is. `auto` falls
    back to padded where it does not; a layout asked for by name raises `DataError`, and so does padded where the model
    gives other numbers in a batch than alone.
    """
    config = policy.causal_lm.config
    reach = reach_of(policy.attention_kernel, windows_of(config.get_text_config()))
    tried = preferred_layouts(name, str(config._attn_implementation), rows, labels, reach)
    if tried != ["padded"] and (told := _rotated_otherwise(policy, rows, labels)):
        if name not in ("auto", "padded"):
            raise DataError(f"layout must be 'padded' for this model, got {name!r}: {told}")
        rank_zero_info(f"Layout padded, not {tried[0]}: {told}.")
        tried = ["padded"]
    shortest, others = extremes(rows, LAYOUTS[tried[0]], labels)
    if shortest is None:
        return PADDED
    probe = Probe(policy, labels, [*others[:1], shortest])

    def refuse(fault: str | None) -> None:
        if found := _agreed(fault):
            policy.check_finite()
            raise DataError(
                "source must be a model that scores a sequence in a batch as it does alone, got "
                f"{policy.source!r}, whose {found}"
            )

    if not known:
        refuse(probe.fault_of_model(shortest))
    padded = tried == ["padded"]
    if not known or padded:
        refuse(probe.fault(PADDED, probe.measured, gradients=padded and not known))
    for wanted in tried if not padded else ():
        layout, fault = layout_for(wanted, rows), None
        for i, row in enumerate(others or [shortest]):  # two at a time: together they may be more than memory holds
            both = [row, shortest] if others else [row]
            if fault := _agreed(probe.fault(layout, both, gradients=i == 0 and not known)):
                break
        if fault is None:
            return layout
        if name != "auto":
            raise DataError(f"layout must be 'padded' for this model, got {name!r}, with which its {fault}")
        following = [*tried, "padded"][tried.index(wanted) + 1]
        rank_zero_info(f"Layout {following}, not {wanted}, with which this model's {fault}.")
    if not padded:
        refuse(probe.fault(PADDED, probe.measured, gradients=not known))
    return PADDED


def _rotated_otherwise(policy: Policy, rows: Sequence[TokenizedRow], labels: Sequence[int]) -> str | None:
    """What keeps sequences apart whose positions are encoded by their lengths; None where all are encoded alike."""
    lengths = PADDED.lengths_of(rows, labels).values
    if not len(lengths) or rotated_alike(policy.causal_lm, int(lengths.min()), int(lengths.max())):
        return None
    return (
        f"its RoPE scaling encodes positions by a sequence's length, otherwise for {lengths.min()} tokens than for "
        f"{lengths.max()}"
    )


def _agreed(fault: str | None) -> str | None:
    """The first rank's that found one, or the ranks would part ways over it."""
    return next((found for found in gather_objects(fault) if found is not None), None)


def extremes(
    rows: Sequence[TokenizedRow], layout: Layout, labels: Sequence[int]
) -> tuple[RowArrays | None, list[RowArrays]]:
    """The shortest row, and the others that a layout is wrong for if it is wrong for any, that of the longest sequence
    first: of rows with one completion, and of rows with several, those of the longest sequence and of the most tokens,
    and those of a prompt or a completion that is much longer than theirs. Of rows alike the first is taken."""
    held = as_rows(rows)
    columns = held.columns
    sequences = PADDED.lengths(columns, labels)
    some, longest = np.flatnonzero(sequences.counts), sequences.largest()
    if not len(some):
        return None, []
    shortest = int(some[sequences.sums()[some].argmin()])
    tokens, prompt = layout.lengths(columns, labels).sums(), columns.prompt
    sizes = ((longest, 1.0), (tokens, 1.25), (prompt, 1.25), (longest - prompt, 1.25))  # and how much above the others
    chosen: list[int] = []
    for several in (False, True):
        alike: list[int] = []
        kind = some[(sequences.counts[some] > 1) == several]
        for size, slack in sizes if len(kind) else ():
            row = int(kind[size[kind].argmax()])
            if size[row] > slack * max((size[other] for other in alike), default=0):
                alike.append(row)
        chosen += [row for row in alike if row != shortest]
    return held.arrays(shortest), [held.arrays(row) for row in sorted(chosen, key=lambda row: -longest[row])]
