import socket
import struct
import threading

import ismrmrd
import numpy as np
import pytest
import synthetic
from ismrmrd import xsd
from synthetic import acquisitions, header, letter

from gadgets.protocol.gadgetron import wire
from gadgets.protocol.gadgetron.chain import Chain
from gadgets.service.client import run_remote
from gadgets.service.host import run_chain
from gadgets.stages.observer import ScanObserver
from scoremri_core.errors import InputError
from scoremri_core.priors import load_prior
from scoremri_core.simulation.simulation import SimulatedScan

SHAPE = (48, 40)


def chain(*targets, **properties):
    externals = "".join(
        f'<external><execute name="{module}" target="{target}" type="python"/>'
        "<configuration/></external>"
        for module, target in (name.rsplit(".", 1) for name in targets)
    )
    xml = f"<configuration><version>2</version><stream>{externals}</stream></configuration>"
    texts = {name: str(value) for name, value in properties.items()}
    return Chain("test", xml).with_properties(texts)


def run(*targets, scan=None, **properties):
    scan = acquisitions(letter(*SHAPE), noise=0.002) if scan is None else scan
    return list(run_chain(chain(*targets, **properties), header(*SHAPE), scan))


class Watched(ScanObserver):
    """Records the events of a scan."""

    def __init__(self):
        self.count, self.levels, self.shares = 0, set(), []

    def level_sampled(self, frames, progress):
        self.levels.add((progress.level, progress.levels))
        self.shares.append(progress.done)

    def frame_reconstructed(self, frame, result):
        self.count += 1


RECON = "gadgets.score_recon.reconstruct_acquisitions"


@pytest.mark.parametrize("shape", [(48, 40), (47, 40), (48, 39), (47, 39)])
def test_geometry(shape):
    truth = letter(*shape)
    ny = shape[0]
    center, steps = ny // 2 - 6, ny - 6  # the first lines were never acquired
    scan = acquisitions(truth, oversampling=2, center=center, steps=range(steps), noise=0.001)
    xml = header(*shape, oversampling=2, center=center, last=steps - 1)
    (image,) = run_chain(chain(RECON, sampler="none"), xml, scan)
    pixels = image.data[0, 0]
    assert pixels.shape == shape

    def resemblance(other):
        return np.corrcoef(pixels.ravel(), other.ravel())[0, 1]

    rivals = [truth[::-1], truth[:, ::-1], truth[::-1, ::-1]]
    rivals += [np.roll(truth, shift, axis) for shift in (-1, 1) for axis in (0, 1)]
    assert resemblance(truth) > 0.97
    assert resemblance(truth) > max(map(resemblance, rivals)) + 0.02


def test_counters_are_preserved():
    names = ("slice", "contrast", "phase", "repetition", "set", "average")
    counters = dict(zip(names, (3, 1, 4, 15, 9, 2), strict=True))
    scan = acquisitions(letter(*SHAPE), noise=0.002, **counters)
    (image,) = run(RECON, scan=scan, sampler="none")
    assert {name: getattr(image, name) for name in names} == counters


def test_outputs_are_series_in_order():
    scan = [
        readout
        for number in range(2)
        for readout in acquisitions(letter(*SHAPE), noise=0.002, slice=number)
    ]
    images = run(RECON, scan=scan, outputs="samples,mean,phase,std", samples=3, steps=2, series=7)
    found = {}
    for image in images:
        found.setdefault(image.image_series_index, []).append(image)
    assert {number: len(each) for number, each in found.items()} == {7: 2, 8: 2, 9: 6, 10: 2}
    for number, kind in ((7, "mean"), (8, "std"), (9, "samples"), (10, "phase")):
        indices = [each.image_index for each in found[number]]
        assert indices == list(range(1, len(indices) + 1))
        for each in found[number]:
            assert each.meta["SequenceDescriptionAdditional"] == f"scoremri_{kind}"
            assert (each.image_type == ismrmrd.IMTYPE_PHASE) == (kind == "phase")
            assert np.isfinite(each.data).all()
    assert [each.slice for each in found[9]] == [0, 0, 0, 1, 1, 1]
    drawn = np.stack([each.data[0, 0] for each in found[9][:3]])
    mean = found[7][0].data[0, 0]
    # The mean of the magnitudes is never below the magnitude of the mean.
    assert (drawn.mean(0) >= mean - 1e-5).all()
    meta = found[8][1].meta
    assert (meta["samples"], meta["sampler"], meta["seed"]) == ("3", "posterior", "0")
    card = load_prior("default").card
    assert float(meta["variance_scale"]) == card["variance_scale"]
    assert float(meta["inflation"]) == card["inflation"]


