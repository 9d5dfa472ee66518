"""A data folder of the test's own, and a local web server."""

import pytest
from faulty_server import serving


@pytest.fixture(autouse=True)
def data_folder(tmp_path, monkeypatch):
    """The cache of this test; proxies and switches of the surrounding shell are taken away."""
    for name in ("HYBRIDRL_OFFLINE", "MINARI_REMOTE", "MINARI_DATASETS_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1,localhost")
    monkeypatch.setenv("HYBRIDRL_DATA", str(tmp_path / "data root"))
    return tmp_path / "data root"


@pytest.fixture
def server():
    with serving() as running:
        yield running
