"""Schedules by hand, any optimizer by its class path, and refusals."""

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from bitsandbytes.optim import AdamW8bit

from lightning_bnf.cli.main import main
from lightning_bnf.policies import FullPolicy, LoRAPolicy
from lightning_bnf.runtime.refusal import Refusal
from lightning_bnf.training.optimization import (
    Optimization,
    build_optimizer,
    check_optimizer,
    parameter_groups,
    scheduled,
)
from lightning_bnf.training.optimizers import Muon

ROOT = Path(__file__).parents[2]
CPU = torch.device("cpu")
STATES = {
    "adamw": {"step", "exp_avg", "exp_avg_sq"},
    "adamw_8bit": {"state1", "state2"},
    "paged_adamw_8bit": {"state1", "state2"},
    "adafactor": {"step", "row_var", "col_var"},
    "muon": {"momentum_buffer"},
}


def test_warm_up_starts_above_zero_and_cosine_ends_near_zero() -> None:
    """10 steps, 2 of warm-up: 1/2, 1, then cosine from 1 over 8 steps; half-way (step 6) at 1/2."""
    factors = [Optimization(warmup_ratio=0.2).factor(step, 10) for step in range(11)]
    assert factors[:3] == [0.5, 1.0, 1.0]
    assert factors[6] == pytest.approx(0.5)
    assert factors[10] == pytest.approx(0.0)


def test_linear_and_constant() -> None:
    assert Optimization(schedule="linear", warmup_ratio=0.0).factor(5, 10) == 0.5
    assert Optimization(schedule="constant", warmup_ratio=0.0).factor(9, 10) == 1.0


def test_groups_tell_hidden_matrices_from_embeddings_and_vectors(tiny_folder: str) -> None:
    """A tiny Llama: 7 matrices in each of 2 layers; embeddings and head; 2 norms a layer and the last one."""
    policy = FullPolicy(tiny_folder)
    policy.load()
    groups = parameter_groups(policy)
    assert [(len(group["params"]), group["hidden"], group.get("weight_decay")) for group in groups] == [
        (14, True, None),
        (2, False, None),
        (5, False, 0.0),
    ]


def test_adapters_decay_but_for_their_magnitudes(tiny_folder: str) -> None:
    """DoRA: two matrices and a vector of magnitudes for each of 14 layers."""
    policy = LoRAPolicy(tiny_folder, r=2, use_dora=True)
    policy.load()
    assert [(len(group["params"]), group.get("weight_decay")) for group in parameter_groups(policy)] == [
        (28, None),
        (14, 0.0),
    ]


def test_the_default_is_adamw_with_the_settings_of_old_configs(tiny_folder: str) -> None:
    policy = FullPolicy(tiny_folder)
    policy.load()
    optimizer = build_optimizer(parameter_groups(policy), Optimization(3e-4, weight_decay=0.1, betas=(0.8, 0.9)))
    assert type(optimizer) is torch.optim.AdamW
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.1, 0.1, 0.0]
    assert {(group["lr"], group["betas"], group["fused"]) for group in optimizer.param_groups} == {
        (3e-4, (0.8, 0.9), True)
    }


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(path.stem for path in (ROOT / "configs/optimizer").glob("*.yaml")))
def test_every_optimizer_trains_and_goes_on_as_if_it_had_not_stopped(
    tmp_path: Path, tiny_folder: str, write_pairs: Callable[..., str], name: str
) -> None:
    """By its YAML alone: 3 steps, and 3 more from the checkpoint, are 6 steps bit by bit; and it is planned."""
    config = tmp_path / "config.yaml"
    config.write_text(
        yaml.safe_dump(
            {
                "model": {
                    "policy": {"class_path": "lightning_bnf.policies.FullPolicy", "init_args": {"source": tiny_folder}},
                    "loss": str(ROOT / "configs/loss/bnf.yaml"),
                    "optimizer": str(ROOT / f"configs/optimizer/{name}.yaml"),
                    "optimization": {"learning_rate": 1e-3, "schedule": "constant", "warmup_ratio": 0.0},
                },
                "data": {"train": write_pairs(rows=15), "examples_per_step": 5, "max_tokens": 512},
                "trainer": {"accelerator": "cpu", "max_epochs": 2, "log_every_n_steps": 1},
            }
        )
    )

    def state(folder: str, *words: str) -> dict[str, Any]:
        root = tmp_path / folder
        main(["fit", "--config", str(config), "--trainer.default_root_dir", str(root), *words])
        (path,) = (root / "checkpoints").glob(f"*step={'3' if '1' in words else '6'}.ckpt")
        return torch.load(path, weights_only=True)

    wanted = state("whole")
    state("parts", "--trainer.max_epochs", "1")
    found = state("parts", "--ckpt_path", "last")
    assert all(torch.equal(value, wanted["state_dict"][key]) for key, value in found["state_dict"].items())
    held = str(wanted["optimizer_states"])
    assert all(word in held for word in STATES[name])
    main(["plan", "--config", str(config), "--flops", "1"])


