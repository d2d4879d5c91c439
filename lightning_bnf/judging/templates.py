"""Prompts for judges: data with a source, a version and a licence, ours or a benchmark's own from the user's checkout.

A benchmark's numbers are those of its own words: they are read from a clone of its repository (or the installed package
`alpaca_eval`), and never shipped. Ours are short, and make another benchmark, which every table says.

| benchmark | checkout of | files |
|---|---|---|
| arena_hard_v0.1 | lmarena/arena-hard-auto before April 2025 | config/judge_config.yaml |
| arena_hard_v2 | lmarena/arena-hard-auto | config/arena-hard-v2.0.yaml, utils/judge_utils.py |
| wildbench, wildbench_pairs | allenai/WildBench | evaluation/eval_template.score.v2.md, ... .pairwise.v2.md |
| alpaca_eval_2 | tatsu-lab/alpaca_eval | .../alpaca_eval_clf_gpt4_turbo/alpaca_eval_clf.txt |
"""

import ast
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from lightning_bnf.datamodules.reading.messages import Message
from lightning_bnf.judging.protocols import Kind, Protocol
from lightning_bnf.runtime.fingerprints import content_hash
from lightning_bnf.runtime.refusal import Refusal, refusing

OWN = "own"
_SLOT = re.compile(r"\{\{(\w+)\}\}")
_NEEDED = {
    "pairwise": {"question", "answer_a", "answer_b"},
    "letters": {"question", "answer_a", "answer_b"},
    "choice": {"query", "answer_a", "answer_b"},
    "score": {"query", "answer"},
}
SLOTS = {"question", "history", "query", "answer", "answer_a", "answer_b", "checklist"}
_CONTINUE = "continue your judgment and finish by outputting a final verdict label"


@dataclass(frozen=True)
class Template:
    """A prompt. `{{slots}}` of `SLOTS` are filled in one pass, so that what answers hold is never filled again.

    system: by the question's category, "" for all others. finish: what is said where a verdict is missing.
    tokens: the words for A and B, where log-probs are read.
    """

    name: str
    source: str
    version: str
    licence: str
    user: str
    system: Mapping[str, str] = field(default_factory=dict)
    finish: str | None = None
    tokens: tuple[str, str] | None = None

    @property
    def hash(self) -> str:
        """Of all that is said to a judge."""
        return content_hash([self.user, dict(self.system), self.finish, self.tokens])

    @property
    def about(self) -> dict[str, str]:
        """What settings and tables say of it."""
        names = {"name": self.name, "source": self.source, "version": self.version, "licence": self.licence}
        return names | {"hash": self.hash}

    def messages(self, slots: Mapping[str, str], category: str = "") -> list[Message]:
        """What is sent for a pair or an answer."""

        def filled(text: str) -> str:
            return _SLOT.sub(lambda slot: slots.get(slot[1], ""), text)

        system = self.system.get(category, self.system.get(""))
        first = [Message(role="system", content=filled(system))] if system else []
        return [*first, Message(role="user", content=filled(self.user))]


def read_template(prompt: str, protocol: Protocol, kind: Kind | None = None) -> Template:
    """`own`, a YAML file as ours are, or a checkout of the benchmark. Raises `Refusal`."""
    kind = kind or protocol.kind
    path = Path(prompt).expanduser()
    if prompt == OWN:
        found = _from_yaml(Path(__file__).parent / "prompts" / f"{kind}.yaml")
    elif path.is_dir():
        with refusing(f"prompt must be {OWN}, a YAML file, or a checkout of {protocol.rules}'s repository, got {path}"):
            found = _from_checkout(path, protocol)
    elif path.is_file():
        with refusing(f"prompt must be a YAML file like those of lightning_bnf/judging/prompts, got {path}"):
            found = _from_yaml(path)
    else:
        raise Refusal(f"prompt must be {OWN}, a YAML file, or a checkout of the benchmark's repository, got {prompt!r}")
    slots = set(_SLOT.findall(found.user))
    if not _NEEDED[kind] <= slots <= SLOTS:
        raise Refusal(
            f"prompt must hold the slots {', '.join(sorted(_NEEDED[kind]))} and others of {', '.join(sorted(SLOTS))} "
            f"alone, got {', '.join(sorted(slots)) or 'none'} in {prompt}"
        )
    if kind == "letters" and found.tokens is None:
        raise Refusal(f"prompt must name tokens, the words for A and B, got none in {prompt}")
    return found


