"""What is kept of a config: all of it, flat for loggers, without secrets."""

from typing import Any

import pytest
from jsonargparse import Namespace

from lightning_bnf.cli.saved_config import flattened, masked


@pytest.mark.parametrize(
    ("key", "value", "kept"),
    [
        ("api_key", "abc", "***"),
        ("hf_token", "abc", "***"),
        ("password", "abc", "***"),
        ("client_secret", "abc", "***"),
        ("token", None, None),
        ("key", "", ""),
        ("max_tokens", 4096, 4096),
        ("max_tokens", "auto", "auto"),
        ("tokenizer", "./folder", "./folder"),
        ("api_key_variable", "SERVER_KEY", "SERVER_KEY"),
        ("keyboard", "abc", "abc"),
        ("url", "https://user:word@host:80/v1", "https://***@host:80/v1"),
        ("url", "https://host/v1?mail=a@b", "https://host/v1?mail=a@b"),
    ],
)
def test_secrets_are_masked_and_nothing_else(key: str, value: Any, kept: Any) -> None:
    config = Namespace()
    config[f"model.{key}"] = value
    assert masked(config)[f"model.{key}"] == kept
    assert config[f"model.{key}"] == value, "what is run is not changed"


def test_secrets_are_masked_at_any_depth() -> None:
    logger = Namespace(class_path="wandb", init_args=Namespace(api_key="abc", name="n"))
    config = Namespace(trainer=Namespace(logger=[logger]), headers={"Authorization": "Bearer x", "other": ["y"]})
    config.secret = {"a": ["b", 3]}
    kept = masked(config)
    assert kept.trainer.logger[0] == Namespace(class_path="wandb", init_args=Namespace(api_key="***", name="n"))
    assert kept.headers == {"Authorization": "***", "other": ["y"]}
    assert kept.secret == {"a": ["***", 3]}
    assert logger.init_args.api_key == "abc"


def test_settings_are_flattened_to_the_keys_that_are_typed() -> None:
    nested = {
        "model": {"loss": {"class_path": "BNF"}},
        "betas": [0.9, 0.99],
        "callbacks": [{"class_path": "A"}],
        "x": None,
    }
    assert flattened(nested) == {
        "model.loss.class_path": "BNF",
        "betas": [0.9, 0.99],
        "callbacks.0.class_path": "A",
        "x": None,
    }