def test_images_are_scaled_and_numbered_by_the_scan():
    simulated = SimulatedScan((24, 20), 3, slices=2, repetitions=2, snr=50)
    scan = sorted(simulated, key=lambda line: -line.idx.slice)  # the last slice comes first
    options = {"samples": 2, "steps": 2, "noise": "estimate", "scale": "auto"}
    watched = Watched()
    made = run_chain(chain(RECON, **options), xsd.ToXML(simulated.header), scan, observer=watched)
    images = list(made)
    assert len(images) == 8
    # progress of the frames is reported while they are sampled
    assert watched.count == 4
    assert watched.shares[-1] == 1
    assert watched.levels == {(1, 2), (2, 2)}
    assert len({image.meta["GADGETRON_ScaleRatio"] for image in images}) == 1
    assert [image.slice for image in images[::2]] == [1, 1, 0, 0]
    for image in images:
        assert image.image_index == 2 * image.repetition + image.slice + 1
        assert image.meta["GADGETRON_ImageNumber"] == str(image.image_index)
    assert np.percentile(images[0].data, 99.5) == pytest.approx(2048, rel=1e-5)


def test_a_frame_does_not_depend_on_the_batch():
    scans = [acquisitions(letter(*SHAPE), noise=0.002, slice=s, seed=s) for s in range(3)]
    noise = [synthetic.noise_readout(0.002)]
    options = {"samples": 2, "steps": 2}
    together = run(RECON, scan=noise + [r for scan in scans for r in scan], **options)
    for number, scan in enumerate(scans):
        for single in run(RECON, scan=noise + scan, **options):
            (same,) = (
                image
                for image in together
                if image.slice == number and image.image_series_index == single.image_series_index
            )
            np.testing.assert_allclose(same.data, single.data, rtol=1e-3, atol=1e-4)


def test_nodes_are_chained():
    once = run(RECON, sampler="none")
    twice = run("targets.double", "targets.Handler", RECON, sampler="none")
    np.testing.assert_allclose(twice[0].data, 2 * once[0].data, rtol=1e-3, atol=1e-5)


def test_capture_saves_the_scan_for_replay(tmp_path):
    from scoremri_core.scans.files import open_scan

    scan = [synthetic.noise_readout(0.01), *acquisitions(letter(*SHAPE))]
    run(RECON, scan=scan, sampler="none", capture=str(tmp_path / "new"))
    (path,) = (tmp_path / "new").iterdir()
    with open_scan(path) as saved:
        assert list(saved) == scan
        assert saved.header.encoding[0].encodedSpace.matrixSize.y == SHAPE[0]


@pytest.mark.parametrize("target", ["targets.fail", "targets.fail_guarded"])
def test_a_failing_node_is_reported(target):
    with pytest.raises(InputError, match="RuntimeError: out of luck"):
        run(target)
    with pytest.raises(InputError, match="RuntimeError: out of luck"):
        run("targets.Handler", target, RECON)


def test_a_disconnected_node_is_reported():
    with pytest.raises(InputError, match="ended early"):
        run("targets.vanish")


@pytest.mark.parametrize("target", ["targets.absent", "nowhere.absent"])
def test_a_target_that_cannot_be_loaded_is_named(target):
    with pytest.raises(InputError, match=f"{target} cannot be loaded"):
        run(target)


def test_interrupted_input_is_reported():
    def broken():
        yield from acquisitions(letter(*SHAPE))
        raise InputError("in.h5: acquisition 48 is damaged")

    with pytest.raises(InputError, match="acquisition 48 is damaged"):
        run(RECON, scan=broken(), sampler="none")


