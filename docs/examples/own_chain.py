"""A custom gadget after scoremri's, in a custom chain (own_chain.xml).

    scoremri simulate -o scan.h5 -R 4
    PYTHONPATH=docs/examples scoremri replay scan.h5 -o images.h5 -c docs/examples/own_chain.xml

or from Python, see `main`.
"""

import copy
import sys
from pathlib import Path

import numpy as np

from gadgets.protocol.gadgetron.chain import Chain
from gadgets.service.host import run_chain
from scoremri_core.scans.files import open_scan

CHAIN = Path(__file__).with_suffix(".xml")
MEAN, STD, CERTAINTY = 1, 2, 3  # image series


def certainty(connection):
    """Pass on all images and add a series, the posterior mean over its standard deviation.

    This function is the target of the second node in own_chain.xml.
    """
    mean = None
    for image in connection:
        connection.send(image)
        if image.image_series_index == MEAN:
            mean = image
        elif image.image_series_index == STD:
            ratio = copy.deepcopy(image)
            ratio.data[:] = mean.data / np.maximum(image.data, np.finfo(np.float32).tiny)
            ratio.image_series_index = CERTAINTY
            ratio.meta = {**image.meta, "SeriesDescription": "mean over standard deviation"}
            connection.send(ratio)


def main(path="scan.h5", **properties):
    """Stream a recorded scan through the chain in this process; return the images by series."""
    chain = Chain.load(str(CHAIN)).with_properties(properties)
    with open_scan(path) as scan:
        images = list(run_chain(chain, scan.header_xml, scan))
    for image in images:
        kind = image.meta["SeriesDescription"]
        print(f"series {image.image_series_index}: {kind}, {image.data.shape}")
    return {image.image_series_index: image.data[0, 0] for image in images}


if __name__ == "__main__":
    main(*sys.argv[1:])
