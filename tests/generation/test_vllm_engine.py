"""vLLM in this process, by a stand-in with the real one's names: the same greedy answers as transformers', adapters not
merged, seeds as stated, work that is not done again, and refusals."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from peft import LoraConfig, get_peft_model
from safetensors import safe_open
from support.answers import generate, lines
from support.fake_vllm import API, LLM, install
from support.models import tiny_llama_model
from support.rows import user

from lightning_bnf.datamodules.tokens.renderer import Renderer
from lightning_bnf.generation.answers import write_answers
from lightning_bnf.generation.sampling import Generated, Sampling, prompt_seed
from lightning_bnf.generation.server import Server
from lightning_bnf.generation.vllm_engine import Vllm, VllmError, VllmModel, positions, serving
from lightning_bnf.policies.exported import exported
from lightning_bnf.policies.sources import load_config
from lightning_bnf.preparation.engines import Engine, Sampled, draw
from lightning_bnf.preparation.prepare import prepare
from lightning_bnf.runtime.fingerprints import config_fingerprint, content_hash, fingerprint_part
from lightning_bnf.runtime.refusal import Refusal

PROMPTS = [(user(text),) for text in ("Say a.", "Say b, and then c.", "d?", "Why?")]
GREEDY = Sampling(0.0, 3, batch_size=2)


@pytest.fixture
def engines(monkeypatch: pytest.MonkeyPatch) -> list[LLM]:
    return install(monkeypatch)


@pytest.fixture
def ending(tmp_path: Path, tiny_folder: str) -> str:
    """The tiny model whose generation config names other ends than the tokenizer's: every 16th token."""
    shutil.copytree(tiny_folder, tmp_path / "ending")
    held = {"eos_token_id": list(range(3, 49152, 16)), "repetition_penalty": 5.0}
    (tmp_path / "ending/generation_config.json").write_text(json.dumps(held))
    return str(tmp_path / "ending")


@pytest.fixture
def adapter(tmp_path: Path, tiny_folder: str, tokenizer: Any) -> str:
    """An adapter of rank 12 that changes the tiny model a lot."""
    config = LoraConfig(r=12, target_modules=["q_proj", "down_proj"], init_lora_weights=False)
    model = get_peft_model(tiny_llama_model(len(tokenizer)), config)
    model.peft_config["default"].base_model_name_or_path = tiny_folder
    model.save_pretrained(tmp_path / "adapter")
    return str(tmp_path / "adapter")


def drawn(source: str, work: Path, engine: Engine, sampling: Sampling = GREEDY, prompts: Any = PROMPTS) -> Any:
    model = Sampled(source, None, "float32")
    return draw(engine, model, Renderer(model.tokenizer()), prompts, sampling, work)


@pytest.mark.parametrize("which", ["ending", "adapter"])
def test_greedy_answers_are_those_of_transformers(
    engines: list[LLM], which: str, request: pytest.FixtureRequest, tmp_path: Path, tiny_folder: str
) -> None:
    source = request.getfixturevalue(which)
    found = drawn(source, tmp_path / "vllm.jsonl", Engine(vllm=Vllm()))
    assert found == drawn(source, tmp_path / "transformers.jsonl", Engine())
    if which == "ending":
        assert {one.finished for (one,) in found} == {True, False}, [one.length for (one,) in found]
        assert engines[0].model == source
    else:
        assert found != drawn(tiny_folder, tmp_path / "base.jsonl", Engine())
        assert engines[0].model == tiny_folder, "the base, on which the adapter is served"
        assert engines[0].settings["max_lora_rank"] == 16, "the smallest room for a rank of 12"
    assert [one.down for one in engines] == [True], "let go before the answers are scored"


def test_what_the_engine_is_started_with(engines: list[LLM], tiny_folder: str, tmp_path: Path, tokenizer: Any) -> None:
    drawn(tiny_folder, tmp_path / "work.jsonl", Engine(vllm=Vllm(2, 0.5, True)))
    longest = max(len(Renderer(tokenizer).prompt_ids(prompt)) for prompt in PROMPTS)
    assert engines[0].settings == {
        "revision": None,
        "dtype": "float32",
        "trust_remote_code": False,
        "load_format": "safetensors",
        "max_model_len": longest + 3,
        "generation_config": "vllm",
        "tensor_parallel_size": 2,
        "gpu_memory_utilization": 0.5,
        "enforce_eager": True,
    }


