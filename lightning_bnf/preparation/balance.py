"""Unpaired rows of a stated balance of labels: each prompt gives one row at most, so that nothing is a pair."""

from collections.abc import Mapping, Sequence
from typing import Any

from lightning_bnf.evaluation.likelihood.choices import stratified
from lightning_bnf.runtime.refusal import Refusal


def balanced(rows: Sequence[Mapping[str, Any]], preferred: int, dispreferred: int) -> list[Mapping[str, Any]]:
    """So many rows with label true and false of unpaired rows with `prompt_id` and `family`, each family in its share.

    The rows of each label are chosen by their contents, and they take turns by family. Raises `Refusal` where there are
    not enough prompts.
    """
    taken: set[str] = set()
    found: list[Mapping[str, Any]] = []
    for label, count in sorted({True: preferred, False: dispreferred}.items(), key=lambda wanted: wanted[1]):
        free = [row for row in rows if row["label"] is label and row["prompt_id"] not in taken]
        once = list({row["prompt_id"]: row for row in free}.values())
        order = stratified([row["family"] for row in once], [row["prompt_id"] for row in once])[:count]
        if len(order) < count:
            raise Refusal(f"{'preferred' if label else 'dispreferred'} must be at most {len(order)} here, got {count}")
        found += [once[place] for place in order]
        taken |= {once[place]["prompt_id"] for place in order}
    keys = [f"{row['family']} {row['label']}" for row in found]
    return [found[place] for place in stratified(keys, [row["prompt_id"] for row in found])]
