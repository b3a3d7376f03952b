"""OpenRecon label, JSON of schema 1.1.0: user interface and requirements."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from datetime import date
from typing import Any

from gadgets.openrecon.bundle import CAUTION, NAME, PORT, SUMMARY, Bundle
from gadgets.stages.properties import NOISE_SOURCES, Properties
from scoremri_core.samplers import SAMPLERS

OUTPUTS = {  # without the complex ones: the injector "image" of the label takes real images
    "mean,std": "Mean and uncertainty",
    "mean": "Mean only",
    "mean,std,phase": "Mean, uncertainty and phase",
    "mean,std,complex_std": "Mean, uncertainty and complex uncertainty",
    "mean,std,samples": "Mean, uncertainty and samples",
    "mean,std,quantiles": "Mean, uncertainty and quantiles",
    "mean,std,g_factor": "Mean, uncertainty and g-factor",
    "mean,std,zero_filled,classical": "Mean, uncertainty, zero-filled and classical",
}
STEPS = ("auto", "10", "20", "40", "80")


def label(bundle: Bundle) -> dict[str, Any]:
    """Return the label of a bundle."""
    cuda = bundle.device == "cuda"
    return {
        "general": {
            "name": {"en": NAME},
            "version": bundle.version,
            "vendor": bundle.vendor,
            "information": {"en": f"{SUMMARY} {CAUTION}"},
            "id": NAME,
            "regulatory_information": {
                "device_trade_name": NAME,
                "production_identifier": bundle.version,
                "manufacturer_address": "",
                "made_in": "",
                "manufacture_date": date.today().isoformat(),
                "material_number": f"{NAME}_{bundle.version}",
                "gtin": "",
                "udi": "",
                "safety_advices": CAUTION,
                "special_operating_instructions": "See the manual.",
                "additional_relevant_information": "",
            },
        },
        "reconstruction": {
            "transfer_protocol": {"protocol": "ISMRMRD", "version": "1.4.1"},
            "port": PORT,
            "emitter": "raw",
            "injector": "image",
            "can_process_adjustment_data": False,
            "can_use_gpu": cuda,
            "min_count_required_gpus": int(cuda),
            "min_required_gpu_memory": 4096 if cuda else 0,
            "min_required_memory": 8192,
            "min_count_required_cpu_cores": 2,
            "content_qualification_type": "RESEARCH",
        },
        "parameters": parameters(),
    }


def parameters() -> list[dict[str, Any]]:
    """Return the parameters shown at the scanner: chain and properties of the node.

    Properties that depend on the site, such as device and prior, are omitted.
    """
    known = {field.name: field.default for field in fields(Properties)}
    default = {name: _text(value) for name, value in known.items()}
    shown = [
        _choice(
            "config",
            "Chain",
            "Reconstruction chain.",
            {"score_recon": "Score-based"},
            "score_recon",
        ),
        _choice(
            "sampler",
            "Method",
            "Sampler; none sends the classical image.",
            {name: name for name in SAMPLERS},
            default["sampler"],
        ),
        _choice(
            "outputs",
            "Images",
            "Series to send. Uncertainty: standard deviation of each pixel.",
            OUTPUTS,
            default["outputs"],
        ),
        _choice(
            "maps",
            "Sets of coil maps",
            "2 if the object is larger than the field of view; auto detects it.",
            {name: name for name in ("auto", "1", "2")},
            default["maps"],
        ),
        _choice(
            "noise",
            "Noise level",
            "From the noise scan, from the data, or auto: the noise scan if available.",
            {name: name for name in NOISE_SOURCES},
            default["noise"],
        ),
        _choice(
            "steps",
            "Steps",
            "Noise levels; more take longer. auto: default of the method.",
            {name: name for name in STEPS},
            default["steps"],
        ),
        _int("samples", "Samples", "Posterior samples per image.", 1, 64, known["samples"]),
        _int("coils", "Virtual coils", "Number of coils after compression; 0: none.", 0, 128, 0),
        _int("seed", "Seed", "Random seed.", 0, 2**31 - 1, known["seed"]),
    ]
    if "scale" in known:
        shown.append(
            _choice(
                "scale",
                "Scale",
                "One factor for all images of a scan, as scanners store integers.",
                {"auto": "auto", "off": "off"},
                "auto",
            )
        )
    return shown


def _text(value: Any) -> str:
    """Format the value of a property as in the XML of a chain."""
    return "auto" if value is None else ",".join(value) if isinstance(value, tuple) else str(value)


def _shown(kind: str, name: str, title: str, information: str) -> dict[str, Any]:
    return {
        "id": name,
        "type": kind,
        "label": {"en": title},
        "information": {"en": information},
    }


def _choice(
    name: str, title: str, information: str, values: Mapping[str, str], default: str
) -> dict[str, Any]:
    return {
        **_shown("choice", name, title, information),
        "values": [{"id": value, "name": {"en": text}} for value, text in values.items()],
        "default": default,
    }


def _int(
    name: str, title: str, information: str, minimum: int, maximum: int, default: Any
) -> dict[str, Any]:
    return {
        **_shown("int", name, title, information),
        "minimum": minimum,
        "maximum": maximum,
        "default": default,
    }
