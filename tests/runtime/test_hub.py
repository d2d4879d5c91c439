"""A hub that cannot be reached is told in a sentence; a closed port of this machine stands for it."""

import socket
import sys
from collections.abc import Iterator

import pytest
from huggingface_hub import constants

from lightning_bnf.datamodules.reading.errors import DataError
from lightning_bnf.datamodules.reading.files import read_raw
from lightning_bnf.policies.adapters import adapter_folder
from lightning_bnf.policies.base import PolicyError
from lightning_bnf.policies.sources import SourceError, load_end_ids, load_model, load_tokenizer
from lightning_bnf.runtime import hub
from lightning_bnf.runtime.hub import unreachable, why_not_asked


@pytest.fixture
def closed(monkeypatch: pytest.MonkeyPatch) -> str:
    """The hub's address is a port that nobody listens at."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{taken.getsockname()[1]}"
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    return address


@pytest.fixture
def silent() -> Iterator[str]:
    """An address that takes connections and never answers."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


@pytest.mark.parametrize("load", [load_tokenizer, load_model, load_end_ids])
def test_a_model_is_refused_with_what_else_it_can_be(closed: str, load: object) -> None:
    with pytest.raises(SourceError, match=rf"must be a local folder or a GGUF file, as {closed} cannot be reached .*"):
        load("owner/name")  # type: ignore[operator]


def test_data_and_adapters_are_too(closed: str) -> None:
    with pytest.raises(
        DataError,
        match=r"owner/data: there is no such file or folder, and no hub to ask .* cannot be reached .*; it must be",
    ):
        read_raw("owner/data")
    with pytest.raises(
        PolicyError, match=r"adapter must be a local folder, as .* cannot be reached .* got the hub id 'owner/adapter'"
    ):
        adapter_folder("owner/adapter")


def test_an_address_that_never_answers_is_given_up(silent: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "SECONDS", 60.0)
    monkeypatch.setattr(hub, "SECONDS_IN_ALL", 0.05)
    assert unreachable(silent) == "no answer within 0.05 seconds"


def test_what_is_cached_is_taken_and_that_is_said_once(
    closed: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    assert [why_not_asked("owner/name", cached=True) for _ in range(2)] == [None, None]
    assert constants.is_offline_mode()
    assert sys.modules["datasets"].config.HF_HUB_OFFLINE
    assert capsys.readouterr().err.count(f"{closed} cannot be reached") == 1


def test_offline_by_ones_own_will_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(hub, "unreachable", lambda endpoint: pytest.fail("it asks"))
    assert why_not_asked("a/b", cached=True) is None
    assert why_not_asked("a/b", cached=False) == "HF_HUB_OFFLINE is set"
