"""A stand-in for the module `vllm`: it takes what the real one takes, and samples tiny models as that does.

`vllm_api.json` holds the names of arguments and fields of the real one, read from its own signatures; any other name
is a TypeError here. Each completion has a generator of its own, seeded with the request's seed plus its place, whose
noise races over the whole vocabulary at every position, so requests of one seed meet the same noise; it ends after a
stop token, which it holds, at `max_tokens`, or at `max_model_len`. An adapter is on its base, not merged.
"""

import json
import sys
import types
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

API: dict[str, Any] = json.loads(Path(__file__).with_name("vllm_api.json").read_text())


def _known(kind: str, given: dict[str, Any]) -> None:
    unknown = sorted(set(given) - set(API[kind]))
    if unknown:
        raise TypeError(f"{kind} of vllm {API['version']} takes no {', '.join(unknown)}")


class _Named:
    """Any of the real one's fields; what is not given is None."""

    kind = ""

    def __init__(self, *values: Any, **given: Any):
        given |= dict(zip(API[self.kind], values))
        _known(self.kind, given)
        for name in API[self.kind]:
            setattr(self, name, given.get(name))


class SamplingParams(_Named):
    kind = "SamplingParams"


class LoRARequest(_Named):
    kind = "LoRARequest"


class CompletionOutput(_Named):
    kind = "CompletionOutput"


class RequestOutput(_Named):
    kind = "RequestOutput"


class LLM:
    """Every one that was made is in `made`; `fails` is what the next one raises; `seeds` are those of each prompt."""

    made: list["LLM"] = []  # noqa: RUF012 - emptied for each test
    fails: str | None = None

    def __init__(self, model: str, **settings: Any):
        _known("LLM", settings)
        if LLM.fails:
            raise RuntimeError(LLM.fails)
        self.model, self.settings, self.adapter, self.asked, self.down = model, settings, None, 0, False
        self.seeds: dict[tuple[int, ...], set[int | None]] = defaultdict(set)
        self.network: Any = AutoModelForCausalLM.from_pretrained(model, dtype=getattr(torch, settings["dtype"])).eval()
        self.llm_engine = types.SimpleNamespace(engine_core=types.SimpleNamespace(shutdown=self._shut_down))
        torch.manual_seed(0)  # as the real one does in its caller's process
        LLM.made.append(self)

    def generate(
        self, prompts: Sequence[dict[str, Any]], sampling_params: Sequence[SamplingParams], **settings: Any
    ) -> Any:
        _known("LLM.generate", settings)
        request = settings.get("lora_request")
        if request is not None:
            assert self.settings["enable_lora"]
            held = json.loads((Path(request.lora_path) / "adapter_config.json").read_text())
            assert held["r"] <= self.settings["max_lora_rank"]
            self.adapter = self.adapter or PeftModel.from_pretrained(self.network, request.lora_path).eval()
        self.asked += len(prompts)
        replies = []
        for place, (prompt, drawn) in enumerate(zip(prompts, sampling_params, strict=True)):
            self.seeds[tuple(prompt["prompt_token_ids"])].add(drawn.seed)
            ids = prompt["prompt_token_ids"]
            if len(ids) >= self.settings["max_model_len"]:
                raise ValueError(f"The prompt is longer than the maximum model length: {len(ids)}")
            outputs = [self._one(ids, drawn, k) for k in range(drawn.n)]
            replies.append(RequestOutput(request_id=str(place), prompt_token_ids=list(ids), outputs=outputs))
        return replies

    @torch.no_grad()
    def _one(self, ids: list[int], drawn: SamplingParams, place: int) -> CompletionOutput:
        network = self.network if self.adapter is None else self.adapter
        found, reason = list(ids), "length"
        generator = None if drawn.seed is None else torch.Generator().manual_seed(drawn.seed + place)
        while len(found) < min(len(ids) + drawn.max_tokens, self.settings["max_model_len"]):
            logits = network(torch.tensor([found])).logits[0, -1]
            found.append(_next(logits, drawn, generator))
            if found[-1] in drawn.stop_token_ids:
                reason = "stop"
                break
        return CompletionOutput(index=place, text="", token_ids=tuple(found[len(ids) :]), finish_reason=reason)

    def _shut_down(self) -> None:
        self.down = True


def _next(logits: torch.Tensor, drawn: SamplingParams, generator: torch.Generator | None) -> int:
    if drawn.temperature == 0:
        return int(logits.argmax())
    assert drawn.top_k == 0
    probabilities, order = (logits / drawn.temperature).softmax(0).sort(descending=True)
    kept = probabilities.cumsum(0) - probabilities < drawn.top_p
    allowed = torch.zeros_like(probabilities).scatter(0, order, probabilities * kept)
    return int((allowed / torch.empty_like(allowed).exponential_(generator=generator)).argmax())


def install(patch: pytest.MonkeyPatch) -> list[LLM]:
    """Until the test ends, `import vllm` gives this; the list is of all engines that were started."""
    for name in ("VLLM_ENABLE_V1_MULTIPROCESSING", "VLLM_NO_USAGE_STATS", "VLLM_LOGGING_LEVEL"):
        patch.setenv(name, "")  # so that what is set is undone
        patch.delenv(name)
    patch.setattr(LLM, "made", [])
    patch.setattr(LLM, "fails", None)
    parts: dict[str, dict[str, Any]] = {
        "vllm": {"__version__": API["version"], "LLM": LLM, "SamplingParams": SamplingParams},
        "vllm.lora": {},
        "vllm.lora.request": {"LoRARequest": LoRARequest},
        "vllm.distributed": {},
        "vllm.distributed.parallel_state": {"cleanup_dist_env_and_memory": lambda: None},
    }
    for name, held in parts.items():
        module = types.ModuleType(name)
        vars(module).update(held)
        patch.setitem(sys.modules, name, module)
    return LLM.made