@pytest.mark.slow
def test_neighbouring_seeds_draw_others_whatever_is_sampled_beside(
    engines: list[LLM], tiny_folder: str, tmp_path: Path
) -> None:
    """Three samples of seeds 1 and 2 are six different ones; a prompt alone gets the same six."""
    engine, sampling = Engine(vllm=Vllm(), seeds=(1, 2), top_p=0.9), Sampling(1.0, 6, samples=3, batch_size=6)
    found = drawn(tiny_folder, tmp_path / "all.jsonl", engine, sampling)
    assert [len({one.text for one in row}) for row in found] == [6] * 4
    assert drawn(tiny_folder, tmp_path / "alone.jsonl", engine, sampling, PROMPTS[3:]) == found[3:]
    narrow = drawn(tiny_folder, tmp_path / "narrow.jsonl", Engine(vllm=Vllm(), top_p=1e-9), sampling)
    assert [len({one.text for one in row}) for row in narrow] == [1] * 4, "of the likeliest token alone"


def test_like_prompts_do_not_meet_the_same_noise(engines: list[LLM], tiny_folder: str) -> None:
    """One token of twelve prompts that differ in one token, whose distributions are nearly the same: the tokens are
    not. Each prompt has a seed of its own, which depends on no other prompt and on no order."""
    prompts, sampling = [[1, 5, 6, 7 + i] for i in range(12)], Sampling(1.0, 1, samples=2, seed=3)
    with serving(Vllm(), exported(tiny_folder), 8) as model:
        together = model.complete(prompts, sampling)
        backwards = [model.complete([prompt], sampling)[0] for prompt in reversed(prompts)]
    assert backwards[::-1] == together
    for k in range(2):
        assert len({row[k].text for row in together}) > 9
    assert engines[0].seeds == {tuple(prompt): {prompt_seed(3, prompt)} for prompt in prompts}


@pytest.mark.slow
def test_a_stopped_run_goes_on_and_a_finished_one_starts_nothing(
    engines: list[LLM], tiny_folder: str, tmp_path: Path
) -> None:
    """Two batches of two prompts: of the second a half-written line is left."""
    work, engine, sampling = tmp_path / "work.jsonl", Engine(vllm=Vllm()), Sampling(1.0, 6, samples=2, batch_size=4)
    found = drawn(tiny_folder, work, engine, sampling)
    assert [one.asked for one in engines] == [4]
    first, second = work.read_text().splitlines(keepends=True)
    work.write_text(first + second[:20])
    assert drawn(tiny_folder, work, engine, sampling) == found
    assert [one.asked for one in engines] == [4, 2]
    assert drawn(tiny_folder, work, engine, sampling) == found
    assert len(engines) == 2
    assert drawn(tiny_folder, work, Engine(), sampling) != found, "transformers draws its own"


def test_models_are_told_apart_by_weights_adapter_config_and_type(
    engines: list[LLM], tmp_path: Path, tiny_folder: str, adapter: str, tokenizer: Any
) -> None:
    copied, other, turned = (str(tmp_path / name) for name in ("copied", "other", "turned"))
    for folder in (copied, turned):
        shutil.copytree(tiny_folder, folder)
    model = tiny_llama_model(len(tokenizer))
    with torch.no_grad():
        model.model.norm.weight.add_(1)
    model.save_pretrained(other)
    held = json.loads((Path(turned) / "config.json").read_text())
    rope = {"rope_parameters": {"rope_type": "default", "rope_theta": 3.0}}
    (Path(turned) / "config.json").write_text(json.dumps(held | rope))
    named = [VllmModel(Vllm(), exported(one), 9).identity for one in (tiny_folder, copied, other, turned, adapter)]
    named.append(VllmModel(Vllm(), exported(tiny_folder, "bfloat16"), 9).identity)
    assert named[0] == named[1]
    with safe_open(Path(tiny_folder) / "model.safetensors", "pt") as file:
        parts = [fingerprint_part(name, file.get_tensor(name)) for name in sorted(file.keys())]
    config = config_fingerprint(load_config(tiny_folder))
    assert named[0] != content_hash(["vllm", parts, None, config, "torch.float32"]), "of samples of a seed for all"
    assert named[0] == content_hash(["vllm", "prompt_seed", parts, None, config, "torch.float32"])
    assert len(set(named)) == 5


