from xml.etree import ElementTree

import pytest

from gadgets.protocol.gadgetron.chain import Chain, Node, find, known, shipped
from gadgets.stages.properties import Properties
from gadgets.stages.scaling import MAX_VALUE
from scoremri_core.errors import InputError

EXTERNAL = """<external><execute name="a.b" target="c" type="python"/>
<configuration><property name="seed" value="1"/></configuration></external>"""
GADGET = "<gadget><dll>gadgetron_mricore</dll><classname>NoiseAdjustGadget</classname></gadget>"


def chain(stream, prologue=""):
    return f"{prologue}<configuration><version>2</version><stream>{stream}</stream></configuration>"


def written(folder, text):
    path = folder / "chain.xml"
    path.write_text(text)
    return str(path)


def test_chains_are_found_by_name_and_by_path():
    path = find("score_recon.xml")
    for name in ("score_recon", "score_recon.xml", str(path)):
        (node,) = Chain.load(name).nodes()
        assert node.name == "gadgets.score_recon.reconstruct_acquisitions"


def test_an_unknown_chain_lists_the_known():
    shipped_ones = {f"score_recon{kind}.xml" for kind in ("", "_dicom", "_generic", "_resident")}
    assert shipped_ones <= set(known())
    with pytest.raises(InputError, match=f"unknown chain 'nope'.*{', '.join(sorted(known()))}"):
        Chain.load("nope")


def test_the_chains_are_those_of_the_package(tmp_path):
    package = tmp_path / "gadgets"
    (tmp_path / "config").mkdir()
    assert shipped(package) == package / "config"  # ignores the folder next to it
    for name in ("setup.cfg", "pyproject.toml"):
        (tmp_path / name).touch()
    assert shipped(package) == tmp_path / "config"
    (package / "config").mkdir(parents=True)
    assert shipped(package) == package / "config"


def test_a_chain_is_read_in_its_declared_encoding(tmp_path):
    text = chain(EXTERNAL.replace('value="1"', 'value="/Schädel"'))
    for encoding in ("ISO-8859-1", "UTF-16"):
        path = tmp_path / f"{encoding}.xml"
        path.write_bytes(f'<?xml version="1.0" encoding="{encoding}"?>{text}'.encode(encoding))
        (node,) = Chain.load(str(path)).nodes()
        assert 'value="/Schädel"' in node.configuration


def test_properties_are_set_and_added(tmp_path):
    loaded = Chain.load(written(tmp_path, chain(EXTERNAL)))
    (node,) = loaded.with_properties({"seed": "2", "prior": "<&>"}).nodes()
    assert (node.module, node.target) == ("a.b", "c")
    assert 'name="seed" value="2"' in node.configuration
    assert 'name="prior" value="&lt;&amp;&gt;"' in node.configuration
    assert loaded.nodes()[0] == Node("a.b", "c", loaded.nodes()[0].configuration)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (chain(GADGET + EXTERNAL), "NoiseAdjustGadget needs a Gadgetron server"),
        (chain(EXTERNAL.replace("python", "matlab")), "<external> needs a Gadgetron server"),
        (chain("<external><connect port='1'/></external>"), "needs a Gadgetron server"),
        (chain("<parallel/>"), "<parallel> needs a Gadgetron server"),
        (chain(EXTERNAL.replace('target="c"', "")), "lacks its name= or target="),
        (chain(""), "no <stream> with nodes"),
    ],
)
def test_parts_that_the_host_cannot_run_are_refused_by_name(tmp_path, text, message):
    with pytest.raises(InputError, match=message):
        Chain.load(written(tmp_path, text)).nodes()


def test_the_dicom_chain_scales_the_sd_with_the_mean():
    """Spelt as in the headers of FloatToFixPoint, DicomFinishGadget and DicomImageWriter."""
    chain = Chain.load("score_recon_dicom")
    root = ElementTree.fromstring(chain.xml)
    stream = [(part.findtext("dll"), part.findtext("classname")) for part in root.find("stream")]
    assert stream == [
        (None, None),
        ("gadgetron_mricore", "FloatToUIntGadget"),
        ("gadgetron_dicom", "DicomFinishGadget"),
    ]
    (writer,) = root.findall("writers/writer")
    assert (writer.findtext("dll"), writer.findtext("classname")) == (
        "gadgetron_dicom",
        "DicomImageWriter",
    )
    node = Properties.from_config(root.find("stream/external/configuration"))
    assert node == Properties(scale="auto")
    fixed = {p.get("name"): int(p.get("value")) for p in root.findall("stream/gadget/property")}
    # 15 bits for magnitude; phase is moved and spread by the offset, and must not be clipped
    assert fixed["max_intensity"] == MAX_VALUE
    assert fixed["min_intensity"] == 0
    assert 0 < 2 * fixed["intensity_offset"] <= fixed["max_intensity"]
    with pytest.raises(InputError, match="FloatToUIntGadget needs a Gadgetron server"):
        chain.nodes()


def test_the_generic_chain_prepares_readouts_as_gadgetron_does():
    """NoiseAdjust, AsymmetricEchoAdjustRO, RemoveROOversampling: Generic_Cartesian_Grappa.xml."""
    parts = [part.name for part in Chain.load("score_recon_generic").parts()]
    assert parts == [
        "NoiseAdjustGadget",
        "AsymmetricEchoAdjustROGadget",
        "RemoveROOversamplingGadget",
        "AcquisitionAccumulateTriggerGadget",
        "BucketToBufferGadget",
        "gadgets.score_recon.reconstruct_buffers",
    ]


def test_parts_are_found_in_branches(tmp_path):
    gadget = "<gadget><classname>A</classname></gadget>"
    text = chain(
        f"<parallel><branch><classname>B</classname></branch><stream>{EXTERNAL}{gadget}</stream>"
        "<merge><classname>M</classname></merge></parallel><external><connect port='7'/></external>"
    )
    parts = Chain.load(written(tmp_path, text)).parts()
    assert [part.name for part in parts] == ["B", "a.b.c", "A", "M", "<external>"]
    assert parts[-1].port == "7"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<configuration>", "not well-formed"),
        ("<configuration><stream/></configuration>", "expected a <configuration> of <version> 2"),
        (
            '<gadgetronStreamConfiguration xmlns="http://gadgetron.sf.net/gadgetron"/>',
            "legacy <gadgetronStreamConfiguration>",
        ),
        (
            chain(EXTERNAL, '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]>'),
            "<!DOCTYPE> is not allowed",
        ),
    ],
)
def test_invalid_chains_are_refused(tmp_path, text, message):
    with pytest.raises(InputError, match=message):
        Chain.load(written(tmp_path, text))
