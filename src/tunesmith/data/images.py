"""Images in a row's messages: which parts of a content are kept as they are, and what is wrong with one. Opens none of them.

OpenAI's limits: JPEG, PNG or WEBP, at most 10 MB each, at most 10 in an example, in the user's messages only.
"""

import re
from typing import Any

from tunesmith.errors import InvalidData
from tunesmith.types import Message

MAX_IMAGES = 10
MAX_BYTES = 10 * 1024 * 1024
DATA_URL = re.compile(r"data:image/(jpeg|png|webp);base64,[A-Za-z0-9+/]*={0,2}")
DETAILS = ("auto", "low", "high")


def has_image(content: Any) -> bool:
    """Is this a list of parts of which one is an image?"""
    return isinstance(content, list) and any(isinstance(part, dict) and part.get("type") == "image_url" for part in content)


def to_parts(content: list[Any], number: int) -> list[dict[str, Any]]:
    """Text and image parts in normal form. Raises InvalidData naming the message by its number."""
    return [_part(part, number) for part in content]


def _part(part: Any, number: int) -> dict[str, Any]:
    if isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str):
        return {"type": "text", "text": part["text"]}
    image = part.get("image_url") if isinstance(part, dict) and part.get("type") == "image_url" else None
    if not isinstance(image, dict) or not isinstance(image.get("url"), str):
        raise InvalidData(f"Message {number} has a content part that is neither text nor an image with a url.")
    url, detail = image["url"], image.get("detail")
    if not url.startswith("https://") and not DATA_URL.fullmatch(url):
        raise InvalidData(f"Message {number} has an image that is neither at https:// nor a data URL of JPEG, PNG or WEBP.")
    if url.startswith("data:") and len(url.partition(",")[2]) * 3 // 4 > MAX_BYTES:
        raise InvalidData(f"Message {number} has an image of more than {MAX_BYTES // 1024 // 1024} MB.")
    if detail is not None and detail not in DETAILS:
        raise InvalidData(f"Message {number} has an image with the detail {detail!r}; it may be {', '.join(DETAILS)}.")
    return {"type": "image_url", "image_url": {"url": url} | ({} if detail is None else {"detail": detail})}


def check_count(messages: list[Message]) -> None:
    """Raises InvalidData for an example with too many images."""
    contents = [message["content"] for message in messages if has_image(message["content"])]
    count = sum(part["type"] == "image_url" for content in contents for part in content)
    if count > MAX_IMAGES:
        raise InvalidData(f"It holds {count} images; at most {MAX_IMAGES} may be in an example.")