def _from_yaml(path: Path) -> Template:
    held = yaml.safe_load(path.read_text(encoding="utf-8"))
    system, tokens = held.get("system"), held.get("tokens")
    named = {name: str(held[name]) for name in ("name", "source", "version", "licence", "user")}
    given = {"": system} if isinstance(system, str) else {str(key): str(text) for key, text in (system or {}).items()}
    letters = (str(tokens[0]), str(tokens[1])) if tokens else None
    return Template(**named, system=given, finish=held.get("finish"), tokens=letters)


def _from_checkout(folder: Path, protocol: Protocol) -> Template:
    makers = {
        "arena_hard_v0.1": _arena_2024,
        "arena_hard_v2": _arena_2025,
        "wildbench": _wildbench,
        "wildbench_pairs": _wildbench,
        "alpaca_eval_2": _alpaca,
    }
    return makers[protocol.name](folder, protocol)


def _arena_2024(folder: Path, protocol: Protocol) -> Template:
    held = yaml.safe_load((folder / "config/judge_config.yaml").read_text(encoding="utf-8"))
    (text,) = held["prompt_template"]
    user = _slots(text, {"{question_1}": "question", "{answer_1}": "answer_a", "{answer_2}": "answer_b"})
    return Template(
        protocol.name, "lmarena/arena-hard-auto", "2024", "Apache-2.0", user, {"": held["system_prompt"]}, _CONTINUE
    )


def _arena_2025(folder: Path, protocol: Protocol) -> Template:
    held = yaml.safe_load((folder / "config/arena-hard-v2.0.yaml").read_text(encoding="utf-8"))
    user = _slots(
        held["prompt_template"], {"{QUESTION}": "question", "{ANSWER_A}": "answer_a", "{ANSWER_B}": "answer_b"}
    )
    system = _constants((folder / "utils/judge_utils.py").read_text(encoding="utf-8"))
    return Template(protocol.name, "lmarena/arena-hard-auto", "2025", "Apache-2.0", user, system)


def _constants(code: str) -> dict[str, str]:
    """The system prompts by category of a Python file that is read and not run."""
    names: dict[str, Any] = {}
    for node in ast.parse(code).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            if isinstance(node.value, ast.Constant):
                names[node.targets[0].id] = node.value.value
            elif node.targets[0].id == "JUDGE_SETTINGS" and isinstance(node.value, ast.Dict):
                return {
                    ast.literal_eval(key): _system(value, names)
                    for key, value in zip(node.value.keys, node.value.values)
                    if key is not None
                }
    raise Refusal("utils/judge_utils.py must hold JUDGE_SETTINGS, got none")


def _system(settings: ast.expr, names: Mapping[str, Any]) -> str:
    assert isinstance(settings, ast.Dict)
    for key, value in zip(settings.keys, settings.values):
        if isinstance(key, ast.Constant) and key.value == "system_prompt":
            return str(names[value.id] if isinstance(value, ast.Name) else ast.literal_eval(value))
    raise Refusal("JUDGE_SETTINGS must hold system_prompt, got none")


def _wildbench(folder: Path, protocol: Protocol) -> Template:
    form = "score" if protocol.kind == "score" else "pairwise"
    text = (folder / f"evaluation/eval_template.{form}.v2.md").read_text(encoding="utf-8")
    names = {"history": "history", "user_query": "query", "checklist": "checklist"}
    names |= {"model_output": "answer", "candidate_A": "answer_a", "candidate_B": "answer_b"}
    user = _slots(text, {f"{{${name}}}": slot for name, slot in names.items() if f"{{${name}}}" in text})
    return Template(protocol.name, "allenai/WildBench", "v2", "Apache-2.0", user)


def _alpaca(folder: Path, protocol: Protocol) -> Template:
    (path, *_) = sorted(folder.rglob("alpaca_eval_clf_gpt4_turbo/alpaca_eval_clf.txt"))
    text = path.read_text(encoding="utf-8")
    turns = dict(re.findall(r"<\|im_start\|>(\w+)\n(.*?)<\|im_end\|>", text, re.DOTALL))
    user = _slots(
        turns["user"].strip(), {"{instruction}": "question", "{output_1}": "answer_a", "{output_2}": "answer_b"}
    )
    return Template(
        protocol.name,
        "tatsu-lab/alpaca_eval",
        "2",
        "Apache-2.0",
        user,
        {"": turns["system"].strip()},
        tokens=("m", "M"),
    )


def _slots(text: str, names: Mapping[str, str]) -> str:
    """The benchmark's placeholders as ours; each must be there."""
    for old, slot in names.items():
        if old not in text:
            raise Refusal(f"the checkout's prompt must hold {old}, got one without")
        text = text.replace(old, f"{{{{{slot}}}}}")
    return text
