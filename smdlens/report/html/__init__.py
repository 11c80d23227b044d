"""The report as one self-contained HTML page: no network, light and dark, on paper too."""

from smdlens.report.html.page import page

__all__ = ["page"]
