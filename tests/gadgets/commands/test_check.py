import os
import shutil
import subprocess
import sys

import pytest

from gadgets.protocol.gadgetron.chain import SHIPPED, known

NODE = "gadgets.score_recon", "reconstruct_acquisitions"


@pytest.fixture
def written(tmp_path, monkeypatch):
    """Write a chain of nodes (module, target) with properties, and modules next to it."""
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


@pytest.fixture(autouse=True)
def no_gadgetron(monkeypatch, tmp_path):
    """What this machine has of Gadgetron is not looked at."""
    monkeypatch.delenv("GADGETRON_HOME", raising=False)
    which = shutil.which
    monkeypatch.setattr(shutil, "which", lambda name: None if name == "gadgetron" else which(name))


@pytest.fixture
def home(tmp_path, monkeypatch):
    """The folder of chains of a Gadgetron server that $GADGETRON_HOME names."""
    folder = tmp_path / "home" / "share" / "gadgetron" / "config"
    folder.mkdir(parents=True)
    monkeypatch.setenv("GADGETRON_HOME", str(tmp_path / "home"))
    return folder


@pytest.mark.parametrize("name", [name for name in known() if name.startswith("score_recon")])
def test_the_chains_of_the_package_can_run(run, name):
    code, out, err = run("check", name)
    assert (code, err) == (0, "")
    assert f"config/{name}\n" in out
    assert sys.executable in out
    for line in ("Python ", "torch ", "device ", "node "):
        assert line in out


def test_parts_that_need_a_server_are_reported_without_an_error(run):
    code, out, _ = run("check", "score_recon_generic")
    assert code == 0
    assert "NoiseAdjustGadget needs a Gadgetron server" in out
    assert "reconstruct_buffers: ok" in out
    code, out, _ = run("check", "score_recon_resident")
    assert code == 0
    assert "connects to port 18000, where scoremri serve must be running" in out


def test_a_python_other_than_the_servers_is_reported(run, tmp_path, monkeypatch):
    python = tmp_path / "python"
    python.touch(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    code, out, _ = run("check", "score_recon")
    assert code == 0
    assert f"first on its PATH: {python}" in out


@pytest.mark.parametrize(
    ("node", "words"),
    [
        (("absent", "run"), "no module 'absent' on sys.path ("),
        (("absent.inner", "run"), "no module 'absent' on sys.path ("),
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
    assert f"{'.'.join(node)}: cannot run" in out


def test_a_missing_module_is_reported_with_instructions(run, written, tmp_path):
    _, _, err = run("check", written(("absent", "run")))
    assert str(tmp_path) in err
    assert f"install it for {sys.executable}, or put its folder on PYTHONPATH" in err


def test_custom_modules_are_loaded_and_their_properties_not_checked(run, written):
    modules = {"foreign": "def run(connection): pass\nclass Node:\n    def handle(self, c): pass"}
    code, out, _ = run(
        "check", written(("foreign", "run"), ("foreign", "Node"), modules=modules, colour="red")
    )
    assert code == 0
    assert out.count(": ok") == 2


def test_every_problem_is_one_sentence(run, written):
    path = written(NODE, ("absent", "run"), sample=3, sampler="magic", steps="20")
    code, _, err = run("check", path)
    assert code == 2
    unknown, bad, absent = err.splitlines()
    assert "unknown property 'sample' (did you mean 'samples'?): known are sampler" in unknown
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
def test_missing_device_and_prior_are_reported(run, written, properties, words):
    code, _, err = run("check", written(NODE, **properties))
    assert code == 2
    assert words in err
    assert err.count("\n") == 1


def test_an_unused_prior_is_not_loaded(run, written):
    assert run("check", written(NODE, prior="nope", sampler="none"))[0] == 0


def test_invalid_chains_are_refused(run, tmp_path):
    assert run("check", "nope")[0] == 2
    path = tmp_path / "legacy.xml"
    path.write_text('<gadgetronStreamConfiguration xmlns="http://gadgetron.sf.net/gadgetron"/>')
    code, out, err = run("check", path)
    assert (code, out) == (2, "")
    assert "legacy" in err


def test_a_python_without_torch_is_one_sentence(tmp_path):
    """The Python of a Gadgetron server, say: the case that the command is for."""
    (tmp_path / "torch.py").write_text("raise ModuleNotFoundError('no', name='torch')")
    done = subprocess.run(
        [sys.executable, "-m", "scoremri_core", "check", "score_recon.xml"],
        env={**os.environ, "PYTHONPATH": str(tmp_path)}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr == (
        f"scoremri: {sys.executable} has no module 'torch', which scoremri needs: "
        "pip install scoremri\n"
    )
    assert "reconstruct_acquisitions: cannot run" in done.stdout


def test_a_broken_library_is_reported_with_its_error(run, monkeypatch, tmp_path):
    for name in [n for n in sys.modules if n.partition(".")[0] == "torch"]:
        monkeypatch.delitem(sys.modules, name)
    (tmp_path / "torch.py").write_text("raise OSError('libcudart.so.12: cannot open')")
    monkeypatch.syspath_prepend(tmp_path)
    code, _, err = run("check", "score_recon.xml")
    assert (code, err.count("\n")) == (2, 1)
    assert "import failed: OSError: libcudart.so.12" in err


def test_a_name_is_looked_up_where_gadgetron_looks(run, home):
    """Of the package's name, but not the package's: what the server runs is what is checked."""
    text = (SHIPPED / "score_recon.xml").read_text()
    (home / "score_recon.xml").write_text(text.replace('"seed" value="0"', '"sede" value="0"'))
    (home / "mine.xml").write_text(text)
    code, out, err = run("check", "score_recon.xml")
    assert code == 2
    assert f"chain   {home / 'score_recon.xml'}\n" in out
    assert f"differs from the installed version, {SHIPPED / 'score_recon.xml'}" in out
    assert "unknown property 'sede'" in err
    for name in ("mine.xml", "mine"):
        code, out, _ = run("check", name)
        assert code == 0
        assert f"chain   {home / 'mine.xml'}\n" in out


def test_a_chain_missing_in_gadgetron_is_reported_with_instructions(run, home, tmp_path):
    code, out, err = run("check", "score_recon.xml")
    assert (code, out) == (2, "")
    assert f"'score_recon.xml' is not in {home}, where Gadgetron looks" in err
    assert f"copy {SHIPPED / 'score_recon.xml'} there" in err
    (home / "mine.xml").touch()
    assert "known there are mine.xml" in run("check", "nope.xml")[2]
    assert run("check", SHIPPED / "score_recon.xml")[0] == 0  # a path is a path


def test_gadgetrons_home_is_found_by_its_program(run, home, monkeypatch):
    monkeypatch.delenv("GADGETRON_HOME")
    program = home.parents[2] / "bin" / "gadgetron"
    monkeypatch.setattr(shutil, "which", lambda name: program if name == "gadgetron" else None)
    assert f"is not in {home}," in run("check", "score_recon.xml")[2]


@pytest.mark.parametrize("gadget", ["FloatToUShortGadget", "FloatToShortGadget"])
def test_a_chain_that_crashes_gadgetron_is_reported(run, tmp_path, gadget):
    text = (SHIPPED / "score_recon_dicom.xml").read_text()
    (tmp_path / "old.xml").write_text(text.replace("FloatToUIntGadget", gadget))
    code, _, err = run("check", tmp_path / "old.xml")
    assert (code, err.count("\n")) == (2, 1)
    assert f"{gadget} before DicomFinishGadget crashes Gadgetron" in err
