"""Figures: inline SVG for the HTML report, PDF, SVG and PNG for a paper."""
