"""Spherical motion dynamics as pure formulas over float64: numpy in, numpy out, nothing of ours.

Every formula is derived or cited in docs/theory.md; references are in REFERENCES.bib.
"""
