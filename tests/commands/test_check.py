import sys

import pytest

from gadgets.protocol.chain import known

NODE = "gadgets.score_recon", "reconstruct_acquisitions"


@pytest.fixture
def written(tmp_path, monkeypatch):
    """Write a chain of nodes (module, target) with properties, and modules beside it."""
    monkeypatch.syspath_prepend(tmp_path)

    def write(*nodes, modules=(), **properties):
        for name, text in dict(modules).items():
            (tmp_path / f"{name}.py").write_text(text)
        inner = "".join(f'<property name="{k}" value="{v}"/>' for k, v in properties.items())
        externals = "".join(
            f'<external><execute name="{module}" target="{target}" type="python"/>'
            f"<configuration>{inner}</configuration></external>"
            for module, target in nodes
        )
        path = tmp_path / "chain.xml"
        path.write_text(
            f"<configuration><version>2</version><stream>{externals}</stream></configuration>"
        )
        return path

    return write


@pytest.mark.parametrize("name", [name for name in known() if name.startswith("score_recon")])
def test_the_chains_of_the_package_are_well(run, name):
    code, out, err = run("check", name)
    assert (code, err) == (0, "")
    assert f"config/{name}\n" in out
    assert sys.executable in out
    for line in ("Python ", "torch ", "device ", "node "):
        assert line in out


def test_what_needs_a_server_is_said_and_is_no_problem(run):
    code, out, _ = run("check", "score_recon_generic")
    assert code == 0
    assert "NoiseAdjustGadget needs a Gadgetron server" in out
    assert "reconstruct_buffers is well" in out
    code, out, _ = run("check", "score_recon_resident")
    assert code == 0
    assert "connects to port 18000: scoremri serve must run there already" in out


def test_a_python_that_is_not_the_servers_is_told(run, tmp_path, monkeypatch):
    python = tmp_path / "python"
    python.touch(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    code, out, _ = run("check", "score_recon")
    assert code == 0
    assert f"another: {python}" in out


@pytest.mark.parametrize(
    ("node", "words"),
    [
        (("absent", "run"), "there is no module 'absent' on sys.path ("),
        (("absent.inner", "run"), "there is no module 'absent' on sys.path ("),
        (("needy", "run"), "the module imports 'absent_too', which"),
        (("broken", "run"), "the module cannot be imported: RuntimeError: no luck"),
        (("empty", "run"), "empty.py has no 'run'"),
        (("plain", "number"), "'number' is neither a function nor a class"),
        (("plain", "Bare"), "the class 'Bare' has no method handle(connection)"),
    ],
)
def test_a_node_that_cannot_be_loaded_is_one_sentence(run, written, monkeypatch, node, words):
    modules = {
        "needy": "import absent_too",
        "broken": "raise RuntimeError('no luck')",
        "empty": "",
        "plain": "number = 1\nclass Bare: pass",
    }
    for name in modules:
        monkeypatch.delitem(sys.modules, name, raising=False)
    code, out, err = run("check", written(node, modules=modules))
    assert code == 2
    assert err.startswith(f"scoremri: {'.'.join(node)}: ")
    assert words in err
    assert err.count("\n") == 1
    assert f"{'.'.join(node)} has problems" in out


def test_a_missing_module_comes_with_what_to_do(run, written, tmp_path):
    _, _, err = run("check", written(("absent", "run")))
    assert str(tmp_path) in err
    assert f"install it for {sys.executable}, or put its folder on PYTHONPATH" in err


def test_modules_of_others_are_loaded_and_their_properties_are_theirs(run, written):
    modules = {"foreign": "def run(connection): pass\nclass Node:\n    def handle(self, c): pass"}
    code, out, _ = run(
        "check", written(("foreign", "run"), ("foreign", "Node"), modules=modules, colour="red")
    )
    assert code == 0
    assert out.count("is well") == 2


def test_every_problem_is_a_sentence_of_its_own(run, written):
    path = written(NODE, ("absent", "run"), sample=3, sampler="magic", steps="20")
    code, _, err = run("check", path)
    assert code == 2
    unknown, bad, absent = err.splitlines()
    assert "unknown property 'sample': known are sampler, samples" in unknown
    assert "property sampler='magic': expected one of posterior" in bad
    assert "no module 'absent'" in absent


@pytest.mark.parametrize(
    ("properties", "words"),
    [
        ({"prior": "nope"}, "prior 'nope': expected one of default"),
        ({"prior": "/nowhere/a.safetensors"}, "/nowhere/a.safetensors: no such prior"),
        ({"device": "cuda:99"}, "device 'cuda:99': this machine has"),
    ],
)
def test_what_the_properties_ask_for_must_be_here(run, written, properties, words):
    code, _, err = run("check", written(NODE, **properties))
    assert code == 2
    assert words in err
    assert err.count("\n") == 1


def test_a_prior_that_is_not_used_is_not_loaded(run, written):
    assert run("check", written(NODE, prior="nope", sampler="none"))[0] == 0


def test_what_is_no_chain_is_refused(run, tmp_path):
    assert run("check", "nope")[0] == 2
    path = tmp_path / "legacy.xml"
    path.write_text('<gadgetronStreamConfiguration xmlns="http://gadgetron.sf.net/gadgetron"/>')
    code, out, err = run("check", path)
    assert (code, out) == (2, "")
    assert "legacy" in err
