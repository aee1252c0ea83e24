"""The one place that makes a tokenizer: from a base's folder, never from the network, never with foreign code."""

import json
from pathlib import Path

from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from tunesmith.errors import InvalidData

PLAIN_CLASSES = ("PreTrainedTokenizerFast", "TokenizersBackend")
"""Tokenizers that are their tokenizer.json and no more. AutoTokenizer makes the same object, but reads the model's configuration
first, which imports model code: 1.8 s."""

PLAIN_TEMPLATE = (
    "{%- if tools -%}{{- 'Tools:' -}}{%- for tool in tools -%}{{- '\\n' + (tool | tojson) -}}{%- endfor -%}"
    "{{- '\\nCall a tool as <tool_call>{\"name\": NAME, \"arguments\": OBJECT}</tool_call>\\n\\n' -}}{%- endif -%}"
    "{%- for message in messages -%}"
    "{%- if message.role == 'assistant' -%}"
    "{{- 'Assistant:\\n' -}}{%- generation -%}{{- message.content -}}"
    "{%- for call in message.tool_calls or [] -%}"
    "{{- ('\\n' if message.content or not loop.first else '') + '<tool_call>\\n{\"name\": \"' + call.function.name -}}"
    "{{- '\", \"arguments\": ' + (call.function.arguments | tojson) + '}\\n</tool_call>' -}}"
    "{%- endfor -%}"
    "{{- eos_token -}}{%- endgeneration -%}{{- '\\n\\n' -}}"
    "{%- else -%}{{- message.role.capitalize() + ':\\n' + message.content + '\\n\\n' -}}{%- endif -%}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- 'Assistant:\\n' -}}{%- endif -%}"
)
"""For a base without a chat template, such as Pythia: plain words and the base's own end token, so that no token is untrained."""


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """The tokenizer of the base in `folder`, with a chat template and a padding token. Raises InvalidData if it has none."""
    try:
        if _is_plain(folder):
            tokenizer = PreTrainedTokenizerFast.from_pretrained(folder, local_files_only=True)
        else:
            tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise InvalidData(f"{folder} has no tokenizer that can be loaded: {error}.", hint="Add its tokenizer.json.") from error
    if tokenizer.eos_token is None:
        raise InvalidData(f"The tokenizer in {folder} has no end token.", hint="Set eos_token in tokenizer_config.json.")
    if tokenizer.pad_token is None:
        # Only to fill batches: what trains is told by the loss mask, so the end token is still learned.
        tokenizer.pad_token = tokenizer.eos_token
    if not tokenizer.chat_template:
        tokenizer.chat_template = PLAIN_TEMPLATE
    return tokenizer


def _is_plain(folder: Path) -> bool:
    config = folder / "tokenizer_config.json"
    if not config.is_file() or not (folder / "tokenizer.json").is_file():
        return False
    told = json.loads(config.read_text())
    return isinstance(told, dict) and told.get("tokenizer_class") in PLAIN_CLASSES
