"""Deferred scans survive kills of clients, nodes and servers: a small run of `deferred`."""

from deferred import count


def test_every_deferred_scan_is_fetched_once(tmp_path, monkeypatch):
    monkeypatch.setattr("deferred.SERVER_SECONDS", 0.5)  # killed before four scans are fetched
    counts, lost = count(4, seed=3, folder=tmp_path, kills=2)
    assert lost == {}
    assert counts["retrieved"] == 4
    assert counts["wrong"] == counts["twice"] == counts["unfinished recordings left"] == 0
    assert counts["servers killed"]
