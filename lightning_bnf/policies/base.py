"""The policy: one module from a micro-batch to token log-probabilities."""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, Self, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from lightning_bnf.batch import MicroBatch
from lightning_bnf.losses.base import Weigher
from lightning_bnf.policies.attention import Kernel, is_flash, kernel_of, model_inputs, windows_of
from lightning_bnf.policies.conversion import OwnTypes
from lightning_bnf.policies.given import check_given, source_of
from lightning_bnf.policies.head.tiles import Head, noise_of_rounding, token_logps, weighted_token_logps
from lightning_bnf.policies.invariance import rotate_row_by_row, switch_off_dropout, train_quietly
from lightning_bnf.policies.layers import compile_layers, kept_on_cpu
from lightning_bnf.policies.routing import Router, Routing, check_balancing, counted_tokens
from lightning_bnf.policies.sources import end_ids_of, load_end_ids, load_model, load_tokenizer, resolve_source
from lightning_bnf.runtime.distributed import local, reshard
from lightning_bnf.runtime.fingerprints import weights_fingerprint
from lightning_bnf.runtime.refusal import Refusal

if TYPE_CHECKING:  # a second of imports, which the command line's --help has no use for
    from transformers import PreTrainedModel

Dtype = Literal["float32", "bfloat16", "float16"]
Checkpointing = Literal[True, False, "offloaded"]

CHECKED_TOKENS = 64
"""Tokens whose log-probs are held against the model's own logits before training, which take memory for all of them."""


class PolicyError(Refusal):
    """A policy that cannot be trained as asked for; the message says why and what is accepted."""


class PolicyOutput(NamedTuple):
    """token_logps (N,) in nats; `objective`, a scalar, where a token loss's weights were given; `entropy` (N,) of the
    distributions that the tokens were scored by, in nats, where it was asked for; `routing` where `router` is set."""

    token_logps: Tensor
    objective: Tensor | None = None
    entropy: Tensor | None = None
    routing: Routing | None = None


class Stored(NamedTuple):
    """What a tensor is kept as (`float32`, `nf4`, ...), and the bytes that takes."""

    kind: str
    bytes: int


