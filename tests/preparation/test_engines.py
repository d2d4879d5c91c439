"""Samples of servers: by token ids or messages, over several servers, resumed without a request twice."""

from collections import Counter, defaultdict
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from threading import Barrier, Lock, Thread
from typing import Any

import pytest
from support.endpoint import Endpoint
from support.rows import user

from lightning_bnf.datamodules.tokens.renderer import Renderer
from lightning_bnf.generation import requests
from lightning_bnf.generation.sampling import Sampling, prompt_seed
from lightning_bnf.generation.server import Server, ServerError, client
from lightning_bnf.preparation.engines import Engine, Sampled, draw
from lightning_bnf.preparation.sample import sampling_key
from lightning_bnf.runtime.fingerprints import content_hash, tokenizer_fingerprints
from lightning_bnf.runtime.jsonl import JsonlStore
from lightning_bnf.runtime.refusal import Refusal

PROMPTS = [(user(text),) for text in ("Say a.", "Say b.", "Say c.", "Say d.")]
_ENGINE = ("top_p", "seeds", "cut_off", "more_urls")
MODEL = Sampled("bundled", None, "float32")


@pytest.fixture
def endpoints(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Endpoint]]:
    monkeypatch.setattr(requests, "PAUSE", 0.01)
    client.cache_clear()
    made = [Endpoint(), Endpoint()]
    for one in made:
        Thread(target=one.serve_forever, daemon=True).start()
    yield made
    for one in made:
        one.shutdown()
        one.server_close()


def sampled(tokenizer: Any, endpoint: Endpoint, tmp_path: Path, **given: Any) -> list[list[Any]]:
    engine = {name: given.pop(name) for name in _ENGINE if name in given}
    server = Server(endpoint.url, "big", **({"at_once": 1, "tries": 1} | given))
    sampling = Sampling(0.8, 16, samples=3, seed=5)
    return draw(Engine(server, **engine), MODEL, Renderer(tokenizer), PROMPTS, sampling, tmp_path / "work.jsonl")


def asked(endpoint: Endpoint) -> Counter[str]:
    """How often each prompt was asked for, without the one token that is asked for first."""
    bodies = [body for _, body, _ in endpoint.seen if body["max_tokens"] > 1]
    return Counter(str(body.get("prompt", body.get("messages"))) + str(body.get("seed")) for body in bodies)


def test_token_ids_are_sent_and_all_samples_of_a_prompt_come_in_one_reply(
    tokenizer: Any, endpoints: list[Endpoint], tmp_path: Path
) -> None:
    found = sampled(tokenizer, endpoints[0], tmp_path, top_p=0.9)
    ids = [Renderer(tokenizer).prompt_ids(prompt) for prompt in PROMPTS]
    assert [[one.text for one in row] for row in found] == [
        [f"{len(one)} {prompt_seed(5, one) + k}" for k in range(3)] for one in ids
    ]
    assert [one.finished for one in found[0]] == [True, False, True]
    path, body, _ = endpoints[0].seen[1]
    assert path == "/v1/completions"
    assert body["prompt"] == ids[0]
    expected = {"n": 3, "temperature": 0.8, "top_p": 0.9, "max_tokens": 16, "seed": prompt_seed(5, ids[0])}
    expected |= {
        "top_k": -1,
        "min_p": 0.0,
        "repetition_penalty": 1.0,
        "repeat_penalty": 1.0,
    }  # a server's own are not taken
    assert {name: body[name] for name in expected} == expected
    assert len(endpoints[0].seen) == 5
    assert sampled(tokenizer, endpoints[0], tmp_path, top_p=0.9) == found
    assert len(endpoints[0].seen) == 5, "nothing is asked for again"


