"""Numbers with their nouns, as a person would write them."""

from __future__ import annotations


def count_of(count: int, noun: str) -> str:
    """`1 tensor`, `12,345 tensors`."""
    return f"{count:,} {noun}" + ("" if count == 1 else "s")
