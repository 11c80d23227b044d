"""A browser for these tests. Where there is none they fail: skipping would look like passing."""

import os
import shutil
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "report"))
_NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")


@pytest.fixture(scope="session")
def chromium():
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        pytest.fail("playwright is not installed: pip install 'smdlens[browser]'")
    asked = os.environ.get("SMDLENS_CHROMIUM")
    found = asked or next(filter(None, map(shutil.which, _NAMES)), None)
    if found is None:
        pytest.fail("no Chromium was found: install one, or name it in SMDLENS_CHROMIUM")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=found, args=["--headless", "--no-sandbox", "--disable-gpu"]
        )
        yield browser
        browser.close()


@pytest.fixture
def opened(chromium):
    """Opens a page; at the end no error, dialog or outside request may have happened."""
    contexts, trouble = [], []

    def open_page(path, **options):
        settings = {"viewport": {"width": 1200, "height": 900}, "color_scheme": "light", **options}
        context = chromium.new_context(**settings)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: trouble.append(f"error {error}"))
        page.on("dialog", lambda dialog: (trouble.append("dialog"), dialog.dismiss()))
        page.on("console", lambda message: trouble.append(f"console {message.text}"))
        page.on(
            "request",
            lambda request: (
                request.url.startswith(("file:", "data:"))
                or trouble.append(f"request {request.url}")
            ),
        )
        page.goto(f"file://{path}")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert trouble == []
