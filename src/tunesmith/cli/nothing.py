"""What a list says when there is nothing in it: on standard error, so that what reads the rows reads none."""

import sys
from collections.abc import Sized


def tell_if_none(found: Sized, sentence: str) -> None:
    """`sentence` says that there is nothing, and how there comes to be something."""
    if not found:
        print(sentence, file=sys.stderr)