LONG = [
    ("qwen2", 32768, {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}, 131072),
    ("llama", 131072, {"rope_type": "yarn", "factor": 32.0, "original_max_position_embeddings": 4096}, 131072),
    ("llama", 2048, {"type": "linear", "factor": 4.0}, 8192),
    ("llama", 2048, {"rope_type": "dynamic", "factor": 2.0}, 4096),
    ("llama", 2048, {"rope_type": "default"}, 2048),
    ("llama", 2048, None, 2048),
    (
        *("llama", 131072),
        {
            **{"rope_type": "llama3", "factor": 8.0, "original_max_position_embeddings": 8192},
            **{"low_freq_factor": 1.0, "high_freq_factor": 4.0},
        },
        131072,
    ),
    (
        *("phi3", 131072),
        {"type": "longrope", "short_factor": [1.0] * 48, "long_factor": [4.0] * 48},
        131072,
    ),
    ("gemma3_text", 131072, {"rope_type": "linear", "factor": 8.0}, 131072),
    ("gpt2", None, None, 1024),
]


@pytest.mark.parametrize("form", ["rope_scaling", "rope_parameters"])
@pytest.mark.parametrize(("kind", "stated", "scaling", "expected"), LONG)
def test_rows_may_be_as_long_as_scaled_positions_reach(
    tmp_path: Path, form: str, kind: str, stated: int | None, scaling: Any, expected: int
) -> None:
    """By the arithmetic of each kind: 4 times 32,768 of Qwen2.5's YaRN, 32 times 4,096 where the scaled length is
    stated; a model without RoPE has the positions that it learned."""
    held: dict[str, Any] = {"model_type": kind}
    if stated is not None:
        held["max_position_embeddings"] = stated
    if kind == "phi3":
        held["original_max_position_embeddings"] = 4096
    if scaling is not None:
        held[form] = dict(scaling)
    (tmp_path / "config.json").write_text(json.dumps(held))
    assert positions(load_config(str(tmp_path))) == expected


def test_a_model_with_yarn_is_started_with_room_beyond_the_unscaled_length(
    engines: list[LLM], tmp_path: Path, tiny_folder: str
) -> None:
    shutil.copytree(tiny_folder, tmp_path / "yarn")
    held = json.loads((tmp_path / "yarn/config.json").read_text())
    rope = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 8, "rope_theta": 1e4}
    held |= {"max_position_embeddings": 8, "rope_parameters": rope}
    (tmp_path / "yarn/config.json").write_text(json.dumps(held))
    with serving(Vllm(), exported(str(tmp_path / "yarn")), 14) as model:
        ((found,),) = model.complete([[1, 5, 6, 7, 8, 9, 10, 11, 12, 13]], Sampling(0.0, 4))
    assert engines[0].settings["max_model_len"] == 14
    assert found.finished or found.length == 4


def test_it_is_let_go_and_leaves_the_random_state_when_it_fails(engines: list[LLM], tiny_folder: str) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    with (
        pytest.raises(VllmError, match="maximum model length: 4"),
        serving(Vllm(), exported(tiny_folder), 4) as model,
    ):
        model.complete([[5, 6, 7, 8]], GREEDY)
    assert engines[0].down
    assert torch.equal(torch.rand(3), expected)


