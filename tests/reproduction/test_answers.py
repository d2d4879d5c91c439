"""Stored answers side by side: the first prompt of a family, what is said, and how it is judged."""

from typing import Any

import pytest

from lightning_bnf.reproduction.answers import answers_table
from lightning_bnf.reproduction.strict import Prompt
from lightning_bnf.runtime.refusal import Refusal

PROMPTS = {
    name: Prompt(
        {
            "family": "highlight",
            "prompt": [{"role": "user", "content": f"Write one sentence about {name} and highlight one word."}],
            "verifier": {"name": "highlighted", "count": 1},
        }
    )
    for name in ("bees", "onions")
}


def run(said: dict[str, str], passed: bool) -> dict[str, Any]:
    own = {"decoding": "greedy", "groups": ["trained", "highlight"], "passed": passed, "finished": True}
    return {"results": {"scores": {"test": [own | {"prompt_id": name, "text": text} for name, text in said.items()]}}}


RUNS = {
    "Base": [run({"onions": "Onions are good.", "bees": "<b>Bees</b> fly."}, False)],
    "BNF": [run({"onions": "*Onions* are good.", "bees": "*a sentence with asterisks*"}, True)],
}


def test_the_first_prompt_of_the_file_and_both_verdicts() -> None:
    table = answers_table(RUNS, PROMPTS, ["highlight"], ["Base", "BNF"])
    assert table.to_dict("records") == [
        {
            "prompt": "Write one sentence about bees and highlight one word.",
            "Base": "<b>Bees</b> fly.\n(fails strictly, fails as counted)",
            "BNF": "*a sentence with asterisks*\n(fails strictly, passes as counted)",
        }
    ]
    assert "&lt;b&gt;Bees" in table._repr_html_()  # type: ignore[operator]


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ((["highlight"], ["Base", "KTO"]), "methods must be of Base, BNF, got 'KTO'"),
        ((["sums"], ["Base"]), "families must be those of the runs, got 'sums'"),
    ],
)
def test_what_the_runs_do_not_hold_is_refused(asked: Any, message: str) -> None:
    with pytest.raises(Refusal, match=message):
        answers_table(RUNS, PROMPTS, *asked)
