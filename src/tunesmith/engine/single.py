"""Any other decoder, one request at a time, with its own cache: recurrent states, positions in masks, whatever it needs."""

import torch

from tunesmith.engine.adapters import Grouping, Target
from tunesmith.engine.batch import Batch
from tunesmith.engine.cache import RowCache
from tunesmith.engine.module import set_rows, wrapped
from tunesmith.errors import EngineFailed

CACHE_NAMES = ("past_key_values", "cache_params")
"""How families name what they carry from one call to the next."""


class Single:
    """Keeps the state of the one row that is being computed."""

    def __init__(self, module: torch.nn.Module):
        self.module = module
        config = module.config.get_text_config()
        self.device, self.dtype = module.device, module.dtype
        self.num_layers, self.vocab_size = 0, int(config.vocab_size)
        self.key_order: torch.Tensor | None = None
        self.grouping = Grouping()
        self._state: dict[str, object] = {}
        self._seen = 0

    def find(self, name: str) -> Target | None:
        return wrapped(self.module, name, self.grouping)

    def compute(
        self, batch: Batch, cache: RowCache, wanted_R: torch.Tensor, embeds_ND: torch.Tensor | None = None, hidden: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Logits [R, V] of the wanted tokens, and the last hidden states [N, width]. `cache` is not used."""
        (row,) = batch.rows
        if row.start == 0:
            self._state, self._seen = {}, 0
        if row.start != self._seen:
            raise EngineFailed("The state of this request is lost.", hint="Ask again.")
        set_rows(self.grouping, batch.rows)
        output = self.module(input_ids=batch.ids_N[None], use_cache=True, output_hidden_states=hidden, **self._state)
        self._state = {name: output[name] for name in CACHE_NAMES if name in output}
        self._seen = row.start + len(row.ids)
        return output.logits[0, wanted_R], output.hidden_states[-1][0] if hidden else None
