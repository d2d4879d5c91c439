"""Stored answers read strictly: what no longer passes, and what still does."""

import json
from pathlib import Path
from typing import Any

import pytest

from lightning_bnf.evaluation.controls import passed_controls
from lightning_bnf.evaluation.verify import check_verifier, verify
from lightning_bnf.preparation.families import draw_questions
from lightning_bnf.preparation.tasks import QUICKSTART
from lightning_bnf.reproduction.strict import Prompt, family_rates, read_prompts, rescored, share_of_gain


def asked(family: str, text: str, verifier: dict[str, Any]) -> Prompt:
    return Prompt({"family": family, "prompt": [{"role": "user", "content": text}], "verifier": verifier})


HIGHLIGHT = asked(
    "highlight",
    "Write one sentence about onions and highlight one word with asterisks, like *this*.",
    {"name": "highlighted", "count": 1},
)
ENDING = asked(
    "end_question", "Write two short sentences about rain. End with a question.", {"name": "ends_with_question"}
)


@pytest.mark.parametrize(
    ("prompt", "passes", "fails"),
    [
        (
            HIGHLIGHT,
            "I like *onions* in a soup.",
            ["*This is a sentence with asterisks*", "*onions*", "Onions are good."],
        ),
        (
            ENDING,
            "Rain is wet. Do you like it?",
            ["What can I help you with today?", "What is rain? Why?", "It is wet. Why?"],
        ),
        (
            asked("first_letter", "...", {"name": "mentions", "answers": ["b"]}),
            "It is B.",
            ["a b c d e f"],
        ),
        (
            asked(
                "fewer_words",
                "What do you think of dogs? Answer in fewer than 8 words.",
                {"name": "fewer_words", "limit": 8},
            ),
            "A dog is my friend.",
            ["I think so.", "Dogs?"],
        ),
    ],
)
def test_what_was_not_asked_for_fails(prompt: Prompt, passes: str, fails: list[str]) -> None:
    assert verify(passes, prompt.strict) == 1.0
    for text in fails:
        assert verify(text, prompt.strict) < 1.0, text
    assert any(verify(text, prompt.verifier) == 1.0 for text in fails), "which the verifier had passed"


@pytest.mark.parametrize("family", QUICKSTART.values(), ids=list(QUICKSTART))
def test_every_prompt_of_the_quickstart_can_be_read(family: Any) -> None:
    """Neither the prompt repeated nor a refusal passes any of them."""
    for question in draw_questions(family, 30, seed=1):
        prompt = asked(family.name, question.text, question.verifier)
        assert check_verifier(prompt.strict)
        passed = set(passed_controls(prompt.text, prompt.strict))
        if family.name != "subtraction":  # of which the last number of the question is the answer at times
            assert not {"the prompt repeated", "a refusal", "nothing"} & passed, (prompt.text, passed)


def test_families_and_gains_by_hand(tmp_path: Path) -> None:
    """Base passes 0 of 2 sums and 1 of 2 highlights, m both of both, but one is a copy: strictly 1 of 2."""
    rows = [
        {"prompt_id": f"s{i}", "family": "addition", "prompt": [{"content": f"What is {i} + 3?"}]}
        | {"verifier": {"name": "number", "answer": i + 3}}
        for i in (5, 6)
    ] + [
        {
            "prompt_id": f"h{i}",
            "family": "highlight",
            "prompt": [{"content": HIGHLIGHT.text}],
            "verifier": HIGHLIGHT.verifier,
        }
        for i in (1, 2)
    ]
    (tmp_path / "p.jsonl").write_text("\n".join(map(json.dumps, rows)))
    prompts = read_prompts(tmp_path / "p.jsonl")

    def run(method: str, said: dict[str, str]) -> dict[str, Any]:
        scores = [
            {"prompt_id": name, "groups": ["trained", prompts[name].family], "decoding": "greedy", "text": text}
            | {"finished": True, "passed": verify(text, prompts[name].verifier) == 1.0, "score": 0.0, "length": 1}
            for name, text in said.items()
        ]
        return {"method": method, "seed": 1, "results": {"scores": {"test": scores}}}

    right = "I like *onions* in a soup."
    base = run("Base", {"s5": "no", "s6": "no", "h1": "no", "h2": right})
    method = run("m", {"s5": "8", "s6": "9", "h1": "*This is it*", "h2": right})
    runs = {"Base": [base], "m": [method]}
    rates = family_rates(runs, prompts, strict=False)
    assert rates.loc[("trained", "highlight"), ["n", "constant", "Base", "m"]].tolist() == [2, 1.0, 0.5, 1.0]
    assert rates.loc[("trained", "addition"), ["n", "constant", "Base", "m"]].tolist() == [2, 0.5, 0.0, 1.0]
    assert share_of_gain(rates, ["highlight"])["m"] == pytest.approx(1 / 3)
    again = rescored(runs, prompts)
    assert family_rates(again, prompts, strict=True).loc[("trained", "highlight"), "m"] == 0.5
    assert method["results"]["scores"]["test"][2]["passed"], "what was stored stays as it was"
    (tmp_path / "none.jsonl").write_text("{}")
    with pytest.raises(ValueError, match="path must be a file of prompts with verifiers"):
        read_prompts(tmp_path / "none.jsonl")
