"""The label: JSON of schema 1.1.0 that says what a scanner shows, and gives it to run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from datetime import date
from typing import Any

from gadgets.openrecon.bundle import CAUTION, NAME, PORT, SUMMARY, Bundle
from gadgets.stages.properties import NOISE_SOURCES, Properties
from scoremri_core.samplers import SAMPLERS

OUTPUTS = {
    "mean,std": "Mean and uncertainty",
    "mean": "Mean alone",
    "mean,std,phase": "Mean, uncertainty and phase",
    "mean,std,complex_std": "Mean, its uncertainty and that of the complex image",
    "mean,std,samples": "Mean, uncertainty and samples",
    "mean,std,zero_filled,classical": "Mean, uncertainty and images without a prior",
}
STEPS = ("auto", "10", "20", "40", "80")


def label(bundle: Bundle) -> dict[str, Any]:
    """The label: what the scanner shows of the reconstruction and gives it to run."""
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
    """What a user may choose at the scanner: properties of the node by their names, and the chain.

    Those that are the site's and not a scan's, such as the device and the prior, are left out.
    """
    known = {field.name: field.default for field in fields(Properties)}
    default = {name: _text(value) for name, value in known.items()}
    shown = [
        _choice("config", "Chain", "What runs.", {"score_recon": "Score-based"}, "score_recon"),
        _choice(
            "sampler",
            "Method",
            "How the posterior is sampled; none sends the classical image.",
            {name: name for name in SAMPLERS},
            default["sampler"],
        ),
        _choice(
            "outputs",
            "Images",
            "Series that are sent. Uncertainty: the standard deviation of each pixel.",
            OUTPUTS,
            default["outputs"],
        ),
        _choice(
            "maps",
            "Sets of coil maps",
            "2 where the object is larger than the field of view; auto finds out.",
            {name: name for name in ("auto", "1", "2")},
            default["maps"],
        ),
        _choice(
            "noise",
            "Noise level from",
            "The noise scan, the data themselves, or auto: the scan if there is one.",
            {name: name for name in NOISE_SOURCES},
            default["noise"],
        ),
        _choice(
            "steps",
            "Steps",
            "Noise levels of the method: more take longer; auto is the method's own.",
            {name: name for name in STEPS},
            default["steps"],
        ),
        _int("samples", "Samples", "Posterior samples of each image.", 1, 64, known["samples"]),
        _int("coils", "Virtual coils", "Compress the array to these; 0: no.", 0, 128, 0),
        _int("seed", "Seed", "Of the random numbers.", 0, 2**31 - 1, known["seed"]),
    ]
    if "scale" in known:
        shown.append(
            _choice(
                "scale",
                "Scale",
                "One factor for all images of a scan, since scanners keep whole numbers.",
                {"auto": "auto", "off": "off"},
                "auto",
            )
        )
    return shown


def _text(value: Any) -> str:
    """A property's value as a chain's XML would write it."""
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
        "values": [{"id": each, "name": {"en": words}} for each, words in values.items()],
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
