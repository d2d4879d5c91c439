"""Reward models: sequence classifiers that read a whole conversation and say how good its last answer is."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor
from transformers import AutoModelForSequenceClassification, PreTrainedModel

from lightning_bnf.datamodules.reading.messages import Message
from lightning_bnf.datamodules.tokens.chat_template import ChatTemplate
from lightning_bnf.policies.base import Dtype
from lightning_bnf.policies.sources import SourceError, load_tokenizer, placed, whole_model
from lightning_bnf.preparation.scoring import Candidates, Entry, ScoreFile, Scorer, ScoringError, right_padded
from lightning_bnf.runtime.arguments import PositiveInt, checked
from lightning_bnf.runtime.fingerprints import content_hash, tokenizer_fingerprints, weights_fingerprint

_CHUNK = 1024  # prompts of which the token ids are held at once


@checked
class RewardModel(Scorer):
    """Any model that transformers' AutoModelForSequenceClassification loads with its head and without code of its own.

    The conversation is rendered by the reward model's own chat template. Of several outputs `label` names one.
    """

    def __init__(
        self,
        source: str,
        revision: str | None = None,
        label: str | int | None = None,
        max_length: PositiveInt = 4096,
        max_tokens: PositiveInt = 16384,
        dtype: Dtype = "float32",
    ):
        """
        Args:
            source: Hub id or local folder of the reward model.
            revision: Commit, tag or branch of a hub id.
            label: The output that is the score, by name or index; null where there is only one.
            max_length: Longest conversation in tokens; longer ones are not scored (and counted).
            max_tokens: Token budget of a batch, padding included.
            dtype: Type of the weights.
        """
        self.source = source
        self.revision = revision
        self.label = label
        self.max_length = max_length
        self.max_tokens = max_tokens
        self.dtype = dtype

    def __repr__(self) -> str:
        at = f" at {self.revision}" if self.revision else ""
        return f"{type(self).__name__}({self.source}{at}, label={self.label}, {self.dtype})"

    def score(self, groups: Sequence[Candidates], work_file: Path) -> list[list[float | None]]:
        tokenizer, model = load_tokenizer(self.source, self.revision), placed(self.load_model())
        head = self.head(model)
        identity = content_hash([weights_fingerprint(model), tokenizer_fingerprints(tokenizer), self.dtype, head])
        chat = ChatTemplate(tokenizer, {}, ())
        own_pad = cast(int | None, model.config.pad_token_id)

        def compute(batch: list[Entry]) -> list[float]:
            with torch.inference_mode():
                return self.outputs(model, batch, own_pad)[:, head].float().tolist()

        file = ScoreFile(work_file, f"Scores of {self.source}", sum(len(group.completions) for group in groups))
        scores: list[list[float | None]] = []
        for start in range(0, len(groups), _CHUNK):
            rows = [conversations(chat, group, identity) for group in groups[start : start + _CHUNK]]
            fitting = [entry for row in rows for entry in row if len(entry.ids) <= self.max_length]
            found = file.fill(fitting, compute, self.max_tokens)
            scores += [[found.get(entry.key) for entry in row] for row in rows]
        file.bar.close()
        return scores

    def load_model(self) -> PreTrainedModel:
        """The model in evaluation mode. Raises `ScoringError` where weights are missing, such as those of the head."""
        return load_whole(AutoModelForSequenceClassification, self.source, self.revision, self.dtype)

    def head(self, model: PreTrainedModel) -> int:
        """The index of the output that is the score."""
        names = {str(name): int(index) for name, index in (model.config.label2id or {}).items()}
        count = int(model.config.num_labels or 0)
        if self.label is None and count == 1:
            return 0
        index = names.get(self.label) if isinstance(self.label, str) else self.label
        if index is None or not 0 <= index < count:
            shown = ", ".join(sorted(names, key=lambda name: names[name]))
            raise ScoringError(
                f"label must be 0 to {count - 1}, or {shown}, the outputs of {self.source!r}, got {self.label!r}"
            )
        return index

    def outputs(self, model: PreTrainedModel, batch: list[Entry], own_pad: int | None) -> Tensor:
        """Logits (entries, outputs), the same as of each entry alone.

        A causal classifier reads its logits at the last token that is not the padding's. One that names no padding
        token reads them at the very last: for it, a padding token that ends no entry of this batch is chosen.
        """
        last = {entry.ids[-1] for entry in batch}
        pad = next(token for token in range(len(last) + 1) if token not in last) if own_pad is None else own_pad
        model.config.pad_token_id = pad
        ids, mask = right_padded(batch, pad, model.device)
        return model(input_ids=ids, attention_mask=mask).logits


def conversations(chat: ChatTemplate, group: Candidates, identity: str) -> list[Entry]:
    """Prompt and completion of every candidate, as the reward model's own chat template renders them."""
    answers = [Message(role="assistant", content=text) for text in group.completions]
    texts = [chat.render(group.prompt), *(chat.render([*group.prompt, answer]) for answer in answers)]
    # The template writes the special tokens itself, so the tokenizer must add none.
    prompt, *whole = cast(list[list[int]], chat.tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"])
    return [Entry(content_hash([identity, ids]), ids, len(prompt)) for ids in whole]


def load_whole(kind: Any, source: str, revision: str | None, dtype: Dtype) -> PreTrainedModel:
    """A model of which every weight is in the files, in evaluation mode. Raises `ScoringError`."""
    try:
        return whole_model(kind, source, revision, dtype=getattr(torch, dtype), use_safetensors=True)
    except SourceError as error:
        raise ScoringError(
            "source must be a reward model with its head that needs no code of its own (RewardModel), ArmoRM, or "
            f"PairRM, got one that is no {kind.__name__} as a whole: {error}"
        ) from error
