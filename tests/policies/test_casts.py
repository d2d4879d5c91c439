"""Casts of frozen weights that a run keeps: nothing is computed otherwise, and nothing stays behind."""

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
import torch
import torch.distributed as dist
from lightning.pytorch import Callback, Trainer
from support.architectures import row
from support.planned_steps import LAYERS, LINEAR, setting
from support.training import Write, perturbed, train
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import distribute_tensor
from torch.utils._python_dispatch import TorchDispatchMode

from lightning_bnf.costs.plan.step import step_cost
from lightning_bnf.datamodules.preference import PreferenceData
from lightning_bnf.datamodules.steps.layout import PADDED
from lightning_bnf.generation.sampling import Sampling, generate_ids
from lightning_bnf.losses import BNF
from lightning_bnf.module import PreferenceModule
from lightning_bnf.policies import FullPolicy, LoRAPolicy
from lightning_bnf.policies.casts import KeptCasts

HALVES = torch.autocast("cpu", torch.bfloat16)


@pytest.fixture
def policy(tiny_folder: str) -> LoRAPolicy:
    module = PreferenceModule(LoRAPolicy(tiny_folder), BNF())
    module.configure_model()
    return perturbed(module).policy  # type: ignore[return-value]


def passes(policy: LoRAPolicy) -> Iterator[Tensor]:
    """Log-probs, gradients, the reference's log-probs, and what is generated."""
    batch = PADDED.batch([row("a", [5, 6, 7], ([8, 9, 10], 1), ([11, 12], -1))], (1, -1))
    policy.zero_grad()
    with HALVES:
        logps = policy(batch).token_logps
    logps.sum().backward()
    yield logps.detach()
    yield from (parameter.grad.clone() for parameter in policy.trainable().values() if parameter.grad is not None)
    with torch.no_grad(), HALVES, policy.as_it_started():
        yield policy(batch).token_logps
    with HALVES:
        yield torch.tensor(generate_ids(policy.loaded, policy.tokenizer, [[5, 6, 7]], Sampling(0.0, 4))[0][0])


class Casts(TorchDispatchMode):
    """Counts casts of the frozen weights."""

    def __init__(self, policy: LoRAPolicy):
        super().__init__()
        frozen = [layer.weight for layer in policy.base_modules if isinstance(layer, nn.Linear)]
        self.places, self.count = {weight.data_ptr() for weight in frozen}, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        if func is torch.ops.aten._to_copy.default and args[0].data_ptr() in self.places:
            self.count += made.dtype == torch.bfloat16
        return made


def test_what_is_computed_is_the_same_to_the_last_bit_with_one_cast_a_layer(policy: LoRAPolicy) -> None:
    wanted = list(passes(policy))
    linear = [layer for layer in policy.base_modules if isinstance(layer, nn.Linear)]
    plain = [set(vars(layer)) for layer in linear]
    kept = KeptCasts(policy.base_modules)
    for casts in (len(linear), 0):
        with Casts(policy) as counted:
            found = list(passes(policy))
        assert all(torch.equal(one, other) for one, other in zip(found, wanted, strict=True))
        assert counted.count == casts
    kept.release()
    with Casts(policy) as counted:
        assert all(torch.equal(one, other) for one, other in zip(passes(policy), wanted, strict=True))
    assert counted.count > len(linear)
    assert [set(vars(layer)) for layer in linear] == plain


def test_an_adapter_that_is_merged_is_multiplied(policy: LoRAPolicy) -> None:
    """peft adds it to the weight where autograd does not see it; and takes it away again."""
    ids, found = torch.tensor([[5, 6, 7, 8]]), list[list[Tensor]]()
    for keep in (False, True):
        model = cast(Any, copy.deepcopy(policy.loaded))
        KeptCasts(model.modules() if keep else (), model.modules())
        with torch.no_grad(), HALVES:
            with model.disable_adapter():
                found.append([model(ids).logits])
            found[-1].append(model(ids).logits)
            for change in (model.merge_adapter, model.unmerge_adapter, model.merge_and_unload):
                changed = change() or model
                found[-1].append(changed(ids).logits)
    base, adapted, *_ = found[0]
    assert not torch.allclose(base, adapted, atol=0.1)
    for wanted, given in zip(*found, strict=True):
        torch.testing.assert_close(given, wanted, rtol=0, atol=0)


