"""Read the flow shards with DALI's own reader and our .idx files, on the CPU.

python docs/examples/read_dali.py DATASET
"""

import json
import sys
from pathlib import Path
from typing import Any

from nvidia.dali import fn, pipeline_def, types
from nvidia.dali.plugin.base_iterator import LastBatchPolicy
from nvidia.dali.plugin.pytorch import DALIGenericIterator

STACK_LENGTH = 5


@pipeline_def
def flow_pipeline(dataset: Path, shuffle: bool) -> Any:
    """Return the first five pairs of each sequence, (10, 224, 224) floats, and its label."""
    geometry = json.loads((dataset / "manifest.json").read_text())["geometry"]
    tars = sorted(dataset.glob("flow-*.tar"))
    *members, label = fn.readers.webdataset(
        paths=[str(tar) for tar in tars],
        index_paths=[str(tar.with_suffix(".idx")) for tar in tars],  # else DALI scans the tars
        ext=[*(f"flow-{number:03d}.jpg" for number in range(STACK_LENGTH)), "cls"],
        missing_component_behavior="error",  # not an empty image where a member is missing
        random_shuffle=shuffle,
        pad_last_batch=True,
        name="reader",
    )
    # A member is one gray image with x above y; where a GPU is, device="mixed" decodes on it.
    images = [fn.decoders.image(member, output_type=types.GRAY) for member in members]
    shape = [2, geometry["height"], geometry["width"]]
    pairs = [fn.reshape(image, shape=shape, layout="CHW") for image in images]
    planes = fn.crop_mirror_normalize(
        fn.cat(*pairs, axis_name="C"),  # x1 y1 x2 y2 ...
        crop=(224, 224),
        mean=[0.5 * 255],
        std=[0.226 * 255],
        dtype=types.FLOAT,
    )
    return planes, label - 48  # one ASCII digit, so up to ten classes


def read(dataset: Path, *, batch_size: int = 8, shuffle: bool = False) -> DALIGenericIterator:
    """Return an iterator over one epoch; it yields a list of one dict of tensors a batch."""
    return DALIGenericIterator(
        flow_pipeline(dataset, shuffle, batch_size=batch_size, num_threads=2, device_id=None),
        ["images", "labels"],
        reader_name="reader",
        last_batch_policy=LastBatchPolicy.PARTIAL,  # cuts off what pads the last batch
    )


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(f"usage: {__doc__.splitlines()[2]}")
    for (batch,) in read(Path(sys.argv[1]), shuffle=True):
        print(tuple(batch["images"].shape), batch["labels"].flatten().tolist())
