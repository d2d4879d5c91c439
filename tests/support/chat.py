"""Runs to talk to: exported policies with the config.yaml of their run."""

from pathlib import Path
from typing import Any

import yaml

from lightning_bnf.policies import Policy
from support.policies import moved, save


def run_of(policy: Policy, folder: Path, rendering: dict[str, Any] | None = None, **arguments: Any) -> Path:
    """A run folder whose policy is far from its start; `arguments` are further ones of the policy in config.yaml."""
    policy.load()
    save(moved(policy), folder / "policy")
    given = {"source": policy.source, "dtype": "float32"} | arguments
    kind = f"lightning_bnf.policies.{type(policy).__name__}"
    config = {"model": {"policy": {"class_path": kind, "init_args": given}}}
    data = {"options": {"rendering": rendering}} if rendering else {}
    (folder / "config.yaml").write_text(yaml.safe_dump(config | {"data": data}))
    return folder