@pytest.mark.parametrize(
    "bad",
    [
        {"learning_rate": -1e-6},
        {"learning_rate": 0.0},
        {"learning_rate": 5.0},
        {"learning_rate": math.inf},
        {"weight_decay": 2.0},
        {"weight_decay": math.nan},
        {"max_grad_norm": math.inf},
        {"warmup_ratio": 1.0},
        {"weight_decay": -0.1},
        {"schedule": "step"},
        {"betas": (0.9, 1.0)},
        {"max_grad_norm": 0.0},
    ],
)
def test_refuses_settings_out_of_range(bad: dict[str, object]) -> None:
    (name,) = bad
    with pytest.raises(Refusal, match=rf"{name}.* must be .*, got"):
        Optimization(**bad)  # type: ignore[arg-type]


def test_paged_8bit_says_what_stands_for_it() -> None:
    with pytest.raises(Refusal, match=r"paged_8bit must be false, got true; set model.optimizer to .*paged_adamw_8bit"):
        Optimization(paged_8bit=True)


def test_what_the_optimizer_has_is_not_said_twice() -> None:
    with pytest.raises(Refusal, match=r"optimization.weight_decay must be null beside an optimizer, .* got 0.1"):
        check_optimizer(Optimization(1e-6, weight_decay=0.1), torch.optim.SGD, CPU, "one device")


def test_a_name_is_no_optimizer_in_python() -> None:
    with pytest.raises(Refusal, match=r"a class or function that makes one, such as torch.optim.AdamW .*, got 'adamw'"):
        check_optimizer(Optimization(), "adamw", torch.device("cpu"), "one device")  # type: ignore[arg-type]


def test_an_optimizer_that_cannot_step_here_is_refused() -> None:
    def broken(params: Any, lr: float) -> torch.optim.Optimizer:
        raise ImportError("no module for this device")

    with pytest.raises(Refusal, match=r"optimizer must be one that takes a step on cpu, got ImportError: no module"):
        check_optimizer(Optimization(1e-6), broken, CPU, "one device")
    with pytest.raises(Refusal, match="optimizer must be one that takes a step on cpu"):
        check_optimizer(Optimization(1e-6), torch.optim.LBFGS, CPU, "one device")


@pytest.mark.parametrize("settings", [{"eps": math.inf}, {"weight_decay": math.inf}])
def test_an_optimizer_whose_numbers_change_nothing_or_all_is_refused(settings: dict[str, float]) -> None:
    """torch takes them: a division by infinity leaves every weight as it is, and 0 times infinity is no number."""
    factory = partial(torch.optim.AdamW, **settings)
    with pytest.raises(Refusal, match="optimizer must be one that changes weights by finite numbers"):
        check_optimizer(Optimization(1e-6), factory, CPU, "one device")


@pytest.mark.parametrize("factory", [Muon, AdamW8bit, torch.optim.Adafactor])
def test_what_takes_whole_tensors_is_refused_under_fsdp2(factory: Any) -> None:
    with pytest.raises(Refusal, match=rf"must be auto or ddp with the optimizer {factory.__name__}, .* got fsdp2"):
        check_optimizer(Optimization(1e-6), factory, CPU, "fsdp2")
    check_optimizer(Optimization(1e-6), factory, CPU, "ddp")
    check_optimizer(Optimization(1e-6), torch.optim.SGD, CPU, "fsdp2")


def test_the_learning_rate_follows_the_schedule(tiny_folder: str) -> None:
    policy = FullPolicy(tiny_folder)
    policy.load()
    made = scheduled(policy, Optimization(0.5, schedule="linear", warmup_ratio=0.0), torch.optim.SGD, 4)
    rates = []
    for _ in range(4):
        rates.append(made["lr_scheduler"].get_last_lr()[0])
        made["optimizer"].step()
        made["lr_scheduler"].step()
    assert rates == [0.5, 0.375, 0.25, 0.125]
    with pytest.raises(Refusal, match="max_steps must be a number where max_epochs is -1"):
        scheduled(policy, Optimization(0.5), torch.optim.SGD, float("inf"))
