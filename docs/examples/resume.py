"""Save a run in the middle of an epoch, resume it, and end in the same weights bit for bit.

python docs/examples/resume.py DATASET CHECKPOINT.pt
"""

import sys
from typing import Any

import torch
from torch import nn

from pipelines import Dataset, Loader, Sampling, make_loader, open_dataset


class Run:
    """What a run consists of, as any process makes it at its start."""

    def __init__(self, dataset: Dataset) -> None:
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.AdaptiveAvgPool2d(8), nn.Flatten(), nn.Linear(10 * 64, 7))
        self.optimizer = torch.optim.SGD(self.net.parameters(), lr=0.1, momentum=0.9)
        self.loader: Loader = make_loader(
            dataset, "flow", training=True, batch_size=10, sampling=Sampling(seed=0)
        )

    @property
    def parts(self) -> dict[str, Any]:
        """Whatever has a state; the loader's is where its next batch begins, as plain values."""
        return {"net": self.net, "optimizer": self.optimizer, "loader": self.loader}

    def train_epoch(self, *, save_after: int = 0, checkpoint: str = "") -> None:
        """Train on the rest of the epoch; save everything after so many batches."""
        for number, batch in enumerate(self.loader, start=1):
            self.optimizer.zero_grad()
            nn.functional.cross_entropy(self.net(batch.images), batch.labels).backward()
            self.optimizer.step()
            if number == save_after:
                states = {name: part.state_dict() for name, part in self.parts.items()}
                torch.save(states, checkpoint)


def main(path: str, checkpoint: str) -> None:
    """Train two epochs in one go, then the same from the checkpoint in the middle of the second."""
    with open_dataset(path) as dataset:
        whole = Run(dataset)
        with whole.loader:
            whole.train_epoch()
            whole.train_epoch(save_after=2, checkpoint=checkpoint)
        resumed = Run(dataset)  # in another process, on another day
        for name, state in torch.load(checkpoint, weights_only=True).items():
            resumed.parts[name].load_state_dict(state)
        with resumed.loader:
            resumed.train_epoch()  # begins with the third batch of the second epoch
    pairs = zip(whole.net.parameters(), resumed.net.parameters(), strict=True)
    print("weights are equal" if all(torch.equal(a, b) for a, b in pairs) else "weights DIFFER")


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(f"usage: {__doc__.splitlines()[2]}")
    main(*sys.argv[1:])
