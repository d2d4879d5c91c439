"""The model card says how a model was made, and never what is secret."""

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from transformers import PreTrainedTokenizerBase

from lightning_bnf.cli.main import main
from lightning_bnf.datamodules.tokens.load import load_rows
from lightning_bnf.export.card import _listed, data_fingerprint, without_secrets

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


@pytest.fixture
def card(
    tmp_path: Path, tiny_folder: str, write_pairs: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., str]:
    """The card that a run of four steps writes, with a secret in the environment."""
    monkeypatch.setenv("HF_TOKEN", "hf_thisIsTheTokenOfSomebody")

    def run(*words: str) -> str:
        given = {
            "model.policy": str(ROOT / "configs/policy/lora.yaml"),
            "model.policy.init_args.source": tiny_folder,
            "model.loss": str(ROOT / "configs/loss/dpo.yaml"),
            "model.optimization.learning_rate": "1e-6",
            "data.train": write_pairs(rows=10),
            "data.examples_per_step": "5",
            "trainer": str(ROOT / "configs/trainer/cpu.yaml"),
            "trainer.max_epochs": "2",
            "trainer.default_root_dir": str(tmp_path / "run"),
        }
        main(["fit", *(part for name, value in given.items() for part in (f"--{name}", value)), *words])
        return (tmp_path / "run" / "policy" / "README.md").read_text()

    return run


def test_a_card_has_all_that_made_the_model(
    card: Callable[..., str], tiny_folder: str, write_pairs: Callable[..., str], tokenizer: PreTrainedTokenizerBase
) -> None:
    text = card()
    front = yaml.safe_load(text.split("---")[1])
    assert front["base_model"] == tiny_folder
    assert front["library_name"] == "peft"
    assert "license" not in front
    fingerprint = data_fingerprint(load_rows(write_pairs(rows=10), tokenizer)[0])
    for line in (
        "- loss: DPO(beta=0.1, label_smoothing=0.0",
        "- reference: adapter_off",
        "- rows: 10",
        f"- fingerprint: {fingerprint}",
        "- policy: LoRAPolicy",
        "- r: 16",
        "- optimizer steps: 4",
        "- learning_rate: 1e-06",
        "- train/loss: 0.69",
        "- peft: ",
        "- lightning_bnf: 0.1.0",
        "Load with: `PeftModel.from_pretrained(base, folder)`",
        f"Serve with: `vllm serve {tiny_folder} --enable-lora --max-lora-rank 16 --lora-modules aligned=FOLDER`",
        "not known here; see its own card",
    ):
        assert line in text, line


def test_no_secret_is_in_a_card(card: Callable[..., str], tmp_path: Path) -> None:
    """Not even one that somebody typed as part of a setting."""
    odd = tmp_path / "hf_thisIsTheTokenOfSomebody.jsonl"
    assert "OfSomebody" not in card()
    (tmp_path / "train.jsonl").rename(odd)
    text = card("--data.train", str(odd), "--trainer.default_root_dir", str(tmp_path / "run"))
    assert "***.jsonl" in text
    assert "OfSomebody" not in text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("key hf_abcdefghijklmnopqrstu end", "key *** end"),
        ("https://ann:secret@example.org/data.jsonl", "https://***@example.org/data.jsonl"),
        ("sk-abcdefghijklmnopqrst", "***"),
        ("of my.value.is.long", "of ***"),
        ("hf_short, owner/name, https://example.org/a", "hf_short, owner/name, https://example.org/a"),
    ],
)
def test_what_looks_like_a_secret_is_replaced(monkeypatch: pytest.MonkeyPatch, text: str, shown: str) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "my.value.is.long")
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false")
    assert without_secrets(text) == shown


def test_a_fingerprint_is_of_the_content(write_pairs: Callable[..., str], tokenizer: PreTrainedTokenizerBase) -> None:
    """The order of the rows does not matter; a row more or less does, and so does which answer is the chosen one."""
    rows, _ = load_rows(write_pairs(rows=4), tokenizer)
    found = data_fingerprint(rows)
    assert data_fingerprint(rows[::-1]) == found
    assert data_fingerprint(rows[:3]) != found
    swapped = Path(write_pairs(rows=4))
    text = swapped.read_text().replace('"chosen"', '"x"').replace('"rejected"', '"chosen"').replace('"x"', '"rejected"')
    swapped.write_text(text)
    assert data_fingerprint(load_rows(str(swapped), tokenizer)[0]) != found


def test_what_data_are_called_is_no_markup() -> None:
    listed = _listed({"files": "a.jsonl<img src=x>\n# b\x1b[2J", "seed": 1, "max_length": None})
    assert listed == "- files: a.jsonl&lt;img src=x&gt;\\n# b\\x1b[2J\n- seed: 1\n"
