"""What stored runs answered: a few prompts, base and methods side by side, as in Tables 8 and 9 of the BNF paper."""

from collections.abc import Mapping, Sequence

import pandas as pd

from lightning_bnf.evaluation.verify import verify
from lightning_bnf.reproduction.scores import BASE
from lightning_bnf.reproduction.strict import Prompt, Runs, greedy
from lightning_bnf.results.tables import side_by_side
from lightning_bnf.runtime.refusal import Refusal


def answers_table(
    runs: Runs, prompts: Mapping[str, Prompt], families: Sequence[str], methods: Sequence[str] = (BASE, "BNF", "DPO")
) -> pd.DataFrame:
    """Greedy answers of each method's first run to the first prompt of each family, in the file's order: nobody chose
    them. Behind an answer: whether it passes read strictly, and as it is trained and counted.

    Raises `Refusal` for a method or a family that the runs do not have.
    """
    for method in methods:
        if method not in runs:
            raise Refusal(f"methods must be of {', '.join(runs)}, got {method!r}")
    lines = []
    for family in families:
        said = {method: {one["prompt_id"]: one for one in greedy(runs[method][0], family)} for method in methods}
        first = next((name for name, prompt in prompts.items() if name in said[methods[0]]), None)
        if first is None:
            raise Refusal(f"families must be those of the runs, got {family!r}")
        line = {"prompt": prompts[first].text}
        for method in methods:
            one = said[method][first]
            strictly = one["finished"] and verify(one["text"], prompts[first].strict) == 1.0
            line[method] = f"{one['text']}\n({_passed(strictly)} strictly, {_passed(one['passed'])} as counted)"
        lines.append(line)
    return side_by_side(pd.DataFrame(lines))


def _passed(it: bool) -> str:
    return "passes" if it else "fails"
