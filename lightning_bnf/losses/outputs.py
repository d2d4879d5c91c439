"""What a loss of a user's own may get wrong without an error: what it declares, and the shape of its values."""

from torch import Tensor

from lightning_bnf.losses.base import Examples, Loss, LossOutput
from lightning_bnf.runtime.refusal import Refusal


def check_declared(loss: Loss) -> Loss:
    """The loss itself; raises `Refusal` where it does not say whether it needs a reference."""
    if not hasattr(loss, "needs_reference"):
        raise Refusal(
            f"{type(loss).__name__}.needs_reference must be True where its values use the reference and False where "
            "they do not, got none: declare it in the class"
        )
    return loss


def checked_output(loss: Loss, output: LossOutput, examples: Examples) -> LossOutput:
    """`output`, if it has one value an example: a mean would be divided by the number of examples once more.

    Raises `Refusal` for what is no tensor, and other shapes; of a loss that counts its examples itself, for what is no
    vector.
    """
    name = type(loss).__name__
    if not isinstance(output, LossOutput):
        raise Refusal(f"{name} must return a LossOutput, got {type(output).__name__}")
    if not isinstance(output.value, Tensor):
        raise Refusal(f"the value of {name} must be a tensor, got {type(output.value).__name__}")
    kind, wanted = _examples_of(loss, examples)
    shape = tuple(output.value.shape)
    if len(shape) != 1 or (wanted is not None and shape[0] != wanted):
        size = "n" if wanted is None else wanted
        raise Refusal(f"the value of {name} must have the shape ({size},), one number a {kind}, got {shape}")
    return output


def _examples_of(loss: Loss, examples: Examples) -> tuple[str, int | None]:
    """What an example is, and how many of them a batch has, where that is known without waiting for the device."""
    if type(loss).value_count is not Loss.value_count:
        return "example", None
    if loss.needs_pairs and examples.pair is not None:
        return "pair", len(examples.pair)
    if loss.needs_groups:
        return "row", None
    if len(loss.labels) == 1:
        return "completion", len(examples.sides()[0 if 1 in loss.labels else 1])
    return "completion", len(examples.label)
