"""Chat templates of several families, and rows shown as they are trained."""

import copy
from typing import Any

from transformers import PreTrainedTokenizerBase

from lightning_bnf.datamodules.tokens.renderer import TokenizedRow
from lightning_bnf.datamodules.tokens.report import marked
from support.rows import assistant, user

# Other families' ways, written with the bundled model's special tokens. LOOP is over every message.
LOOP = "{% for message in messages %}"
GENERATION = "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
CHATML = LOOP + "<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}" + GENERATION
MISTRAL = (
    LOOP + "{% if message.role == 'user' %}[INST] {{ message.content }} [/INST]"
    "{% else %} {{ message.content }}<|im_end|>{% endif %}{% endfor %}"
)
# As Phi-3's: one token ends each turn, and another ends the conversation.
TWO_ENDS = (
    LOOP + "<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% else %}<|endoftext|>{% endif %}"
)
NO_END_TOKEN = (
    LOOP + "### {{ message.role }}:\n{{ message.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}### assistant:\n{% endif %}"
)


def with_template(tokenizer: PreTrainedTokenizerBase, template: str | None) -> Any:
    changed = copy.deepcopy(tokenizer)
    changed.chat_template = template
    return changed


def shown(row: TokenizedRow, tokenizer: Any) -> list[str]:
    """The prompt, and every completion with its trained tokens marked."""
    return [tokenizer.decode(row.prompt_ids), *(marked(completion, tokenizer) for completion in row.completions)]


PAIR = {"prompt": [user("3 + 4?")], "chosen": [assistant("7")], "rejected": [assistant("It is 8.")]}
