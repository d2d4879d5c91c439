"""What a model is asked: the question files of AlpacaEval, Arena-Hard and WildBench as they come, or our own prompts.

AlpacaEval     instruction, dataset                                      a JSON list (alpaca_eval.json)
Arena-Hard     uid, prompt, category (since 2025); question_id, turns    JSONL (question.jsonl)
WildBench      session_id, conversation_input, primary_tag               the hub's allenai/WildBench, subset v2
our own        prompt (text or messages), prompt_id if there is one      JSONL, Parquet or hub id
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lightning_bnf.datamodules.reading.errors import DataError, Fault, Faults, reason, shorten
from lightning_bnf.datamodules.reading.files import read_raw
from lightning_bnf.datamodules.reading.messages import Message, Messages, check_messages, check_prompt, check_text
from lightning_bnf.runtime.fingerprints import content_hash

_COLUMNS = frozenset({"instruction", "prompt", "turns", "conversation_input"})


@dataclass(frozen=True)
class Question:
    """A prompt with the id that its file gives it (else the hash of its messages) and the file's other columns."""

    id: str
    messages: Messages
    columns: Mapping[str, Any]


def read_questions(
    path: str, split: str | None = None, subset: str | None = None, revision: str | None = None
) -> list[Question]:
    """All questions of a file or of hub data. Raises `DataError`, also for ids that occur twice."""
    faults, found = Faults(), []
    for record in read_raw(path, split, subset, revision, _COLUMNS):
        try:
            found.append(_question(record.values))
        except Fault as fault:
            faults.add(record.place, fault)
        except Exception as error:  # of values that nobody thought of
            faults.add(record.place, f"must be a row of texts and messages, got {reason(error)}")
    faults.raise_if_any()
    twice = next((name for name, count in Counter(one.id for one in found).items() if count > 1), None)
    if twice is not None:
        raise DataError(f"{path}: must be each id once, got {twice!r} twice")
    return found


def _question(values: Mapping[str, Any]) -> Question:
    if values.get("tools") not in (None, "", [], "[]"):
        raise Fault(
            f"column 'tools' must be empty, since answers are generated without, got {shorten(values['tools'])}"
        )
    if "conversation_input" in values:
        column, prompt, named = "conversation_input", _turns(values["conversation_input"]), "session_id"
    elif "turns" in values:
        column, prompt, named = "turns", _only_turn(values["turns"]), "question_id"
    elif "instruction" in values:
        column, prompt, named = "instruction", values["instruction"], "prompt_id"
    elif "prompt" in values:
        column, prompt, named = "prompt", values["prompt"], "uid" if "uid" in values else "prompt_id"
    else:
        raise Fault(
            "the columns must be instruction (AlpacaEval), uid and prompt, or question_id and turns (Arena-Hard),"
            f" session_id and conversation_input (WildBench), or prompt, got {', '.join(values)}"
        )
    if isinstance(prompt, str):
        messages: Messages = (Message(role="user", content=check_text(column, prompt)),)
    else:
        messages = check_messages(column, prompt)
        check_prompt(column, messages)
    own = values.get("uid", values.get(named))
    return Question(str(own) if own is not None else content_hash(messages), messages, values)


def _turns(conversation: Any) -> Any:
    """WildBench's turns carry more than role and content (language, hashes), and sometimes an empty system turn."""
    if not isinstance(conversation, list):
        return conversation
    return [turn for turn in conversation if not _is_empty_system(turn)]


def _is_empty_system(turn: Any) -> bool:
    return isinstance(turn, dict) and turn.get("role") == "system" and not str(turn.get("content") or "").strip()


def _only_turn(turns: Any) -> Any:
    if not isinstance(turns, list) or len(turns) != 1 or not isinstance(turns[0], dict):
        raise Fault(f"column 'turns' must be a list of one turn, got {shorten(turns)}")
    return turns[0].get("content")