def test_without_vllm_or_with_a_model_that_it_does_not_serve(
    engines: list[LLM], tiny_folder: str, adapter: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LLM, "fails", "No room for the cache")
    with pytest.raises(VllmError, match=rf"a model that vllm {API['version']} serves, got .*No room for the cache"):
        drawn(tiny_folder, tmp_path / "work.jsonl", Engine(vllm=Vllm()))
    config = Path(adapter) / "adapter_config.json"
    held = json.loads(config.read_text())
    config.write_text(json.dumps(held | {"r": 1024}))
    with pytest.raises(VllmError, match="an adapter of rank 512 at most for vllm, got 1024"):
        drawn(adapter, tmp_path / "work.jsonl", Engine(vllm=Vllm()))
    for name, pattern in (("rank_pattern", {"down_proj": 4}), ("alpha_pattern", {"q_proj": 32})):
        config.write_text(json.dumps(held | {name: pattern}))
        refused = rf"adapter_config\.json: {name} must be empty for vllm.*got {pattern}; export the policy with --merge"
        with pytest.raises(VllmError, match=refused):
            VllmModel(Vllm(), exported(adapter), 4)
    (tmp_path / "empty").mkdir()
    shutil.copy(Path(tiny_folder) / "config.json", tmp_path / "empty")
    with pytest.raises(VllmError, match="source must be a model in safetensors for vllm"):
        VllmModel(Vllm(), exported(str(tmp_path / "empty")), 4)
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(VllmError, match=r"vllm must be installed \(pip install 'lightning_bnf\[vllm\]'\)"):
        drawn(tiny_folder, tmp_path / "work.jsonl", Engine(vllm=Vllm()))


def test_generate_answers_as_with_transformers(
    engines: list[LLM], arena: str, tmp_path: Path, tiny_folder: str
) -> None:
    def answered(*words: str) -> list[Any]:
        return [row["messages"] for row in lines(generate(arena, tmp_path, "--source", tiny_folder, *words))]

    expected = answered()
    assert answered("--vllm.enforce_eager", "true", "--work", str(tmp_path / "other")) == expected
    settings = yaml.safe_load((tmp_path / "out.jsonl.settings.yaml").read_text())
    assert settings["generator"]["engine"] == "vllm"
    assert settings["identity"]["engine"] == f"vllm {API['version']}"
    assert [one.down for one in engines] == [True]
    server = Server("http://a:1/v1", "m")
    with pytest.raises(Refusal, match="vllm must be null with a server, which has the model itself"):
        write_answers(tmp_path / "more.jsonl", arena, "arena_hard", "tiny", server=server, vllm=Vllm())


def test_a_completion_holds_its_end_and_only_that_ends_it(engines: list[LLM], ending: str) -> None:
    """By hand: of the tokens that are likeliest the first that is 3 more than a multiple of 16 ends the turn."""
    prompt = [1, 5, 6, 7]
    with serving(Vllm(), exported(ending), 16) as model:
        ((found,),) = model.complete([prompt], Sampling(0.0, 12))
        tokens = list(prompt)
        while len(tokens) < 16 and (len(tokens) == 4 or tokens[-1] % 16 != 3):
            tokens.append(int(engines[0].network(torch.tensor([tokens])).logits[0, -1].argmax()))
        ended = tokens[-1] % 16 == 3
        text = model.tokenizer.decode(tokens[4:-1] if ended else tokens[4:], skip_special_tokens=True)
        assert found == Generated(text, len(tokens) - 4, ended)


FAMILIES: dict[str, Any] = {
    **{"families": ["plural"], "samples": 2, "batch_size": 4},
    **{"train_prompts": 2, "validation_prompts": 1, "test_prompts": 1},
}


@pytest.mark.slow
def test_families_are_sampled_and_a_dry_run_measures(
    engines: list[LLM], tiny_folder: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Four questions, each sampled twice and once greedily: twelve completions, in one engine."""
    more = {"source": tiny_folder, "work": tmp_path / "work", "engine": Engine(vllm=Vllm())}
    prepare(tmp_path / "out", **FAMILIES, **more, dry_run=True)
    told = capsys.readouterr().out
    assert "| completions" in told
    assert "| sampling" in told
    assert not (tmp_path / "out").exists()
    prepare(tmp_path / "out", **FAMILIES, **more)
    assert (tmp_path / "out/test_prompts.jsonl").read_text().count("\n") == 1
    assert [(one.asked, one.down) for one in engines] == [(8, True)] * 2
    for refused in (Engine(vllm=Vllm(), seeds=(1,)), Engine(top_p=0.5)):
        with pytest.raises(Refusal, match="engine must be left out with families but for vllm, got other settings"):
            prepare(tmp_path / "more", **FAMILIES, **(more | {"engine": refused}))


def test_one_of_server_and_vllm() -> None:
    with pytest.raises(Refusal, match="vllm must be null with a server, which has the model itself"):
        Engine(server=Server("http://a:1/v1", "m"), vllm=Vllm())
