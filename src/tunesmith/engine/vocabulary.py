"""Tokens as text and bytes, for answers. Knows no requests and no torch."""

import functools

from transformers import PreTrainedTokenizerBase
from transformers.convert_slow_tokenizer import bytes_to_unicode

from tunesmith.engine.text import Decode
from tunesmith.engine.tool_forms import ToolDialect


class Vocabulary:
    """A tokenizer, seen from the side of its tokens."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase):
        self.tokenizer = tokenizer
        self._special = frozenset(tokenizer.all_special_ids)
        self._bytes = {letter: byte for byte, letter in bytes_to_unicode().items()}
        self._is_byte_level = tokenizer.is_fast and "ByteLevel" in repr(tokenizer.backend_tokenizer.decoder)

    def __len__(self) -> int:
        return len(self.tokenizer)

    @functools.cached_property
    def dialect(self) -> ToolDialect:
        """How the base writes tool calls."""
        return ToolDialect(self.tokenizer)

    def decode(self, tokens: list[int]) -> str:
        """Text without special tokens."""
        return str(self.tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False))

    def decode_keeping(self, kept: frozenset[int]) -> Decode:
        """A `decode` that leaves some special tokens in the text: where those tell tool calls."""
        if not kept:
            return self.decode
        dropped = self._special - kept

        def decode(tokens: list[int]) -> str:
            said = [token for token in tokens if token not in dropped]
            return str(self.tokenizer.decode(said, skip_special_tokens=False, clean_up_tokenization_spaces=False))

        return decode

    @functools.lru_cache(maxsize=65536)  # noqa: B019  (one vocabulary lives as long as the process)
    def bytes_of(self, token: int) -> bytes:
        """The token's own bytes, which may be a part of a character; a special token's are those of its name."""
        name = str(self.tokenizer.convert_ids_to_tokens(token))
        if self._is_byte_level and token not in self._special and all(letter in self._bytes for letter in name):
            return bytes(self._bytes[letter] for letter in name)
        return str(self.tokenizer.decode([token], clean_up_tokenization_spaces=False)).encode()

    def text_of(self, token: int) -> str:
        """The token's text, with U+FFFD where it is no whole character."""
        return self.bytes_of(token).decode(errors="replace")
