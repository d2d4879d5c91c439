"""What a run began with: equal for full and adapted policies of one base, and for files of one content."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from support.training import train

from lightning_bnf.callbacks import Fingerprints
from lightning_bnf.datamodules.preference import PreferenceData
from lightning_bnf.losses import BNF
from lightning_bnf.module import PreferenceModule
from lightning_bnf.policies import FullPolicy, LoRAPolicy
from lightning_bnf.policies.sources import load_model
from lightning_bnf.runtime.fingerprints import weights_fingerprint

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("make", [FullPolicy, LoRAPolicy])
def test_base_and_files(tmp_path: Path, tiny_folder: str, write_pairs: Callable[..., str], make: Any) -> None:
    path, other = write_pairs(), write_pairs("other.jsonl", rows=7)
    data = PreferenceData([path, other], path, examples_per_step=5)
    train(tmp_path / "run", PreferenceModule(make(tiny_folder), BNF()), data, callbacks=[Fingerprints()], max_steps=1)
    found = json.loads((tmp_path / "run/fingerprints.json").read_text())
    assert found["model"] == weights_fingerprint(load_model(tiny_folder, torch.float32))
    assert found[path] == hashlib.sha256(Path(path).read_bytes()).hexdigest()[:16]
    assert found[other] != found[path]
    assert len(found) == 3
