"""Answers of a tiny model and of a small server: formats, ids, kills, refusals, and a key that is in no file."""

import json
import shutil

import pytest
import yaml
from support.answers import generate, lines

from lightning_bnf.datamodules.reading.errors import DataError
from lightning_bnf.datamodules.reading.records import Completion, Row
from lightning_bnf.datamodules.tokens.renderer import Renderer
from lightning_bnf.generation import answers as module
from lightning_bnf.generation.answers import prompt_ids, write_answers
from lightning_bnf.generation.questions import Question, read_questions
from lightning_bnf.generation.sampling import Sampling, generate_with_lengths
from lightning_bnf.generation.server import Server
from lightning_bnf.policies.sources import load_model

pytestmark = pytest.mark.slow


def test_answers_are_the_models_own_on_trainings_prompt_ids(arena, tmp_path, tiny_folder, tokenizer):
    """Against one prompt at a time; the prompt ids are those of a training row with this prompt and some answer."""
    found = lines(generate(arena, tmp_path, "--source", tiny_folder, "--batch_size", "3"))
    model = load_model(tiny_folder)
    for question, row in zip(read_questions(arena), found, strict=True):
        trained = Row("", "", "unpaired", question.messages, (Completion("A different answer.", None, 1),))
        ids = Renderer(tokenizer).row(trained).prompt_ids
        ((alone,),) = generate_with_lengths(model, tokenizer, [ids], Sampling(0.0, 6))
        assert row["uid"] == question.id
        assert row["messages"][-1]["content"]["answer"] == alone.text
        assert row["metadata"]["token_len"] == alone.length
    settings = yaml.safe_load((tmp_path / "out.jsonl.settings.yaml").read_text())
    assert settings["answers"] == 5
    assert settings["identity"]["source"] == tiny_folder
    assert settings["generator"] == {
        "name": "tiny",
        "engine": "transformers",
        "temperature": 0.0,
        "max_new_tokens": 6,
        "seed": 0,
    }


def test_ids_other_than_trainings_are_refused(tokenizer):
    class Other(Renderer):
        def prompt_ids(self, prompt):
            return [*super().prompt_ids(prompt), 5]

    question = Question("q", ({"role": "user", "content": "Hi"},), {})
    expected = Renderer(tokenizer).prompt_ids(question.messages)
    assert prompt_ids([question], Renderer(tokenizer)) == [expected]
    with pytest.raises(DataError, match=r"question q: its prompt's ids must be training's \d+, got \d+ others"):
        prompt_ids([question], Other(tokenizer))


class Stopped(Exception):
    pass


@pytest.mark.parametrize("stop", [1, 2])
def test_a_killed_run_goes_on_to_the_same_samples(arena, tmp_path, tiny_folder, monkeypatch, stop):
    words = ["--source", tiny_folder, "--batch_size", "2", "--temperature", "1.0"]
    whole = [row["messages"] for row in lines(generate(arena, tmp_path, *words, "--work", str(tmp_path / "other")))]
    original, calls = module.generate_with_lengths, []

    def counted(*arguments):
        if len(calls) == stop:
            raise Stopped
        calls.append(len(arguments[2]))
        return original(*arguments)

    monkeypatch.setattr(module, "generate_with_lengths", counted)
    with pytest.raises(Stopped):
        generate(arena, tmp_path, *words, output="cut.jsonl")
    assert not (tmp_path / "cut.jsonl").exists()
    calls.clear()
    monkeypatch.setattr(module, "generate_with_lengths", lambda *arguments: (calls.append(1), original(*arguments))[1])
    found = generate(arena, tmp_path, *words, output="cut.jsonl")
    assert len(calls) == 3 - stop, "of three batches those that were missing"
    assert [row["messages"] for row in lines(found)] == whole
    calls.clear()
    again = found.read_bytes()
    generate(arena, tmp_path, *words, output="cut.jsonl")
    assert not calls
    assert found.read_bytes() == again, "times too are those of the answers"


def test_one_who_answers_not_both_not_none(arena, tmp_path, tiny_folder):
    for who in ({}, {"source": tiny_folder, "server": Server("http://host/v1", "big")}):
        with pytest.raises(ValueError, match=r"source, server: one of them must be given, got (neither|both)"):
            write_answers(tmp_path / "out", arena, "arena_hard", "tiny", **who)


def test_another_config_is_another_model(arena, tmp_path, tiny_folder):
    """The same weights with positions that turn faster: answers of the first are not taken for the second's."""
    other = tmp_path / "other"
    shutil.copytree(tiny_folder, other)
    held = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(
        json.dumps(held | {"rope_parameters": {"rope_type": "default", "rope_theta": 3.0}})
    )
    first = lines(generate(arena, tmp_path, "--source", tiny_folder))
    second = lines(generate(arena, tmp_path, "--source", str(other)))
    texts = [[row["messages"][-1]["content"]["answer"] for row in rows] for rows in (first, second)]
    assert texts[0] != texts[1]
