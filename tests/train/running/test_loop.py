"""The loop: accumulation, the schedule, determinism, mixed precision, what is not finite."""

from __future__ import annotations

import pytest
import torch

from shard_builder.errors import TrainingError
from tests.train.tiny_net import TinyNet, Train, same, weights
from train.running.run_folder import read_metrics


class DoubleConvNet(TinyNet):
    """The tiny net with its convolution in double precision: in single, the order of a sum over all
    pixels shows in its bias."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        convolved = torch.nn.functional.conv2d(
            images.double(), self.conv.weight.double(), self.conv.bias.double(), self.conv.stride
        )
        return self.fc(convolved.relu().mean(dim=(2, 3)).float())


def test_accumulation_equals_one_large_batch(train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    """15 samples in one batch or in three give the same step, also where the epoch's remainder is
    smaller."""
    monkeypatch.setattr("models.build._torchvision_model", lambda arch: DoubleConvNet())
    small = train("small", batch_size=5, iter_size=3, dropout=0.0)
    large = train("large", batch_size=15, iter_size=1, dropout=0.0)
    for name, tensor in weights(small).items():
        torch.testing.assert_close(tensor, weights(large)[name], rtol=1e-4, atol=1e-6)
    losses = [[row["loss"] for row in read_metrics(run)] for run in (small, large)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_the_learning_rate_drops_at_the_steps(train: Train) -> None:
    run = train(epochs=3, lr_steps=(1, 2), stem_lr_scale=5.0)
    rows = [row["lr"] for row in read_metrics(run) if row["kind"] == "epoch"]
    assert rows == pytest.approx([0.05, 0.005, 0.0005])
    groups = torch.load(run / "last.pt", weights_only=True)["optimizer"]["param_groups"]
    assert groups[0]["lr"] == pytest.approx(5 * groups[1]["lr"])


def test_a_run_is_the_same_again_and_another_with_another_seed(train: Train) -> None:
    first = weights(train("a"))
    assert same(first, weights(train("b")))
    assert not same(first, weights(train("c", seed=1)))


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_mixed_precision_learns_what_fp32_learns(train: Train, precision: str) -> None:
    rows = [
        read_metrics(train(name, precision=name, dropout=0.0))[-1] for name in ("fp32", precision)
    ]
    assert rows[1]["loss"] == pytest.approx(rows[0]["loss"], rel=0.02)


def test_a_loss_that_is_not_finite_stops_before_the_step(train: Train) -> None:
    with pytest.raises(
        TrainingError, match=r"(loss|gradient norm) is (nan|inf) in epoch \d+, step \d+.*not taken"
    ):
        train(lr=1e30, epochs=50, momentum=0.0)
