"""Names and texts that anybody may have recorded, made fit for a folder, a figure and a terminal."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from typing import Any

_LONGEST = 100  # bytes of a name; a file system allows 255
_NOT_IN_NAMES = re.compile(r"[^\w.+-]")
# Control characters and halves of a surrogate pair: an SVG may not hold them, UTF-8 cannot, a terminal obeys them.
_UNREADABLE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


def folder_name(name: str) -> str:
    """A name as a folder or a file can have it: itself, or else what is left of it and its digest."""
    kept = _NOT_IN_NAMES.sub("_", name).lstrip(".+-")
    if kept == name != "" and len(kept.encode()) <= _LONGEST:
        return name
    digest = hashlib.sha256(name.encode(errors="surrogatepass")).hexdigest()[:8]
    cut = kept.encode()[: _LONGEST - 1 - len(digest)].decode(errors="ignore")
    return f"{cut}-{digest}" if cut else digest


def some(values: Sequence[str], most: int = 6) -> str:
    """A list in a sentence, with the rest of a long one counted."""
    return ", ".join(values[:most]) + (f" and {len(values) - most} more" if len(values) > most else "")


def readable(value: Any) -> Any:
    """A value as JSON has it, with every character that cannot be written or shown as its escape: \\x1b, \\udcff."""
    if isinstance(value, str):
        return _UNREADABLE.sub(lambda found: found[0].encode("unicode_escape").decode(), value)
    if isinstance(value, dict):
        return {readable(name): readable(item) for name, item in value.items()}
    return [readable(item) for item in value] if isinstance(value, list) else value
