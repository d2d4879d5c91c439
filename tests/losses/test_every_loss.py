"""What every loss promises, each as its YAML builds it."""

import inspect
from dataclasses import replace

import pytest
import torch
from support import catalog
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from lightning_bnf import losses
from lightning_bnf.losses import Examples, Loss, Sum
from lightning_bnf.losses.completions import Completions
from lightning_bnf.training.metrics import preference_metrics

LOSSES = {name: catalog.build(name) for name in catalog.FILES}
each = pytest.mark.parametrize("name", LOSSES)

POLICY, REFERENCE = catalog.tokens(1), catalog.tokens(2)
CHOSEN = (catalog.EXAMPLES.label > 0)[catalog.ROW]


@each
def test_gradcheck_with_detached_factors_frozen(name: str) -> None:
    loss = LOSSES[name]
    step = catalog.context(loss, POLICY, REFERENCE)
    frozen = catalog.FrozenDetaches(lambda token: catalog.value(loss, token, REFERENCE, step), at=POLICY)
    assert torch.autograd.gradcheck(frozen, POLICY.clone().requires_grad_())


@each
def test_the_first_step_raises_and_lowers_what_is_declared(name: str) -> None:
    """At the reference. A loss that declares otherwise is held to that too."""
    loss = LOSSES[name]
    grad = catalog.gradient(loss, POLICY, POLICY)
    assert bool((grad[CHOSEN] < 0).all()) is loss.raises_preferred
    if -1 not in loss.labels:
        assert (grad[~CHOSEN] == 0).all()
    else:  # 0 where a hinge is met, or a target is 0
        lowers = (grad[~CHOSEN] >= 0).all() and (grad[~CHOSEN] > 0).sum() >= 3
        assert bool(lowers) is loss.lowers_dispreferred


@each
@pytest.mark.parametrize("extreme", [0.0, -1e-7, -1e-3, -120.0, -300.0])
def test_finite_in_float32_at_extreme_log_probs(name: str, extreme: float) -> None:
    loss = LOSSES[name]
    for of_chosen, of_rejected in ((extreme, -1.0), (-1.0, extreme), (extreme, extreme)):
        policy = torch.where(CHOSEN, of_chosen, of_rejected).float()
        mixed = torch.where(torch.arange(len(policy)) % 2 == 0, -1.0, extreme).float()
        for reference in (policy, mixed, torch.zeros_like(policy), torch.full_like(policy, -300.0)):
            assert catalog.value(loss, policy, reference).isfinite().all(), reference
            assert catalog.gradient(loss, policy, reference).isfinite().all(), reference


@each
def test_fused_is_declared_exactly_where_there_is_a_weigher(name: str) -> None:
    loss = LOSSES[name]
    policy, reference = catalog.completions(POLICY), catalog.completions(REFERENCE)
    weigh = loss.weigher(reference, catalog.EXAMPLES, catalog.context(loss, policy.token_logps, reference.token_logps))
    assert loss.fused == (weigh is not None)


@each
def test_the_reference_counts_exactly_where_it_is_needed(name: str) -> None:
    """Another reference changes a loss that declares one, in value or gradient; without one, nothing becomes NaN."""
    loss = LOSSES[name]
    if loss.needs_reference:
        assert (catalog.value(loss, POLICY, REFERENCE) != catalog.value(loss, POLICY, catalog.tokens(3))).any()
    else:
        assert catalog.value(loss, POLICY, REFERENCE).isfinite().all()  # catalog.value gave it none


def part(policy: Tensor, reference: Tensor, rows: list[int], loss: Loss) -> tuple[Tensor, Tensor]:
    """Value and gradient of some of the step's rows (pairs), in this order, with the context of the whole step."""
    which = torch.tensor([completion for row in rows for completion in (2 * row, 2 * row + 1)])
    at = torch.cat([(completion == catalog.ROW).nonzero().squeeze(-1) for completion in which])
    token = policy[at].requires_grad_()
    length = catalog.LENGTH[which]
    mine = Completions(token, torch.repeat_interleave(torch.arange(len(which)), length), length)
    examples = Examples(
        catalog.EXAMPLES.label[which],
        torch.arange(len(which)).reshape(-1, 2),
        torch.arange(len(rows)).repeat_interleave(2),
        {column: values[which] for column, values in catalog.EXAMPLES.columns.items()},
    )
    step = catalog.context(loss, policy, reference)
    sliced = {key: found if found.ndim == 0 else found[which] for key, found in step.statistics.items()}
    ref = mine.replaced(reference[at]) if loss.needs_reference else None
    total = loss(mine, ref, examples, replace(step, statistics=sliced)).value.sum()
    (grad,) = torch.autograd.grad(total, token)
    return total.detach(), torch.zeros_like(policy).index_copy(0, at, grad)


