"""The bar on stderr: nothing it does not know yet, and nothing left of it afterwards."""

import io
import re
import time
from contextlib import redirect_stderr

import pytest

from smdlens.cli.progress import reading_bar


class Terminal(io.StringIO):
    """What a terminal is given."""

    encoding = "utf-8"

    def isatty(self):
        return True


@pytest.fixture
def terminal(monkeypatch):
    for name in ("CI", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "80")
    return Terminal()


def words(screen):
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", screen.getvalue())


def test_no_bar_before_it_is_known_how_much_there_is(terminal):
    with redirect_stderr(terminal), reading_bar(wanted=True) as advance:
        time.sleep(0.2)  # the first picture takes a twelfth of a second
        before = words(terminal)
        advance(5_000_000, 10_000_000)
    assert "opening the run" in before
    assert "?" not in before and "bytes" not in before
    shown = words(terminal)[len(before) :]
    assert "5.0/10.0 MB" in shown and "opening" not in shown.split("reading", 1)[1]


@pytest.mark.parametrize("measured", [True, False])
def test_the_cursor_comes_back(terminal, measured):
    with (
        pytest.raises(KeyboardInterrupt),
        redirect_stderr(terminal),
        reading_bar(wanted=True) as advance,
    ):
        if measured:
            advance(1, 2)
        raise KeyboardInterrupt
    text = terminal.getvalue()
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")


def test_no_terminal_no_bar():
    screen = io.StringIO()
    with redirect_stderr(screen), reading_bar(wanted=True) as advance:
        assert advance is None
    assert screen.getvalue() == ""
