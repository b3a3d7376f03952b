"""The experiments of Jalal et al. 2021 and Ramzi et al. 2020."""

from __future__ import annotations

import itertools
import logging
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated

import typer

from gadgets.commands.options import Device, Prior, Seed, choice
from gadgets.commands.progress import progress
from scoremri_core.errors import InputError
from scoremri_core.studies.compare import PRESETS
from scoremri_core.studies.methods import NETWORKS, POSTERIOR_MEAN

logger = logging.getLogger(__name__)


def compare(
    data: Annotated[
        list[Path],
        typer.Option(metavar="PATH", help="Volumes with a manifest, as for `train`. Repeatable."),
    ],
    output: Annotated[
        Path,
        typer.Option(
            "-o", "--output", metavar="FOLDER", help="Results; an existing run is resumed."
        ),
    ],
    scans: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="PATH",
            help="Fully sampled head scans (ISMRMRD). Repeatable.",
            show_default="none",
        ),
    ] = None,
    anatomy: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="PATH",
            help="Fully sampled scans, or NIfTI volumes, of other anatomy. Repeatable.",
            show_default="none",
        ),
    ] = None,
    preset: Annotated[
        str,
        choice(
            PRESETS,
            "--preset",
            help="Size of the experiment; default takes two hours on two cores.",
        ),
    ] = PRESETS[0],
    network: Annotated[
        list[str] | None,
        choice(NETWORKS, "--network", help="Network to train. Repeatable.", show_default="all"),
    ] = None,
    minutes: Annotated[
        float | None,
        typer.Option(
            metavar="MINUTES",
            min=0.01,
            help="Training time of each network.",
            show_default="the preset's",
        ),
    ] = None,
    slices: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="Slices of each scan.", show_default="the preset's"),
    ] = None,
    samples: Annotated[
        int | None,
        typer.Option(
            metavar="N", min=2, help="Number of posterior samples.", show_default="the preset's"
        ),
    ] = None,
    cache: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Prepared slices.", show_default="FOLDER/cache"),
    ] = None,
    weights: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Trained networks.", show_default="FOLDER/weights"),
    ] = None,
    prior: Prior = "default",
    seed: Seed = 0,
    device: Device = "auto",
) -> None:
    """Train and compare methods under distribution shifts.

    L1-wavelet, ConvDecoder, E2E-VarNet, MoDL, UPDNet and the posterior mean, in distribution and
    with other accelerations, masks, contrasts, anatomy and scanners. Writes report.md, rows.jsonl,
    figures and an animation. A run in the same folder is resumed.
    """
    from scoremri_core import load_prior
    from scoremri_core.paths import check_writable, replacing
    from scoremri_core.recon.request import find_device
    from scoremri_core.studies.compare.gallery import Gallery
    from scoremri_core.studies.compare.presets import find_preset
    from scoremri_core.studies.compare.report import written
    from scoremri_core.studies.compare.scores import Scores
    from scoremri_core.studies.compare.trials import SHIFTS, find_scans, trials
    from scoremri_core.studies.methods.examples import Examples
    from scoremri_core.studies.methods.networks import build, train_all
    from scoremri_core.studies.methods.peers import samplers
    from scoremri_core.studies.methods.registry import comparison_methods, posterior_mean
    from scoremri_core.training.manifest import find_sources, select_split
    from scoremri_core.training.slices import load_slices

    size = find_preset(preset)
    size = replace(
        size,
        training=replace(size.training, seed=seed, minutes=minutes or size.training.minutes),
        slices=slices or size.slices,
        samples=samples or size.samples,
    )
    networks = tuple(dict.fromkeys(network or NETWORKS))
    where = find_device(device)
    for name in networks:  # reports a missing package before anything is read
        build(name, size.training.options.get(name, {}))
    check_writable(output / "report.md", new_folder=True)
    sources = find_sources(data)
    training = select_split(sources, "train")
    denoiser = load_prior(prior)
    cache, weights = cache or output / "cache", weights or output / "weights"
    found = find_scans(sources, scans or [], anatomy or [], size, cache, seed)
    excluded = {path.resolve() for path in anatomy or []}
    training = [source for source in training if source.path.resolve() not in excluded]
    output.mkdir(parents=True, exist_ok=True)
    settings = asdict(size) | {"prior": prior, "seed": seed, "networks": list(networks)}
    scores = Scores(output / "rows.jsonl", settings)

    def examples() -> Examples:
        with progress("preparing", len(training)) as advance:
            loaded = load_slices(training, cache, lambda n: advance(n, ""))
        options = size.training
        return Examples(
            loaded,
            options.pool,
            options.side,
            options.coils,
            options.calibration,
            options.accelerations,
            seed,
        )

    with progress("training", len(networks)) as advance:
        networks_trained = train_all(networks, examples, size.training, weights, where, advance)
    by_name = comparison_methods(
        networks_trained, denoiser, size.samples, size.decoder_iterations, where
    )
    todo = list(trials(found, size))
    gallery = Gallery(output / "images", todo, found, size.acceleration)
    total = sum(len(found.by_name[trial.scan].slices) for trial in todo) * len(by_name)
    with progress("reconstructing", total) as advance:
        count = itertools.count(len(scores.rows))
        scores.run(
            found, todo, by_name, seed, lambda what: advance(next(count), what), gallery.keep
        )
    rows = list(scores.rows.values())
    if all(row.error for row in rows):
        raise InputError(f"none of {len(rows)} reconstructions succeeded: {rows[0].error}")
    figures = gallery.draw(output, rows, list(by_name))
    with progress("samples for the figures", None):
        figures += gallery.draw_samples(
            output,
            found,
            lambda problem: posterior_mean(problem, denoiser, size.pictured, str(where)),
            seed,
        )

    others = samplers(denoiser, size.samples, size.peer_steps, where) if size.peer_steps else {}
    peer_scores = Scores(output / "peers.jsonl", settings)
    in_distribution = [
        t for t in todo if t.shift == SHIFTS[0] and t.acceleration == size.acceleration
    ]
    with progress(
        "DeepInverse samplers", len(in_distribution) * size.slices * len(others)
    ) as advance:
        count = itertools.count()
        peer_scores.run(
            found,
            in_distribution if others else [],
            others | {POSTERIOR_MEAN: by_name[POSTERIOR_MEAN]},
            seed,
            lambda what: advance(next(count), what),
        )
    text = "\n".join(
        written(
            rows, list(peer_scores.rows.values()), networks_trained, list(by_name), preset, size
        )
    )
    with replacing(output / "report.md") as partial:
        partial.write_text(text + "\n")
    typer.echo(text)
    logger.info("figures: %s", ", ".join(str(path) for path in figures))