class Echo(threading.Thread):
    """A server that answers each acquisition with an image while it is still being fed."""

    def __init__(self, failure=None):
        super().__init__(daemon=True)
        self.failure = failure
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self.listener.getsockname()[1]}"
        self.texts = []

    def run(self):
        with self.listener, self.listener.accept()[0] as connection, connection.makefile("rb") as f:
            for expected in (2, 3):
                number, length = struct.unpack("<HI", f.read(6))
                assert number == expected
                self.texts.append(f.read(length).decode())
            while struct.unpack("<H", f.read(2))[0] == 1008:
                acquisition = ismrmrd.Acquisition.deserialize_from(f.read)
                image = ismrmrd.Image.from_array(np.zeros((200, 200), np.float32))
                image.image_index = acquisition.scan_counter
                connection.sendall(struct.pack("<H", 1022) + image.to_bytes())
                if self.failure == "vanish":
                    return
            connection.sendall(struct.pack("<HI", 5, 4) + b"done")
            connection.sendall(struct.pack("<H", 4))


def test_sending_and_receiving_are_concurrent(caplog):
    scan = []
    for i in range(300):  # far more than the sockets hold, in both directions
        scan.append(ismrmrd.Acquisition.from_array(np.zeros((16, 512), np.complex64)))
        scan[-1].scan_counter = i
    server = Echo()
    server.start()
    asked = chain(RECON, seed="5")
    with caplog.at_level("INFO"):
        versioned = header(*SHAPE).replace("<acq", "<version>3</version><acq", 1)
        images = list(run_remote(server.address, asked, versioned, scan))
    server.join(5)
    assert [image.image_index for image in images] == list(range(300))
    # without the schema's version, on which a server of another version would hang
    assert server.texts == [asked.xml, header(*SHAPE)]
    assert "done" in caplog.text


def test_a_disconnected_server_is_reported():
    server = Echo("vanish")
    server.start()
    with pytest.raises(InputError, match="ended the stream early"):
        list(run_remote(server.address, chain(RECON), header(*SHAPE), acquisitions(letter(*SHAPE))))
    server.join(5)


@pytest.mark.parametrize("address", ["localhost", "localhost:x", "localhost:99999"])
def test_an_address_is_host_and_port(address):
    with pytest.raises(InputError, match="expected HOST:PORT"):
        list(run_remote(address, "default.xml", "", []))


def test_a_missing_server_is_reported():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(InputError, match=f"no server answers at 127.0.0.1:{port}"):
        list(run_remote(f"127.0.0.1:{port}", "default.xml", "", []))


def test_the_name_of_a_chain_fills_its_field():
    left, right = map(wire.Endpoint, socket.socketpair())
    wire.write_config_name(left, "default.xml")
    assert right.read(2 + 1024) == struct.pack("<H1024s", 1, b"default.xml")
    left.abandon()
    right.abandon()


def test_a_volume_is_complete():
    (ny, nx), nz = SHAPE, 4
    slices = np.stack([letter(ny, nx) * (z + 1) for z in range(nz)])
    scan = [synthetic.noise_readout(0.002)]
    for partition in range(nz):
        wave = np.exp(-2j * np.pi * (partition - nz // 2) * (np.arange(nz) - nz // 2) / nz)
        image = np.tensordot(wave / np.sqrt(nz), slices, 1)
        lines = acquisitions(image, last=False, noise=0.002, seed=partition)
        for line in lines:
            line.idx.kspace_encode_step_2 = partition
        scan += lines
    mean, std = run_chain(chain(RECON, samples=2, steps=2), header(ny, nx, ez=nz), scan)
    assert mean.data.shape == std.data.shape == (1, nz, ny, nx)
    np.testing.assert_allclose(mean.data[0], slices, atol=0.3)
    assert np.corrcoef(mean.data.ravel(), slices.ravel())[0, 1] > 0.99
    assert "fallback" not in mean.meta


def test_phase_oversampling_is_cropped_and_the_image_interpolated():
    truth = letter(*SHAPE)
    xml = header(*SHAPE, ry=72, gy=72, rx=80)  # 72 of 96 mm on 72 lines, twice the columns
    (image,) = run_chain(chain(RECON, sampler="none"), xml, acquisitions(truth, noise=0.001))
    assert image.data.shape == (1, 1, 72, 80)
    assert tuple(image.field_of_view) == (120, 72, 5)
    # Every second pixel of the interpolated image lies on a pixel of the truth's middle rows.
    np.testing.assert_allclose(image.data[0, 0, ::2, ::2], truth[6:42], atol=0.15)
