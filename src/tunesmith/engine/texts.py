"""Prompts and texts as tokens: what clients send becomes token ids, also for /tokenize and /detokenize. Computes nothing."""

from typing import Any

from aiohttp import web

from tunesmith.data.chat_template import encode_conversation, piece_ids, prompt_ids, text_ids
from tunesmith.data.messages import to_messages, to_tools
from tunesmith.engine.completions import Prompt
from tunesmith.engine.events import read_json_body
from tunesmith.engine.identity import FindAdapter
from tunesmith.engine.parsing import parse
from tunesmith.engine.requests import DetokenizeRequest, TokenizeRequest
from tunesmith.engine.responses import Json
from tunesmith.engine.vocabulary import Vocabulary
from tunesmith.errors import InvalidData, InvalidRequest
from tunesmith.types import Message


def chat_prompt(vocabulary: Vocabulary, messages: list[Message], tools: list[dict[str, Any]]) -> list[int]:
    """Ids of a conversation. Raises InvalidRequest."""
    try:
        return prompt_ids(vocabulary.tokenizer, messages, tools or None)
    except InvalidData as error:
        raise InvalidRequest(error.message, hint=error.hint, param="messages", code="invalid_value") from error


def whole_ids(vocabulary: Vocabulary, messages: list[Message], tools: list[dict[str, Any]]) -> list[int]:
    """Ids of a conversation up to the end of its last message, an answer, as training has them. Raises InvalidRequest."""
    try:
        return encode_conversation(vocabulary.tokenizer, to_messages(messages), to_tools(tools))[-1].ids
    except InvalidData as error:
        raise InvalidRequest(error.message, hint=error.hint, param="messages", code="invalid_value") from error


def read_prompt(vocabulary: Vocabulary, prompt: str | list[int], param: str) -> Prompt:
    """A text or token ids, in the field `param`, as both. Raises InvalidRequest."""
    if isinstance(prompt, str):
        tokens, text = text_ids(vocabulary.tokenizer, prompt), prompt
    else:
        check_tokens(vocabulary, prompt, param)
        tokens, text = prompt, vocabulary.decode(prompt)
    if not tokens:
        raise InvalidRequest(f"The {param} is empty.", hint="Send at least one token.", param=param, code="invalid_value")
    return Prompt(text, tokens)


def check_tokens(vocabulary: Vocabulary, tokens: list[int], param: str) -> None:
    if any(not 0 <= token < len(vocabulary) for token in tokens):
        message = f"The {param} holds a token beyond the vocabulary of {len(vocabulary)}."
        raise InvalidRequest(message, param=param, code="invalid_value")


class Texts:
    """The two endpoints of the tokenizer, in vLLM's shapes."""

    def __init__(self, vocabulary: Vocabulary, max_positions: int, find_adapter: FindAdapter):
        self._vocabulary = vocabulary
        self._max_positions = max_positions
        self._find_adapter = find_adapter

    def routes(self) -> list[web.RouteDef]:
        return [web.post("/tokenize", self.tokenize), web.post("/detokenize", self.detokenize)]

    async def tokenize(self, http: web.Request) -> web.Response:
        request = parse(TokenizeRequest, await read_json_body(http))
        tokenizer = self._vocabulary.tokenizer
        if request.model is not None:
            self._find_adapter(request.model)
        if request.messages is not None:
            tokens = chat_prompt(self._vocabulary, request.messages, request.tools)
        elif request.add_special_tokens:
            tokens = text_ids(tokenizer, request.prompt or "")
        else:
            tokens = piece_ids(tokenizer, request.prompt or "")
        body: Json = {"count": len(tokens), "max_model_len": self._max_positions, "tokens": tokens}
        names = {"token_strs": tokenizer.convert_ids_to_tokens(tokens)} if request.return_token_strs else {}
        return web.json_response(body | names)

    async def detokenize(self, http: web.Request) -> web.Response:
        request = parse(DetokenizeRequest, await read_json_body(http))
        if request.model is not None:
            self._find_adapter(request.model)
        check_tokens(self._vocabulary, request.tokens, "tokens")
        text = self._vocabulary.tokenizer.decode(request.tokens, clean_up_tokenization_spaces=False)
        return web.json_response({"prompt": text})
