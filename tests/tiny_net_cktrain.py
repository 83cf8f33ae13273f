"""``cktrain`` with a net of three layers and no BatchNorm in the place of torchvision's: for tests
that start processes."""

from __future__ import annotations

import torch
from torch import nn

import models.build


class TinyNet(nn.Module):
    """Conv2d, ReLU, mean, Linear: its first layer and its last are what build_model looks for."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 7, stride=4)
        self.fc = nn.Linear(8, 1000)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.fc(self.conv(images).relu().mean(dim=(2, 3)))


def make_tiny_net(arch: str) -> nn.Module:
    return TinyNet()


if __name__ == "__main__":
    models.build._torchvision_model = make_tiny_net
    from train.cli import main

    main()
