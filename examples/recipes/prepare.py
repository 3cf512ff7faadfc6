"""Put what a recipe needs into a folder, from data of your own disk; then `sutura ship FOLDER/RECIPE.toml`.

    python prepare.py acasxu NETWORK.onnx PROP_3.vnnlib PROP_4.vnnlib -o FOLDER
    python prepare.py mnist NETWORK.onnx MNIST.npz -o FOLDER [--images 100] [--radius 0.005]

MNIST.npz holds x_train, y_train, x_test, y_test (28x28, bytes). States for ACAS Xu are drawn evenly from the
boxes of its properties.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import numpy as np

import sutura

HERE = Path(__file__).resolve().parent


def acasxu(network: Path, properties: list[Path], folder: Path, seed: int = 0) -> None:
    """The network, its properties under the names that the recipe has, and states to calibrate on."""
    shutil.copy(network, folder / "network.onnx")
    random = np.random.default_rng(seed)
    states: list[np.ndarray] = []
    for place, name in zip(properties, ("prop_3.vnnlib", "prop_4.vnnlib"), strict=True):
        shutil.copy(place, folder / name)
        low, high = sutura.read_property(place).cases[0].box.float32_hull()
        states.append(low + random.random((1000, len(low)), dtype=np.float32) * (high - low))
    shape = sutura.load(network).network.input_shape
    x = np.concatenate(states).astype(np.float32).reshape(-1, *shape)
    np.savez_compressed(folder / "states.npz", x=x)


def images(network: Path, data: dict[str, np.ndarray], folder: Path, said: argparse.Namespace) -> None:
    """The network, images to train on, to test on and to prove, and a robustness property for each of these.

    `data` holds x_train, y_train, x_test, y_test with pixels in 0 to 1; proved are the last test images.
    """
    shutil.copy(network, folder / "network.onnx")
    read = sutura.load(network).network
    count = {"train": said.train, "test": said.test}
    for part, most in count.items():
        _save(folder / f"{part}.npz", data[f"x_{part}"][:most], data[f"y_{part}"][:most], read.input_shape)
    proved, labels = data["x_test"][-said.images :], data["y_test"][-said.images :]
    _save(folder / "few.npz", proved[: said.few], labels[: said.few], read.input_shape)
    (folder / "images").mkdir(exist_ok=True)
    for at, (image, label) in enumerate(zip(proved, labels, strict=True)):
        ball = sutura.robustness(image.reshape(-1), said.radius, int(label), classes=read.output_size)
        (folder / "images" / f"image_{at:03}.vnnlib").write_bytes(ball.text)


def _save(place: Path, x: np.ndarray, y: np.ndarray, shape: tuple[int, ...]) -> None:
    np.savez_compressed(place, x=x.reshape(-1, *shape).astype(np.float32), y=y.astype(np.int64))


def main() -> None:
    """Read the command line and write the folder."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("recipe", choices=["acasxu", "mnist"])
    parser.add_argument("files", type=Path, nargs="+")
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--images", type=int, default=100, help="images to be robust on")
    parser.add_argument("--few", type=int, default=20, help="of these, how many get a risk radius")
    parser.add_argument("--radius", type=float, default=0.005)
    parser.add_argument("--train", type=int, default=5000)
    parser.add_argument("--test", type=int, default=2000)
    said = parser.parse_args()
    said.out.mkdir(parents=True, exist_ok=True)
    shutil.copy(HERE / f"{said.recipe}.toml", said.out)
    if said.recipe == "acasxu":
        acasxu(said.files[0], said.files[1:], said.out)
    else:
        with np.load(said.files[1]) as held:
            data = {name: held[name] / (1.0 if name.startswith("y") else 255.0) for name in held.files}
        images(said.files[0], data, said.out, said)
    print(f"sutura ship {said.out / said.recipe}.toml -o {said.out / 'shipped'}")


if __name__ == "__main__":
    main()
