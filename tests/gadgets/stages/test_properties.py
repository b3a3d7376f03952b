from xml.etree import ElementTree

import pytest

from gadgets.protocol.gadgetron.chain import Chain
from gadgets.stages.properties import Properties
from scoremri_core.errors import InputError


def test_every_property_is_read():
    values = {
        "sampler": "none",
        "samples": "3",
        "steps": "25",
        "prior": "/a/b.safetensors",
        "seed": "7",
        "device": "cuda:1",
        "maps": "2",
        "coils": "12",
        "noise": "0.5",
        "outputs": "mean, std,samples",
        "series": "10",
        "scale": "0.25",
        "capture": "/tmp/scans",
    }
    assert Properties.parse(values) == Properties(
        sampler="none",
        samples=3,
        steps=25,
        prior="/a/b.safetensors",
        seed=7,
        device="cuda:1",
        maps=2,
        coils=12,
        noise=0.5,
        outputs=("mean", "std", "samples"),
        series=10,
        scale=0.25,
        capture="/tmp/scans",
    )


@pytest.mark.parametrize("chain", ["score_recon", "score_recon_generic"])
def test_the_chains_list_the_defaults(chain):
    (configuration,) = ElementTree.fromstring(Chain.load(chain).xml).iter("external")
    element = configuration.find("configuration")
    assert Properties.from_config(element) == Properties()
    listed = {each.get("name") for each in element}
    assert listed == set(Properties.__dataclass_fields__)


@pytest.mark.parametrize("text", ["off", "auto"])
def test_scale_off_and_auto(text):
    assert Properties.parse({"scale": text}).scale == text


def test_missing_configuration_gives_the_defaults():
    assert Properties.from_config(None) == Properties()


def test_unknown_name_lists_the_known_ones():
    with pytest.raises(InputError, match=r"'sample'.*sampler, samples, steps, prior"):
        Properties.parse({"sample": "3"})


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("sampler", "magic", "posterior, langevin, .*none"),
        ("samples", "0", "from 1 to"),
        ("samples", "2.5", "whole number"),
        ("steps", "many", "auto or a whole number"),
        ("device", "tpu", "auto, cpu, cuda or cuda:N"),
        ("maps", "3", "auto, 1 or 2"),
        ("noise", "-1", "auto, scan, estimate, or a positive number"),
        ("noise", "nan", "positive number"),
        ("outputs", "mean,mean", "each once"),
        ("outputs", "mean,colour", "mean, std, phase, samples"),
        ("outputs", "", "comma-separated list"),
        ("prior", "", "a name or a path"),
        ("scale", "on", "one of off, auto, or a positive number"),
        ("scale", "0", "positive number"),
        ("scale", "inf", "positive number"),
    ],
)
def test_invalid_value_states_what_is_expected(name, value, message):
    with pytest.raises(InputError, match=message) as error:
        Properties.parse({name: value})
    assert f"{name}='{value}'" in str(error.value)


def test_property_without_value_is_refused():
    element = ElementTree.fromstring("<configuration><property name='seed'/></configuration>")
    with pytest.raises(InputError, match="name= or value="):
        Properties.from_config(element)
