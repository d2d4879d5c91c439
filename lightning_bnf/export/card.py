"""The model card: how an exported model was made, as the README.md of its folder."""

import dataclasses
import hashlib
import os
import platform
import re
from collections.abc import Mapping, Sequence
from html import escape
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import yaml

import lightning_bnf
from lightning_bnf.datamodules.preference import PreferenceData
from lightning_bnf.datamodules.tokens.renderer import TokenizedRow
from lightning_bnf.module import PreferenceModule
from lightning_bnf.policies.base import Policy
from lightning_bnf.policies.sources import licence, loadable
from lightning_bnf.runtime.escapes import in_one_line
from lightning_bnf.runtime.fingerprints import content_key

VLLM_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
_LIBRARIES = ("torch", "transformers", "peft", "lightning", "bitsandbytes")
_SECRET_NAMES = ("TOKEN", "API_KEY", "SECRET", "PASSWORD")  # of environment variables
_TOKENS = re.compile(r"\b(hf_[A-Za-z0-9]{16,}|sk-[A-Za-z0-9_-]{16,})\b|(?<=://)[^/\s@]+(?=@)")  # and user:password@
_SHORTEST_SECRET = 8  # characters; shorter values of such variables are words that may stand in any text


@dataclasses.dataclass(frozen=True)
class Trained:
    """What the card says of the training itself.

    steps: of the optimizer; data: fingerprint of the training rows, None where they are not at hand; metrics: the last
    ones by name
    """

    steps: int
    data: str | None
    precision: str
    metrics: Mapping[str, float]
    merged: str | None = None
    """Type of the weights that the adapter was merged into, and what that changed; None where it was not merged."""
    rounded: str | None = None
    """What full weights were rounded to, and what that left; None where they are as they were trained."""


def model_card(module: PreferenceModule, data: PreferenceData, trained: Trained) -> str:
    """The README.md of an exported folder. What looks like a token or a password is never in it."""
    policy, loss = module.policy, type(module.loss).__name__
    adapter = policy.adapters and trained.merged is None
    known = licence(policy.source, policy.revision)
    front = {
        "base_model": policy.source,
        "library_name": "peft" if adapter else "transformers",
        "license": known,
        "tags": ["lightning_bnf", "preference-alignment", loss.lower()],
    }
    load = "PeftModel.from_pretrained(base, folder)" if adapter else "AutoModelForCausalLM.from_pretrained(folder)"
    parts = [
        f"---\n{yaml.safe_dump({k: v for k, v in front.items() if v}, sort_keys=False)}---\n",
        f"# {policy.source}, aligned with {loss}\n",
        f"Load with: `{load}`.\n",
        f"Serve with: `{_serve(policy) if adapter else 'vllm serve FOLDER'}`, where FOLDER is this one.\n"
        + (f"\nMerged: {trained.merged}.\n" if trained.merged else "")
        + (f"\nWeights: {trained.rounded}.\n" if trained.rounded else ""),
        f"Licence of the base: {known or 'not known here; see its own card'}. It holds for this model too.\n",
        "## Loss\n",
        _listed({"loss": str(module.loss), "reference": module.reference_kind}),
        "## Data\n",
        _listed(_about(data, trained.data)),
        "## Training\n",
        _listed(policy.description() | dataclasses.asdict(module.optimization) | _run(trained)),
        "## Last metrics\n",
        _listed({name: f"{value:.6g}" for name, value in sorted(trained.metrics.items())}) or "None were kept.\n",
        "## Versions\n",
        _listed(_versions()),
    ]
    return without_secrets("\n".join(parts))


def _serve(policy: Policy) -> str:
    """vLLM's command for an adapter beside its base; it takes ranks of these sizes, and none above the largest."""
    rank = policy.description()["r"]
    most = next((size for size in VLLM_RANKS if size >= rank), VLLM_RANKS[-1])
    base = loadable(policy.source)
    return f"vllm serve {base} --enable-lora --max-lora-rank {most} --lora-modules aligned=FOLDER"


def data_fingerprint(rows: Sequence[TokenizedRow]) -> str:
    """16 hex digits over the token ids, masks and labels of all completions, in any order of the rows."""
    keys = (
        content_key(row.prompt_ids, one.ids, one.completion_mask) + bytes([one.label % 3])
        for row in rows
        for one in row.completions
    )
    return hashlib.sha256(b"".join(sorted(keys))).hexdigest()[:16]


def without_secrets(text: str) -> str:
    """The text with tokens, passwords in addresses, and the values of secret environment variables replaced by ***."""
    for name, value in os.environ.items():
        if any(word in name.upper() for word in _SECRET_NAMES) and len(value) >= _SHORTEST_SECRET:
            text = text.replace(value, "***")
    return _TOKENS.sub("***", text)


def _about(data: PreferenceData, fingerprint: str | None) -> dict[str, Any]:
    rows: dict[str, Any] = {"examples_per_step": data.step_size}
    if fingerprint is not None:
        rows = {
            "rows": len(data.split("train")),
            "validation rows": len(data.split("validation")),
            "fingerprint": fingerprint,
            "examples_per_step": data.examples_per_step,
        }
    return {"files": ", ".join(data.paths["train"])} | rows | {"seed": data.seed} | data.options.of_rows()


def _run(trained: Trained) -> dict[str, Any]:
    return {"optimizer steps": trained.steps, "precision": trained.precision}


def _versions() -> dict[str, str]:
    found = {"lightning_bnf": lightning_bnf.__version__, "python": platform.python_version()}
    for name in _LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # bitsandbytes is optional
            continue
    return found


def _listed(values: Mapping[str, Any]) -> str:
    kept = {name: escape(in_one_line(str(value)), quote=False) for name, value in values.items() if value is not None}
    return "".join(f"- {name}: {value}\n" for name, value in kept.items())
