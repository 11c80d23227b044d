"""Colours of figures and page, by what they mean; both themes keep their contrast.

The series are those of Okabe and Ito, which stay apart under every common colour blindness; line
styles and labels say the same again. Light values double as marks: the SVG writer's hexadecimal
colours become CSS variables, so that one figure serves both themes.
"""

from __future__ import annotations

LIGHT = {
    "ink": "#1c2733",
    "soft": "#53606d",
    "rule": "#c5ccd3",
    "page": "#fdfdfc",
    "card": "#f3f4f2",
    "accent": "#00629b",
    "measured": "#0072b2",
    "expected": "#c44e00",
    "relaxed": "#00785a",
    "spread": "#56b4e8",
    "bad": "#b3261e",
    "warn": "#8a5a00",
    "open": "#1f6a85",
    "good": "#1a6b45",
}
DARK = {
    "ink": "#e8eaed",
    "soft": "#a9b2bb",
    "rule": "#48515b",
    "page": "#14181c",
    "card": "#1e242a",
    "accent": "#7cc4f2",
    "measured": "#5ab8ef",
    "expected": "#ff9a52",
    "relaxed": "#3fcfa2",
    "spread": "#2f7fb0",
    "bad": "#ff8a80",
    "warn": "#f2c14e",
    "open": "#7fd3ee",
    "good": "#7ddba8",
}
# Cells of the heat map: below and above equilibrium, red, green and blue from 0 to 1.
BELOW, ABOVE = (0.04, 0.40, 0.70), (0.83, 0.37, 0.0)
NEUTRAL = (0.5, 0.5, 0.5, 0.16)


def css() -> str:
    """Custom properties for both themes; print is always light."""
    light = _properties(LIGHT)
    dark = _properties(DARK)
    return (
        f":root{{color-scheme:light dark;{light}}}"
        f"@media screen and (prefers-color-scheme:dark){{:root{{{dark}}}}}"
    )


def _properties(colours: dict[str, str]) -> str:
    return "".join(f"--{name}:{value};" for name, value in colours.items())
