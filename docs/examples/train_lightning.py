"""The loader in PyTorch Lightning, whose checkpoints carry its state, exact to the batch.

pip install lightning && python docs/examples/train_lightning.py DATASET [EPOCHS]
"""

import sys
from typing import Any

import lightning
import torch
from torch import nn

from pipelines import Batch, Reading, make_loader, open_dataset
from shard_builder import make_split


class FlowNet(lightning.LightningModule):
    """The smallest net for ten channels of flow: a linear one."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.AdaptiveAvgPool2d(8), nn.Flatten(), nn.Linear(640, num_classes))

    def transfer_batch_to_device(self, batch: Batch, device: Any, dataloader_idx: int) -> Batch:
        """Leave the batch where the loader has put it: on ``Reading.device``."""
        return batch

    def training_step(self, batch: Batch, batch_idx: int) -> torch.Tensor:
        """Return the loss of a batch."""
        loss = nn.functional.cross_entropy(self.net(batch.images), batch.labels)
        self.log("loss", loss, on_epoch=True, batch_size=len(batch.labels))
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Log the accuracy on faces that are not trained on."""
        right = (self.net(batch.images).argmax(1) == batch.labels).float().mean()
        self.log("val_accuracy", right, batch_size=len(batch.labels))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return SGD with momentum."""
        return torch.optim.SGD(self.parameters(), lr=0.05, momentum=0.9)


def main(path: str, epochs: int = 3) -> None:
    """Train on the subjects outside fold 0, validate on those inside."""
    # With several devices, give make_loader the rank and the world_size of each process.
    trainer = lightning.Trainer(max_epochs=epochs, devices=1, logger=False)
    options = {"batch_size": 10, "reading": Reading(device=trainer.strategy.root_device)}
    with open_dataset(path) as dataset:
        split = make_split(dataset, "subject-kfold", fold=0)
        train_rows, val_rows = dataset.rows_of(split.train), dataset.rows_of(split.val)
        train = make_loader(dataset, "flow", rows=train_rows, training=True, **options)
        val = make_loader(dataset, "flow", rows=val_rows, training=False, **options)
        with train, val:
            trainer.fit(FlowNet(len(dataset.class_names)), train, val)
    print({name: round(float(value), 3) for name, value in trainer.callback_metrics.items()})


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(f"usage: {__doc__.splitlines()[2]}")
    main(sys.argv[1], *map(int, sys.argv[2:]))
