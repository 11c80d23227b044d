r"""Makes text that came out of a file safe to show: tensor names, paths, notes, messages.

A tensor name is attacker-controlled: it may hold terminal escapes, markup, bidirectional overrides
or CI commands. `for_terminal` replaces what is dangerous with visible escapes such as `\x1b`; the
other functions add what their target needs. All are idempotent on ordinary names (identity).
"""

from __future__ import annotations

import html
import unicodedata
from collections.abc import Collection

# Control, format (bidi, zero width), surrogate, private, unassigned; line and paragraph separators;
# combining marks, which can be stacked over neighbouring lines.
_UNSAFE_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp", "Mn", "Me"})
# Openers of commands that CI services read out of logs.
_CI_OPENERS = (("::", ":\\x3a"), ("##", "#\\x23"))
# "&", ";" and what makes entities themselves stay: `for_html` comes first.
_MARKDOWN_SYNTAX = frozenset("\\`*_{}[]()~|!$@:")
_FORMULA_OPENERS = ("=", "+", "-", "@")


def _escape(char: str) -> str:
    code = ord(char)
    if code <= 0xFF:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"


def _is_unsafe(char: str) -> bool:
    if char.isascii():
        return not char.isprintable()
    category = unicodedata.category(char)
    return category in _UNSAFE_CATEGORIES or category == "Zs"


def for_terminal(text: str) -> str:
    """`text` on one line without control, bidi or CI command sequences.

    It may still hold `[` and `]`: hand it to rich as `Text`, never as markup.
    """
    if any(map(_is_unsafe, text)):
        text = "".join(_escape(c) if _is_unsafe(c) else c for c in text)
    for opener, escaped in _CI_OPENERS:
        while opener in text:  # ":::" holds a second opener once the first is gone
            text = text.replace(opener, escaped)
    return text


def for_html(text: str) -> str:
    """`text` for HTML content and quoted attributes."""
    return html.escape(for_terminal(text), quote=True)


def for_xml(text: str) -> str:
    """`text` for XML content and quoted attributes; characters XML forbids are escaped visibly."""
    return for_html(text)


def for_markdown(text: str) -> str:
    """`text` for Markdown and its tables: punctuation becomes entities, which are no syntax."""
    return "".join(f"&#{ord(c)};" if c in _MARKDOWN_SYNTAX else c for c in for_html(text))


def for_json(text: str) -> str:
    """`text` unchanged, but for lone surrogates, which are no Unicode text and break parsers."""
    if text.isascii():
        return text
    return "".join(_escape(c) if 0xD800 <= ord(c) <= 0xDFFF else c for c in text)


def for_figure(text: str) -> str:
    """`text` for matplotlib, where a dollar sign would start a formula."""
    return for_terminal(text).replace("$", r"\$")


def for_csv(text: str) -> str:
    """`text` for a CSV cell: a spreadsheet must not read it as a formula.

    Quoting is the writer's task; a leading apostrophe is what spreadsheets take as "text".
    """
    safe = for_terminal(text)
    return "'" + safe if safe.lstrip().startswith(_FORMULA_OPENERS) else safe


def for_annotation(text: str) -> str:
    """`text` for the properties and message of a CI annotation (`::error file=...::message`)."""
    safe = for_terminal(text)
    for char, code in (("%", "%25"), (":", "%3A"), (",", "%2C")):
        safe = safe.replace(char, code)
    return safe


def shorten(text: str, width: int, ellipsis: str = "…", head: int | None = None) -> str:
    """`text` in at most `width` characters, cut in the middle: both ends matter.

    `head` characters stay in front of the cut, a third of all unless given.
    """
    if len(text) <= width:
        return text
    if width <= len(ellipsis):
        return text[:width]
    keep = width - len(ellipsis)
    head = keep // 3 if head is None else min(head, keep)
    return text[:head] + ellipsis + text[len(text) - (keep - head) :]


def distinct_head(texts: Collection[str], width: int, ellipsis: str = "…") -> int:
    """Where to cut texts that stand below one another so that most of them stay apart.

    As near to a third of what is kept as tells the most of them apart.
    """
    keep = max(width - len(ellipsis), 0)
    usual, different = keep // 3, set(texts)

    def merged(head: int) -> int:
        return -len({shorten(text, width, ellipsis, head) for text in different})

    return min(range(keep + 1), key=lambda head: (merged(head), abs(head - usual)))
