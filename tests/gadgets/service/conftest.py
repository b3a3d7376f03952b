"""A server that several tests share."""

import pytest
from served import QUICK, Served


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Chains that only this server has."""
    folder = tmp_path_factory.mktemp("chains")
    (folder / "quick.xml").write_text(QUICK.xml)
    fail = QUICK.xml.replace("gadgets.score_recon", "targets")
    (folder / "fail.xml").write_text(fail.replace("reconstruct_acquisitions", "fail"))
    (folder.parent / "outside.xml").write_text(QUICK.xml)
    return folder


@pytest.fixture(scope="module")
def served(folder):
    with Served(chains=str(folder)) as running:
        yield running
