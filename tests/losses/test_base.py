"""The contract: a loss is added by one file and one YAML, and no other line is touched."""

import inspect
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from support import catalog

from lightning_bnf import losses
from lightning_bnf.cli.main import main
from lightning_bnf.losses import BNF, Completions, Examples, Loss, StepContext

NEW_LOSS = '''
"""A loss of a user's own."""

from torch.nn.functional import softplus

from lightning_bnf.losses import Loss, LossOutput


class MeanMargin(Loss):
    needs_reference = False
    needs_pairs = True

    def __init__(self, width: float = 1.0):
        """
        Args:
            width: Scale of the margin (> 0).
        """
        self.width = width

    def __call__(self, policy, reference, examples, step):
        return LossOutput(softplus(-examples.chosen_minus_rejected(policy.mean()) / self.width))
'''


@pytest.mark.slow
def test_a_new_loss_is_one_file_and_one_yaml(
    tmp_path: Path, tiny_folder: str, write_pairs: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mean_margin_loss.py").write_text(NEW_LOSS)
    loss = tmp_path / "mean_margin.yaml"
    loss.write_text("class_path: mean_margin_loss.MeanMargin\ninit_args:\n  width: 0.5\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    run = tmp_path / "run"
    data = write_pairs()  # type: ignore[operator]
    policy = {"class_path": "lightning_bnf.policies.LoRAPolicy", "init_args": {"source": tiny_folder}}
    config = {
        "model": {"policy": policy, "loss": str(loss)},
        "data": {"train": data, "examples_per_step": 5},
        "trainer": {"accelerator": "cpu", "max_epochs": 2, "default_root_dir": str(run), "log_every_n_steps": 1},
    }
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    main(["fit", "--config", str(tmp_path / "config.yaml"), "--allow", "mean_margin_loss"])
    assert (run / "policy" / "adapter_model.safetensors").is_file()
    assert "train/loss" in (run / "metrics.csv").read_text()
    saved = yaml.safe_load((run / "config.yaml").read_text())
    assert saved["model"]["loss"] == {"class_path": "mean_margin_loss.MeanMargin", "init_args": {"width": 0.5}}
    sys.modules.pop("mean_margin_loss", None)


def classes() -> list[type[Loss]]:
    found = [value for value in vars(losses).values() if isinstance(value, type) and issubclass(value, Loss)]
    return [loss for loss in found if not inspect.isabstract(loss)]


SPECS = {name: yaml.safe_load(path.read_text()) for name, path in catalog.FILES.items()}


@pytest.mark.parametrize("loss", classes())
def test_every_loss_has_a_yaml(loss: type[Loss]) -> None:
    assert any(spec["class_path"] == f"lightning_bnf.losses.{loss.__name__}" for spec in SPECS.values())


def stated(spec: Any) -> Iterator[dict[str, Any]]:
    """The class in a YAML and all classes inside its arguments."""
    if isinstance(spec, dict):
        if "class_path" in spec:
            yield spec
        for inner in spec.values():
            yield from stated(inner)
    elif isinstance(spec, list):
        for inner in spec:
            yield from stated(inner)


VARIANTS = {"bnf_restore": {"restore": True}}
"""Files that are named for another value than a loss's default."""


@pytest.mark.parametrize("name", SPECS)
def test_a_yaml_states_every_argument_with_its_default(name: str) -> None:
    """The command line carries arguments over a class swap: a YAML that states all of them inherits none.

    Losses inside of a sum may have another value than their default: that of the paper of the sum.
    """
    for spec in stated(SPECS[name]):
        parameters = inspect.signature(getattr(losses, spec["class_path"].rpartition(".")[2])).parameters
        given = spec.get("init_args", {})
        assert set(given) == set(parameters)
        for parameter in parameters.values():
            if spec is SPECS[name] and parameter.default is not inspect.Parameter.empty:
                assert given[parameter.name] == VARIANTS.get(name, {}).get(parameter.name, parameter.default)


def test_no_loss_file_is_long() -> None:
    for path in Path(losses.__file__).parent.glob("*.py"):
        if path.name not in ("base.py", "__init__.py"):
            assert len(path.read_text().splitlines()) < 120, path


def test_the_weigher_sees_the_tile_it_is_asked_for() -> None:
    reference = Completions(
        torch.tensor([-1.0, -2.0, -3.0], dtype=torch.float64), torch.tensor([0, 1, 1]), torch.tensor([1, 2])
    )
    context = StepContext(pairs=0, preferred=1, dispreferred=1, preferred_tokens=1, smallest_length=1)
    weigh = BNF().weigher(reference, Examples(torch.tensor([1, -1])), context)
    assert weigh is not None
    whole = weigh(torch.tensor([-1.0, -2.0, -3.0], dtype=torch.float64), slice(0, 3))
    assert whole.tolist() == [1.0, -0.5, -0.5]
    assert weigh(torch.tensor([-3.0], dtype=torch.float64), slice(2, 3)).tolist() == [-0.5]