class Policy(OwnTypes, ABC):
    """A causal language model whose `forward` gives token log-probabilities, not logits.

    Built from its arguments alone; `load` brings the weights, so that data and settings can be refused before.
    """

    references: ClassVar[tuple[str, ...]] = ("copy", "cache")
    """Where its reference log-probs may come from, beside `none`; the first is what `reference: auto` means."""

    adapters: ClassVar[bool] = False
    """Whether peft's adapters on a frozen base are trained, and nothing else. Then they can be switched off
    (`as_it_started`, `without_adapters`), `save` writes a peft folder that can be merged into the base, and the frozen
    weights tell bases apart at any step."""

    shardable: ClassVar[bool] = True
    """Whether FSDP2 can cut its weights into parts."""

    in_four_bits: ClassVar[bool] = False
    """Whether it trains beside weights that bitsandbytes holds in 4 bits."""

    planned_for: str | None = None
    """The type of device whose products and masks are made of fake tensors, wherever they lie; None is their own."""

    needs_device: ClassVar[str | None] = None
    """The type of device that it cannot do without, such as cuda; None where it runs on any."""

    trained: bool = False
    """Whether its weights are those that a run has trained, and no longer what it began from."""

    def __init__(
        self,
        source: str,
        revision: str | None = None,
        dtype: Dtype = "float32",
        attention: str | None = None,
        gradient_checkpointing: Checkpointing = False,
        compiled: bool = False,
    ):
        super().__init__()
        if compiled and gradient_checkpointing:
            raise PolicyError("compiled must be false with gradient_checkpointing, inside which torch compiles nothing")
        self.source = source
        self.revision = revision
        self.dtype = getattr(torch, dtype)
        self.attention = attention
        self.gradient_checkpointing = gradient_checkpointing
        self.compiled = compiled
        self._tokenizer: PreTrainedTokenizerBase | None = None
        self._end_ids: tuple[int, ...] | None = None
        self._given: list[PreTrainedModel] = []  # in a list: as an attribute its weights would count as the policy's
        self.base_modules: list[nn.Module] = []  # as they were loaded, without adapters
        self._tell_positions = False
        self.model: nn.Module | None = None
        self.router: Router | None = None  # whose choices each forward pass tells
        self.base_fingerprint: str | None = None
        """16 hex digits of the weights that it was made of, before adapters and training; None before they are loaded.
        """

    @classmethod
    def of(cls, model: "PreTrainedModel", tokenizer: PreTrainedTokenizerBase, **settings: Any) -> Self:
        """A policy on a transformers model that is loaded already.

        The model itself is trained, not a copy: its dropout goes to 0, it moves to the run's device, and adapters are
        put into its layers, or with `FullPolicy` its weights change. To train from the start again, load it again.

        Args:
            model: Without adapters; in 4 bits for `QLoRAPolicy`, and for the others in 16 or 32.
            tokenizer: The model's, with its chat template.
            settings: The class's arguments but source, revision, dtype and attention, which the model has.

        Raises `PolicyError` for a model with adapters, such as one that was aligned before, or of other weights.
        """
        check_given(model, cls.in_four_bits, settings)
        dtype = str(model.dtype).removeprefix("torch.")
        policy = cls(source=source_of(model), dtype=dtype, **settings)  # type: ignore[arg-type]
        policy._tokenizer, policy._end_ids = tokenizer, end_ids_of(model.generation_config)
        policy._given.append(model)
        return policy

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The source's tokenizer, loaded on first use."""
        if self._tokenizer is None:
            self._tokenizer = load_tokenizer(self.source, self.revision)
        return self._tokenizer

    @property
    def end_ids(self) -> tuple[int, ...]:
        """Token ids that end a completion, besides the tokenizer's own."""
        return load_end_ids(self.source, self.revision) if self._end_ids is None else self._end_ids

    def load(self, dtype: torch.dtype | None = None) -> None:
        """Load the weights, once; the base's in another `dtype` than its own if named. Raises `SourceError` or
        `PolicyError`."""
        if self.model is None and self._given:
            self.adopt(self._given.pop())
        elif self.model is None:
            resolve_source(self.source, self.revision)
            self.adopt(self.base(dtype))

    @property
    def given(self) -> bool:
        """Whether its model was loaded by the user, and not from the source."""
        return bool(self._given)

    def adopt(self, base: "PreTrainedModel") -> None:
        """Make the model to train of a freshly loaded one, or of one without weights on the meta device."""
        switch_off_dropout(base)
        if base.device.type != "meta":
            self.base_fingerprint = weights_fingerprint(base)
        self._tell_positions, self.base_modules = rotate_row_by_row(base), list(base.modules())
        self.model = self.prepared(base.requires_grad_(False))
        if self.gradient_checkpointing:
            self.causal_lm.gradient_checkpointing_enable({"use_reentrant": False})
            self.causal_lm.enable_input_require_grads()  # else adapters behind frozen embeddings get no gradient
        if self.compiled:
            compile_layers(self.causal_lm)
        self.train()

    def train(self, mode: bool = True) -> Self:
        """Training mode is of what was added to the base, such as the dropout of adapters: see `train_quietly`."""
        super().train(mode)
        if mode:
            train_quietly(self.base_modules)
        return self

    def base(self, dtype: torch.dtype | None = None) -> "PreTrainedModel":
        """The source's model, freshly loaded as this policy starts from it; in `dtype` instead of its own if named."""
        return load_model(self.source, dtype or self.dtype, self.revision, self.attention)

    def stored(self, tensor: Tensor) -> Stored:
        """How one of the adopted model's parameters or buffers is kept in memory once it is loaded."""
        return Stored(str(tensor.dtype).removeprefix("torch."), tensor.nbytes)

    @property
    def unpacked_bytes(self) -> int:
        """Of weights that are kept in another form than they are computed with, the most that is unpacked at once."""
        return 0

    @abstractmethod
    def prepared(self, base: "PreTrainedModel") -> nn.Module:
        """The freshly loaded, frozen model -> the model to train, with its trainable tensors set."""

    @abstractmethod
    def save(self, folder: str, weights: Mapping[str, Tensor], max_shard_size: str) -> None:
        """Write a peft or `save_pretrained` folder with the tokenizer, as users load them.

        `weights` are the trainable tensors by name, whole; files of full weights are at most `max_shard_size` large.
        """

    def description(self) -> dict[str, Any]:
        """The settings that make this policy what it is, for the card of what is exported."""
        dtype = str(self.dtype).removeprefix("torch.")
        return {"policy": type(self).__name__, "source": self.source, "revision": self.revision, "dtype": dtype}

    @property
    def weights_of(self) -> str:
        """How the base's weights are loaded: fingerprints of weights that are rounded otherwise are others."""
        dtype = str(self.dtype).removeprefix("torch.")
        return " ".join([type(self).__name__, dtype, *self.reference_description().get("quantization", "").split()])

    def reference_description(self) -> dict[str, str]:
        """What a cache of this policy's reference says of it in words, beside its weights' fingerprint."""
        return {}

    def as_it_started(self) -> AbstractContextManager[None]:
        """Inside, the policy is what it was before training. Raises `PolicyError` where it has no `adapters`."""
        raise PolicyError(f"the policy must have adapters to switch off, got {type(self).__name__}")

    @property
    def reference_is_start(self) -> bool:
        """Whether the reference is the policy as it was before training."""
        return True

    def as_reference(self) -> AbstractContextManager[None]:
        """Inside, the policy is its reference. Raises `PolicyError` where it has no `adapters`."""
        return self.as_it_started() if self.reference_is_start else self.without_adapters()

    def without_adapters(self) -> AbstractContextManager[None]:
        """Inside, the policy is its base alone. Raises `PolicyError` where it has no `adapters`."""
        raise PolicyError(f"the policy must have adapters to switch off, got {type(self).__name__}")

    @property
    def loaded(self) -> nn.Module:
        """The model to generate with and to save."""
        if self.model is None:
            raise RuntimeError("the policy's weights are not loaded yet; call load() first")
        return self.model

    @property
    def causal_lm(self) -> "PreTrainedModel":
        """The transformers model inside, without a wrapper."""
        return cast("PreTrainedModel", self.loaded)

    def head(self) -> Head:
        """How this model makes logits of its last hidden states."""
        layer = self.causal_lm.get_output_embeddings()
        if not isinstance(layer, nn.Linear):
            raise PolicyError(
                f"the output layer must be a plain linear layer, got {type(layer).__name__}; adapters on it "
                "(target_modules or modules_to_save naming the head) are refused"
            )
        return Head.of(layer, self.causal_lm.config.get_text_config(), self.planned_for)

    def forward(self, batch: MicroBatch, weigh: Weigher | None = None, entropy: bool = False) -> PolicyOutput:
        """Differentiable token log-probs; or, with a token loss's weights, detached ones and the objective."""
        states, routing = self._states(batch)
        hidden = states[batch.position]  # (N, H)
        if weigh is None:
            plain = token_logps(hidden, batch.target, self.head(), entropy)
            return PolicyOutput(plain.logps, None, plain.entropy, routing)
        weighted = weighted_token_logps(hidden, batch.target, self.head(), weigh, entropy)
        return PolicyOutput(weighted.logps, weighted.objective, weighted.entropy, routing)

    def _states(self, batch: MicroBatch) -> tuple[Tensor, Routing | None]:
        """Last hidden states, flattened to (rows * T, H), and what the routers chose."""
        offloaded = self.gradient_checkpointing == "offloaded" and torch.is_grad_enabled()
        routed = {} if self.router is None else {"output_router_logits": True}
        with kept_on_cpu(self.planned_for is not None) if offloaded else nullcontext():
            output = self.body(**self.model_inputs(batch), use_cache=False, **routed)
            told = None if self.router is None else self.router.routing(output.router_logits, counted_tokens(batch))
        return output.last_hidden_state.flatten(0, 1), told

    @property
    def body(self) -> nn.Module:
        """The model without its head: gives last hidden states."""
        model, body = self.causal_lm, self.causal_lm.base_model
        if body is model:  # a class that names no base model of its own
            parts = [part for part in model.children() if hasattr(part, "get_input_embeddings")]
            body = parts[0] if len(parts) == 1 else model
        return body

    def model_inputs(self, batch: MicroBatch) -> dict[str, Any]:
        """The micro-batch as the model's arguments."""
        config = self.causal_lm.config
        windows = windows_of(config.get_text_config())
        if self._tell_positions and "position_ids" not in batch.inputs:
            mask = batch.inputs["attention_mask"]
            positions = (mask.cumsum(-1) - 1) * mask  # of padding 0: it is as long as no row
            batch = replace(batch, inputs=batch.inputs | {"position_ids": positions})
        attention, dtype = str(config._attn_implementation), self.causal_lm.dtype
        return model_inputs(batch, attention, dtype, windows, self.planned_for, self.attention_kernel)

    @property
    def attention_kernel(self) -> Kernel | None:
        """What computes attention within sequences, in the precision of the moment; None where masks are needed."""
        cast = torch.is_autocast_enabled(device := self.causal_lm.device.type)
        dtype = torch.get_autocast_dtype(device) if cast else self.causal_lm.dtype
        return kernel_of(self.causal_lm, dtype, self.planned_for)

    def dry_step(self, batch: MicroBatch, token_loss: bool) -> None:
        """A forward and backward pass that changes nothing: for what it takes of memory. The gradients are dropped."""
        weigh: Weigher | None = (lambda logps, _: torch.ones_like(logps)) if token_loss else None
        output = self(batch, weigh)
        objective = -output.token_logps.sum() if output.objective is None else output.objective
        (objective if output.routing is None else objective + output.routing.probability.sum()).backward()
        self.drop_gradients()

    def drop_gradients(self) -> None:
        """Forget them all."""
        for parameter in self.trainable().values():
            parameter.grad = None

    @property
    def tolerance(self) -> float:
        """Nats by which log-probs of a token may differ between two ways to compute them."""
        return 1e-3 if self.exact else 0.25

    @torch.no_grad()
    def check_head(self, batch: MicroBatch) -> None:
        """Compare the first tokens' log-probs with the model's own logits; raises `PolicyError` where they differ."""
        ids = batch.inputs["input_ids"][:1, :CHECKED_TOKENS]  # whatever predicts them, in one sequence
        few = replace(batch, inputs={"input_ids": ids, "attention_mask": torch.ones_like(ids)}, sequences=None)
        # Under autocast the model's own logits would be rounded too; kernels of flash attention take halves alone.
        tokens, device, attention = ids.flatten(), ids.device.type, str(self.causal_lm.config._attn_implementation)
        with torch.autocast(device, enabled=is_flash(attention) and torch.is_autocast_enabled(device)):
            routed = {} if self.router is None else {"output_router_logits": True}
            output = self.causal_lm(**self.model_inputs(few), use_cache=False, **routed)
            hidden, routing = self._states(few)
        logits, head = output.logits.flatten(0, 1), self.head()
        if routing is not None:
            check_balancing(output.aux_loss, routing, self.source)
        if hidden.shape[-1] != head.weight.shape[-1]:
            raise PolicyError(
                f"source must be a model whose output layer follows on its last hidden states, got {self.source!r}, "
                f"whose hidden states have {hidden.shape[-1]} numbers and whose output layer takes "
                f"{head.weight.shape[-1]}"
            )
        noise = noise_of_rounding(logits, tokens, at_least=CHECKED_TOKENS)
        own = logits.float().log_softmax(-1).gather(-1, tokens[:, None]).squeeze(-1)
        worst = (own - token_logps(hidden, tokens, head).logps).abs().max().item()
        if not math.isfinite(worst):
            self.check_finite()
        if not worst <= max(1e-4, 4 * noise):  # scaling and capping round too
            raise PolicyError(
                f"source {self.source!r}: token log-probabilities from hidden states and output layer differ by "
                f"{worst:.3g} nats from the model's own logits, so this architecture does something to its logits "
                "that is not known here; training it would be wrong"
            )

    def check_finite(self) -> None:
        """Raises `PolicyError` with the names of tensors that hold what is no finite number, whose signs are many."""
        broken = sorted(name for name, p in self.named_parameters() if not local(p.detach()).isfinite().all())
        if broken:
            raise PolicyError(
                f"source must be a model of finite numbers, got {self.source!r}, of which {len(broken)} tensors hold "
                f"others: {', '.join(broken[:3])}{' ...' if len(broken) > 3 else ''}"
            )

    @property
    def exact(self) -> bool:
        """Whether the weights, as they are now, are float32 or wider."""
        return next(self.causal_lm.parameters()).dtype in (torch.float32, torch.float64)

    def trainable(self) -> dict[str, nn.Parameter]:
        """The trainable parameters by name; under FSDP2 this rank's parts."""
        reshard(self)
        return {name: parameter for name, parameter in self.named_parameters() if parameter.requires_grad}

    def state_dict(self, *args: Any, destination: Any = None, prefix: str = "", keep_vars: bool = False) -> Any:
        """Trainable tensors only: a checkpoint never holds the frozen base."""
        state = super().state_dict(prefix=prefix, keep_vars=True)
        names = {prefix + name for name, p in self.named_parameters(remove_duplicate=False) if p.requires_grad}
        kept = {name: value if keep_vars else value.detach() for name, value in state.items() if name in names}
        if destination is None:
            return kept
        destination.update(kept)
        return destination


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """No gradients and no dropout inside; afterwards every module is in the mode it was found in."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, mode in modes:
            module.training = mode