@each
def test_nothing_waits_for_the_device(name: str) -> None:
    """On fake tensors: whoever asks for a value, or for as many places as there are, raises there.

    Sides and groups are counted before. What is made once a step (`statistics`) may wait for the device.
    """
    loss = LOSSES[name]
    step = catalog.context(loss, POLICY, REFERENCE)
    on_cpu = catalog.EXAMPLES.map(lambda tensor: tensor)
    with FakeTensorMode() as fakes:
        fake = fakes.from_tensor
        row, length = fake(catalog.ROW), fake(catalog.LENGTH)
        policy, reference = (Completions(fake(tokens), row, length) for tokens in (POLICY, REFERENCE))
        examples = on_cpu.map(fake)
        step = replace(step, statistics={key: fake(found) for key, found in step.statistics.items()})
        ref = reference if loss.needs_reference else None
        preference_metrics(policy, ref, examples, loss.implicit_reward_scale)
        loss(policy, ref, examples, step)
        weigh = loss.weigher(reference, examples, step)
        if weigh is not None:
            weigh(policy.token_logps[:4], slice(0, 4))


@each
def test_cutting_and_reordering_a_step_changes_nothing(name: str) -> None:
    loss = LOSSES[name]
    whole = catalog.value(loss, POLICY, REFERENCE).sum()
    grad = catalog.gradient(loss, POLICY, REFERENCE)
    for parts in ([[0, 1, 2]], [[2, 0, 1]], [[0], [1], [2]], [[1, 2], [0]]):
        found = [part(POLICY, REFERENCE, rows, loss) for rows in parts]
        torch.testing.assert_close(torch.stack([total for total, _ in found]).sum(), whole, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(torch.stack([some for _, some in found]).sum(0), grad, rtol=1e-12, atol=1e-12)


@each
def test_metrics_are_declared_detached_and_one_value_goes_with_each_example(name: str) -> None:
    loss = LOSSES[name]
    policy = catalog.completions(POLICY.clone().requires_grad_())
    policy = replace(policy, entropy=torch.ones_like(POLICY))
    reference = policy.replaced(REFERENCE) if loss.needs_reference else None
    step = catalog.context(loss, POLICY, REFERENCE)
    output = loss(policy, reference, catalog.EXAMPLES, step)
    assert set(output.metrics) == set(loss.metric_names)
    assert not any(values.requires_grad for values in output.metrics.values())
    if not isinstance(loss, Sum):  # which has the values of all its terms
        assert len(output.value) == loss.value_count(step)


@each
def test_token_losses_give_the_head_the_weights_of_their_gradient(name: str) -> None:
    loss = LOSSES[name]
    step = catalog.context(loss, POLICY, REFERENCE)
    weigh = loss.weigher(catalog.completions(REFERENCE), catalog.EXAMPLES, step)
    if weigh is None:
        return
    weights = torch.cat([weigh(POLICY[where], where) for where in (slice(0, 5), slice(5, 6), slice(6, 13))])
    torch.testing.assert_close(-weights, catalog.gradient(loss, POLICY, REFERENCE), rtol=1e-12, atol=0)


@each
def test_unpaired_losses_take_any_mixture_of_labels(name: str) -> None:
    loss = LOSSES[name]
    if loss.needs_pairs or loss.needs_groups:
        return
    for keep in (1, -1):
        which = catalog.EXAMPLES.label == keep
        at = which[catalog.ROW]
        length = catalog.LENGTH[which]
        policy = Completions(POLICY[at], torch.repeat_interleave(torch.arange(3), length), length)
        columns = {column: values[which] for column, values in catalog.EXAMPLES.columns.items()}
        step = replace(
            catalog.context(loss, POLICY, REFERENCE),
            preferred=3 if keep > 0 else 0,
            dispreferred=3 if keep < 0 else 0,
        )
        sliced = {key: found if found.ndim == 0 else found[which] for key, found in step.statistics.items()}
        reference = policy.replaced(REFERENCE[at]) if loss.needs_reference else None
        examples = Examples(catalog.EXAMPLES.label[which], columns=columns)
        found = loss(policy, reference, examples, replace(step, statistics=sliced)).value
        expected = 3 if keep in loss.labels and not loss.needs_both_labels else 0
        assert loss.value_count(step) == expected
        assert len(found) == (3 if keep in loss.labels else 0)
        assert found.isfinite().all()


@each
def test_what_is_added_to_policy_and_reference_alike_changes_nothing_where_that_is_declared(name: str) -> None:
    """Another number for each token. It changes value or gradient of every loss that does not declare it."""
    loss = LOSSES[name]
    added = catalog.tokens(9, 3.0)
    values = [catalog.value(loss, POLICY + x, REFERENCE + x) for x in (0.0, added)]
    grads = [catalog.gradient(loss, POLICY + x, REFERENCE + x) for x in (0.0, added)]
    alike = all(torch.allclose(a, b, rtol=1e-7, atol=1e-9) for a, b in (values, grads))
    assert alike is loss.logratios_only


@pytest.mark.parametrize("name", losses.__all__)
def test_every_loss_is_in_the_catalog(name: str) -> None:
    """What is not in it is not tested here."""
    made = getattr(losses, name)
    if isinstance(made, type) and issubclass(made, Loss) and not inspect.isabstract(made):
        assert made in {type(loss) for loss in LOSSES.values()}


def test_the_steps_preferred_tokens_are_those_of_its_lengths() -> None:
    assert catalog.CONTEXT.preferred_tokens == catalog.LENGTH[catalog.EXAMPLES.label > 0].sum()