def test_autograd_holds_all_casts_at_once_where_they_are_not_kept(tiny_folder: str) -> None:
    """So a step takes no more memory with them."""
    saved = []
    for keep in (False, True):
        policy = LoRAPolicy(tiny_folder)
        policy.load()
        KeptCasts(policy.base_modules if keep else [])
        saved.append(step_cost(setting(policy, precision="bf16-mixed"), contents=True).saved)
    assert abs(saved[1] - saved[0]) < 0.25 * LAYERS * LINEAR * 2  # of their bytes


def test_without_autocast_the_weight_itself_is_multiplied(policy: LoRAPolicy) -> None:
    batch = PADDED.batch([row("a", [5, 6, 7], ([8, 9, 10], 1))], (1,))
    wanted = policy(batch).token_logps
    KeptCasts(policy.base_modules)
    with HALVES:
        policy(batch)
        with torch.autocast("cpu", enabled=False):
            assert torch.equal(policy(batch).token_logps, wanted)
    assert torch.equal(policy(batch).token_logps, wanted)


@pytest.mark.parametrize("change", ["in place", "another", "its storage"])
def test_a_weight_that_changed_is_cast_anew(change: str) -> None:
    layer, x = nn.Linear(4, 4).requires_grad_(False), torch.ones(1, 4)
    KeptCasts([layer])
    with HALVES:
        before = layer(x)
        if change == "in place":
            layer.weight.mul_(2)
        elif change == "another":
            layer.weight = nn.Parameter(layer.weight * 2, requires_grad=False)
        else:
            layer.weight.data = layer.weight * 2
        assert not torch.equal(layer(x), before)
        assert torch.equal(layer(x), nn.functional.linear(x, layer.weight, layer.bias))


def test_trained_half_and_other_layers_are_left_alone() -> None:
    class Own(nn.Linear):
        pass

    trained, half, own = nn.Linear(4, 4), nn.Linear(4, 4, dtype=torch.bfloat16), Own(4, 4).requires_grad_(False)
    plain = set(vars(own))
    with HALVES:
        wanted = trained(torch.ones(1, 4))
        KeptCasts([trained, half.requires_grad_(False), own, nn.LayerNorm(4)])
        found = trained(torch.ones(1, 4))
        found.sum().backward()
        half(torch.ones(1, 4))
    assert torch.equal(found, wanted)
    assert trained.weight.grad is not None
    assert not [name for name in (*vars(trained), *vars(half)) if "cast" in name]
    assert set(vars(own)) == plain


def test_a_cast_that_a_validation_made_is_trained_with() -> None:
    layer, x = nn.Linear(4, 4).requires_grad_(False), torch.ones(1, 4, requires_grad=True)
    KeptCasts([layer])
    with HALVES:
        with torch.inference_mode():
            layer(torch.ones(1, 4))
        layer(x).sum().backward()
    assert x.grad is not None


def test_a_copy_keeps_casts_of_its_own_weights() -> None:
    layer, x = nn.Linear(4, 4).requires_grad_(False), torch.ones(1, 4)
    KeptCasts([layer])
    with HALVES:
        layer(x)
        other = copy.deepcopy(layer)
        other.weight.mul_(2)
        assert torch.equal(other(x), nn.functional.linear(x, other.weight, other.bias))
        assert torch.equal(layer(x), nn.functional.linear(x, layer.weight, layer.bias))


def test_what_is_cut_into_parts_is_left_alone(tmp_path: Path) -> None:
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/meet", rank=0, world_size=1)
    try:
        layer = nn.Linear(4, 4)
        layer.weight = nn.Parameter(distribute_tensor(layer.weight.detach(), init_device_mesh("cpu", (1,))))
        KeptCasts([layer])
        assert "forward" not in vars(layer)
    finally:
        dist.destroy_process_group()


