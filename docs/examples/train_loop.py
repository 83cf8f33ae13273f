"""A plain PyTorch loop over the flow of a dataset, with a net of one's own.

python docs/examples/train_loop.py DATASET [EPOCHS]
"""

import sys

import torch
from torch import nn

from pipelines import Loader, Reading, Sampling, make_loader, open_dataset
from shard_builder import make_split


def make_net(num_classes: int) -> nn.Sequential:
    """Return a small net for ten channels: x and y flow of five pairs."""
    stem = (nn.Conv2d(10, 16, 7, stride=4), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(4))
    head = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, num_classes))
    return nn.Sequential(*stem, nn.Conv2d(16, 32, 3), nn.ReLU(), *head)


@torch.no_grad()
def count_right(net: nn.Module, loader: Loader) -> int:
    """Return how many sequences get their own class."""
    net.eval()
    return sum(int((net(batch.images).argmax(1) == batch.labels).sum()) for batch in loader)


def main(path: str, epochs: int = 3) -> None:
    """Train on the subjects outside fold 0, validate on those inside."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(0)  # for the net's weights; the samples follow from Sampling's seed
    with open_dataset(path) as dataset:
        split = make_split(dataset, "subject-kfold", fold=0)  # no face on both sides
        train_rows, val_rows = dataset.rows_of(split.train), dataset.rows_of(split.val)
        sampling = Sampling(stack_length=5, seed=0)  # what is drawn; validation draws nothing
        reading = Reading(device=device)  # how it is read, which changes no sample
        options = {"batch_size": 10, "sampling": sampling, "reading": reading}
        train = make_loader(dataset, "flow", rows=train_rows, training=True, **options)
        val = make_loader(dataset, "flow", rows=val_rows, training=False, **options)
        # Images come as channels_last: a net of the same layout need not rearrange them.
        net = make_net(len(dataset.class_names)).to(device, memory_format=torch.channels_last)
        optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
        with train, val:
            for epoch in range(epochs):
                net.train()
                total = 0.0
                for batch in train:  # each loop is the next epoch; a batch lives until the next one
                    loss = nn.functional.cross_entropy(net(batch.images), batch.labels)
                    optimizer.zero_grad()
                    loss.backward()
                    optimizer.step()
                    total += loss.item() * len(batch.labels) / train.num_samples
                print(f"epoch {epoch}: loss {total:.3f}, {count_right(net, val)} right")


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(f"usage: {__doc__.splitlines()[2]}")
    main(sys.argv[1], *map(int, sys.argv[2:]))