def test_every_seed_draws_its_own_and_cut_off_ones_are_kept_where_asked_for(
    tokenizer: Any, endpoints: list[Endpoint], tmp_path: Path
) -> None:
    found = sampled(tokenizer, endpoints[0], tmp_path, seeds=(13, 14), cut_off="keep")
    seeds = [int(one.text.split()[1]) for one in found[0]]
    ids = Renderer(tokenizer).prompt_ids(PROMPTS[0])
    assert seeds == [prompt_seed(seed, ids) + k for seed in (13, 14) for k in range(3)]
    assert all(one.finished for one in found[0])
    with pytest.raises(Refusal, match="seeds must be different ones, got 1, 1"):
        Engine(seeds=(1, 1))


def test_a_server_that_takes_no_ids_gets_messages_one_sample_each(
    tokenizer: Any, endpoints: list[Endpoint], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    endpoints[0].takes_ids = False
    endpoints[0].prompt_tokens = len(Renderer(tokenizer).prompt_ids(PROMPTS[0]))
    found = sampled(tokenizer, endpoints[0], tmp_path)
    assert [one.text for one in found[0]] == ["SAY A."] * 3
    seeds = [(body["messages"], body["seed"]) for _, body, _ in endpoints[0].seen if "messages" in body]
    expected = [
        (list(one), prompt_seed(5, Renderer(tokenizer).prompt_ids(one)) + k) for one in PROMPTS for k in range(3)
    ]
    assert seeds == expected
    sent = {name for _, body, _ in endpoints[0].seen if "messages" in body for name in body}
    assert sent == {"model", "messages", "temperature", "top_p", "max_tokens", "seed"}, "OpenAI's names alone"
    assert "prompts are sent as messages" in capsys.readouterr().err
    endpoints[0].prompt_tokens += 1
    with pytest.raises(ServerError, match="training's chat template"):
        sampled(tokenizer, endpoints[0], tmp_path, seeds=(7,))


@pytest.mark.parametrize("takes_ids", [True, False])
def test_samples_of_a_seed_for_all_prompts_are_not_taken_for_those_of_a_seed_each(
    tokenizer: Any, endpoints: list[Endpoint], tmp_path: Path, takes_ids: bool
) -> None:
    """A work file whose lines are keyed without the prompt's seed, by ids or messages: all is asked for."""
    about = [["big", "bundled", None, tokenizer_fingerprints(tokenizer)], sampling_key(Sampling(0.8, 16, 3, 5))]
    store = JsonlStore(tmp_path / "work.jsonl")
    for prompt in PROMPTS:
        ids = Renderer(tokenizer).prompt_ids(prompt)
        for tail in [{"first seed": 5 * 1_000_003}] if takes_ids else range(3):
            line = {"text": "earlier", "length": 1, "finished": True}
            store.add({content_hash([*about, ids, tail]): {"job": "samples", "completions": [line] * 3}})
    endpoints[0].takes_ids, endpoints[0].prompt_tokens = takes_ids, len(Renderer(tokenizer).prompt_ids(PROMPTS[0]))
    found = sampled(tokenizer, endpoints[0], tmp_path)
    assert "earlier" not in {one.text for row in found for one in row}
    assert asked(endpoints[0]).total() == (4 if takes_ids else 12)


@pytest.mark.parametrize("takes_ids", [True, False])
def test_a_prompt_has_its_seeds_in_any_order_with_any_concurrency_and_after_a_stop(
    tokenizer: Any, endpoints: list[Endpoint], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, takes_ids: bool
) -> None:
    """Each prompt's seeds are its own: four prompts share none, whoever is asked first and how many at once."""

    def seeds(folder: str, prompts: list[Any], at_once: int, endpoint: Endpoint) -> dict[str, set[int]]:
        endpoint.takes_ids, endpoint.prompt_tokens = takes_ids, len(Renderer(tokenizer).prompt_ids(PROMPTS[0]))
        endpoint.seen.clear()
        monkeypatch.setattr(f"{__name__}.PROMPTS", prompts)
        sampled(tokenizer, endpoint, tmp_path / folder, at_once=at_once)
        found = defaultdict(set)
        for _, body, _ in endpoint.seen:
            if body["max_tokens"] > 1:
                found[str(body.get("prompt", body.get("messages")))].add(body["seed"])
        return found

    prompts = list(PROMPTS)
    whole = seeds("one", prompts, 1, endpoints[0])
    assert len(set.union(*whole.values())) == 4 * (1 if takes_ids else 3)
    assert seeds("many", prompts[::-1], 4, endpoints[1]) == whole
    store = (tmp_path / "one/work.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "one/work.jsonl").write_text("".join(store[1 if takes_ids else 3 :]))
    missing = seeds("one", prompts, 2, endpoints[0])
    assert [whole[prompt] for prompt in missing] == list(missing.values())
    assert len(missing) == 1


def test_a_stopped_run_goes_on_without_a_request_twice(
    tokenizer: Any, endpoints: list[Endpoint], tmp_path: Path
) -> None:
    whole = sampled(tokenizer, endpoints[1], tmp_path / "whole")
    first = sampled(tokenizer, endpoints[0], tmp_path / "first", seeds=(5,))
    assert first == whole
    store = (tmp_path / "first/work.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "first/work.jsonl").write_text("".join(store[:2]) + store[2][:20])  # as after a kill in a write
    endpoints[0].seen.clear()
    assert sampled(tokenizer, endpoints[0], tmp_path / "first") == whole
    assert asked(endpoints[0]).total() == 2


def test_as_many_requests_are_under_way_as_said(tokenizer: Any, endpoints: list[Endpoint], tmp_path: Path) -> None:
    """Eight of 16; each waits until eight are there, so fewer would wait for ever."""
    together, lock, under_way = Barrier(8, timeout=300), Lock(), [0, 0]

    def reply(body: dict[str, Any]) -> tuple[int, object]:
        if body["max_tokens"] > 1:
            with lock:
                under_way[0] += 1
                under_way[1] = max(under_way)
            together.wait()
            with lock:
                under_way[0] -= 1
        choices = [{"text": "a", "finish_reason": "stop"}] * body["n"]
        return 200, {"choices": choices, "usage": {"prompt_tokens": len(body["prompt"])}}

    endpoints[0].script = reply
    sampling = Sampling(0.8, 16, samples=2)
    prompts = [(user(f"Say {i}."),) for i in range(16)]
    engine = Engine(Server(endpoints[0].url, "big", at_once=8, tries=1))
    assert len(draw(engine, MODEL, Renderer(tokenizer), prompts, sampling, tmp_path / "work.jsonl")) == 16
    assert under_way == [0, 8]


def test_servers_share_the_requests_and_one_that_dies_and_returns_is_waited_for(
    tokenizer: Any, endpoints: list[Endpoint], tmp_path: Path
) -> None:
    """The first server answers the first token and one request, then it is away for three; alone and beside another."""
    whole = sampled(tokenizer, endpoints[1], tmp_path / "whole")
    for name, more in (("alone", ()), ("shared", (endpoints[1].url,))):
        requests_made = count()

        def reply(body: dict[str, Any], made: Iterator[int] = requests_made) -> tuple[int, object]:
            if 2 <= next(made) < 5:
                return 503, {}
            length, seed = len(body["prompt"]), body.get("seed", 0)
            choices = [
                {"text": f"{length} {seed + k}", "finish_reason": "length" if k == 1 else "stop"}
                for k in range(body["n"])
            ]
            return 200, {"choices": choices, "usage": {"prompt_tokens": length}}

        endpoints[0].script = reply
        found = sampled(tokenizer, endpoints[0], tmp_path / name, more_urls=more)
        assert [[one.text for one in row] for row in found] == [[one.text for one in row] for row in whole]
    assert len(asked(endpoints[0])) == 4


def test_a_server_that_never_answered_is_not_waited_for(tokenizer: Any, tmp_path: Path) -> None:
    nobody = Endpoint()
    nobody.server_close()
    client.cache_clear()
    with pytest.raises(ServerError, match="must answer with completions"):
        sampled(tokenizer, nobody, tmp_path)