class Seen(Callback):
    """Which layers have a cast after the first step."""

    def __init__(self) -> None:
        self.layers: list[str] | None = None

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        if self.layers is None:
            named = pl_module.policy.named_modules()
            self.layers = [name.rsplit(".", 1)[-1] for name, layer in named if "_kept_cast" in vars(layer)]


class Stops(Callback):
    def __init__(self, error: type[BaseException]) -> None:
        self.error = error

    def on_train_batch_end(self, *_: Any) -> None:
        raise self.error


def remains(module: PreferenceModule) -> list[str]:
    names = {"_kept_cast", "forward", "_adapted_by"}
    return [name for layer in module.modules() for name in vars(layer) if name in names]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_run_that_is_ended_leaves_none(
    tmp_path: Path, tiny_folder: str, write_pairs: Write, error: type[BaseException]
) -> None:
    seen, module = Seen(), PreferenceModule(LoRAPolicy(tiny_folder), BNF())
    data = PreferenceData(write_pairs(), examples_per_step=5)
    with pytest.raises((error, SystemExit)):
        train(tmp_path, module, data, precision="bf16-mixed", max_steps=1, callbacks=[seen, Stops(error)])
    assert seen.layers
    assert remains(module) == []


@pytest.mark.slow
def test_a_run_after_another_verb_keeps_them_too(tmp_path: Path, tiny_folder: str, write_pairs: Write) -> None:
    module, file = PreferenceModule(LoRAPolicy(tiny_folder), BNF()), write_pairs()
    for _ in range(2):
        seen, data = Seen(), PreferenceData(file, validation=file, examples_per_step=5)
        settings: dict[str, Any] = {"accelerator": "cpu", "precision": "bf16-mixed", "default_root_dir": tmp_path}
        tester = Trainer(logger=False, use_distributed_sampler=False, enable_progress_bar=False, **settings)
        tester.validate(module, PreferenceData(file, validation=file), verbose=False)
        assert remains(module) == []
        train(tmp_path, module, data, precision="bf16-mixed", max_steps=1, callbacks=[seen])
        assert seen.layers
        module.policy.trained = module._begun_trained = False  # the second run is of the same weights


def test_layers_before_the_first_adapter_are_left_alone(tmp_path: Path, tiny_folder: str, write_pairs: Write) -> None:
    """Autograd would not hold their casts."""
    seen, module = Seen(), PreferenceModule(LoRAPolicy(tiny_folder, target_modules=r".*layers\.1\.mlp\.up_proj"), BNF())
    data = PreferenceData(write_pairs(), examples_per_step=5)
    train(tmp_path, module, data, precision="bf16-mixed", max_steps=1, callbacks=[seen])
    assert seen.layers == ["base_layer", "down_proj"]


@pytest.mark.parametrize(
    ("make", "precision", "kept"),
    [
        (lambda folder: LoRAPolicy(folder), "bf16-mixed", True),
        (lambda folder: LoRAPolicy(folder), "32-true", False),
        (lambda folder: LoRAPolicy(folder, gradient_checkpointing=True), "bf16-mixed", False),
        (lambda folder: FullPolicy(folder), "bf16-mixed", False),
    ],
)
def test_a_run_keeps_them_while_it_trains(
    tmp_path: Path, tiny_folder: str, write_pairs: Write, make: Any, precision: str, kept: bool
) -> None:
    """With adapters under autocast, unless memory is saved by computing again; then nothing of it is left."""
    seen, module = Seen(), PreferenceModule(make(tiny_folder), BNF())
    data = PreferenceData(write_pairs(), examples_per_step=5)
    train(tmp_path, module, data, precision=precision, max_steps=1, callbacks=[seen])
    assert seen.layers is not None
    assert bool(seen.layers) == kept
    assert set(seen.layers) <= {"base_layer"}
    assert remains(module) == []
