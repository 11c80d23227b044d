"""What every test needs: measurements of one test are no news to another, nor to the user."""

from __future__ import annotations

import hashlib

import pytest


@pytest.fixture(autouse=True)
def cache_of_its_own(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    name = hashlib.blake2b(request.node.nodeid.encode(), digest_size=8).hexdigest()
    monkeypatch.setenv("SMDLENS_CACHE", str(tmp_path_factory.getbasetemp() / "caches" / name))
