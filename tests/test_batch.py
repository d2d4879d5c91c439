"""A micro-batch as it travels."""

from support.architectures import ROWS

from lightning_bnf.datamodules.steps.layout import padded


def test_to_moves_every_tensor() -> None:
    moved = padded(ROWS).to("meta")
    tensors = [
        *moved.inputs.values(),
        moved.position,
        moved.target,
        moved.completion,
        moved.length,
        moved.examples.label,
    ]
    assert all(tensor.device.type == "meta" for tensor in [*tensors, moved.examples.pair])  # type: ignore[union-attr]
