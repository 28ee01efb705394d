"""Names of channels, in XML and as the client shows them: it decodes no entities, and takes numbers for numbers."""

from __future__ import annotations

import re

# What XML 1.0 cannot hold, or does not keep in attributes.
_NOT_IN_XML = re.compile("[\x00-\x1f\x7f\ufffe\uffff\ud800-\udfff]")

# What becomes a number (letters of an exponent alone do, too), and which of those look the same as before.
_NUMBER = re.compile(r"[-+]?(?:0x[0-9a-fA-F]+|(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?|\.?[eE][-+]?[0-9]+)")
_KEPT = re.compile(r"(?!-0$|-?0\.0{6}|.{17})-?(?:0|[1-9][0-9]*)(?:\.[0-9]*[1-9])?")


def usable_name(name: str) -> str:
    """A channel's name without what XML cannot hold."""
    return _NOT_IN_XML.sub(" ", name).strip()


def attribute(name: str, value: str) -> str:
    """An attribute of an element, with as few entities as can be: the client shows them as they are written."""
    value = value.replace("&", "&amp;").replace("<", "&lt;")
    quote = "'" if '"' in value and "'" not in value else '"'
    return f" {name}={quote}{value.replace(quote, '&quot;')}{quote}"


def changes(name: str) -> bool:
    """Whether the client shows another name than this one."""
    return is_shown_otherwise(attribute("", name)[3:-1])


def is_shown_otherwise(raw: str) -> bool:
    """Whether the client does not show what the XML means."""
    if "&" in raw or raw != raw.strip() or raw in {"true", "false"}:
        return True
    return bool(_NUMBER.fullmatch(raw)) and not _KEPT.fullmatch(raw)
