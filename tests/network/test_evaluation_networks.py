"""Every network of the evaluation data: read, written again, and the same to the last bit in ONNX Runtime."""

from __future__ import annotations

import numpy as np
import pytest
from onnx_models import numbers

from sutura.errors import NetworkError
from sutura.network.inspect import inspect_onnx
from sutura.network.onnx_read import parse_onnx
from sutura.network.onnx_write import write_onnx
from sutura.network.read import load
from sutura.network.run import open_session, run

NETWORKS = (
    "acasxu/onnx/ACASXU_run2a_1_1_batch_2000.onnx",
    "acasxu/onnx/ACASXU_run2a_3_7_batch_2000.onnx",
    "acasxu/onnx/ACASXU_run2a_5_9_batch_2000.onnx",
    "nets/cifar10_resnet20.onnx",
    "nets/cifar10_resnet32.onnx",
    "nets/cifar10_resnet56.onnx",
    "vnncomp/cifar10_resnet/onnx/resnet_2b.onnx",
    "vnncomp/cifar10_resnet/onnx/resnet_4b.onnx",
    "vnncomp/collins_rul_cnn/onnx/NN_rul_full_window_20.onnx",
    "vnncomp/collins_rul_cnn/onnx/NN_rul_full_window_40.onnx",
    "vnncomp/collins_rul_cnn/onnx/NN_rul_small_window_20.onnx",
    "vnncomp/eran_mnist/onnx/ffnnSIGMOID__Point_6x200.onnx",
    "vnncomp/eran_mnist/onnx/mnist_relu_9_200.onnx",
    "vnncomp/mnist_fc/onnx/mnist-net_256x2.onnx",
    "vnncomp/mnist_fc/onnx/mnist-net_256x4.onnx",
    "vnncomp/mnist_fc/onnx/mnist-net_256x6.onnx",
    "vnncomp/oval21_cifar10/onnx/cifar_base_kw.onnx",
    "vnncomp/oval21_cifar10/onnx/cifar_deep_kw.onnx",
    "vnncomp/oval21_cifar10/onnx/cifar_wide_kw.onnx",
    "vnncomp/rl_benchmarks/onnx/cartpole.onnx",
    "vnncomp/rl_benchmarks/onnx/dubinsrejoin.onnx",
    "vnncomp/rl_benchmarks/onnx/lunarlander.onnx",
    "vnncomp/safenlp/onnx/medical/perturbations_0.onnx",
    "vnncomp/safenlp/onnx/ruarobot/perturbations_0.onnx",
    "vnncomp/verivital_mnist_cnn/onnx/Convnet_avgpool.onnx",
    "vnncomp/verivital_mnist_cnn/onnx/Convnet_maxpool.onnx",
)


def points(network, count=6):
    x = numbers(count, *network.input_shape, seed=3)
    x[count // 2 :] = np.abs(x[count // 2 :]) / 4
    return x


@pytest.mark.parametrize("name", NETWORKS)
def test_written_file_is_the_original_to_the_last_bit(shared_data, name):
    data = (shared_data / name).read_bytes()
    network = parse_onnx(data, name)
    written = write_onnx(network)
    assert written == write_onnx(network)
    assert inspect_onnx(data, name).supported
    # The collins files list their weights as inputs too, so ONNX Runtime must not rearrange them, while it
    # may those of the written file. The nodes are the same: without optimisation no bit differs.
    optimise = "collins" not in name
    original = open_session(data, optimise=optimise)
    x = points(network)
    ours = open_session(written, optimise=optimise)
    parts = np.split(x, len(x)) if original.single else [x]
    again = [run(ours, part) for part in parts]
    assert run(original, x).tobytes() == np.concatenate(again).tobytes()


@pytest.mark.parametrize("name", [name for name in NETWORKS if "collins" in name])
def test_weights_listed_as_inputs_cost_no_more_than_rounding(shared_data, name):
    data = (shared_data / name).read_bytes()
    network = parse_onnx(data, name)
    x = points(network)
    one, two = run(open_session(data), x), run(open_session(write_onnx(network)), x)
    assert np.max(np.abs(one - two)) <= 1e-6 * max(1.0, float(np.max(np.abs(one))))


@pytest.mark.parametrize("name", NETWORKS)
def test_load_accepts_it(shared_data, name):
    loaded = load(shared_data / name)
    assert 0 < loaded.difference < 2e-3


@pytest.mark.parametrize(("name", "layers"), [("ibp_3_3_8", 3), ("pgd_2_3_16", 2)])
def test_transformers_are_refused_with_every_node_at_once(shared_data, name, layers):
    with pytest.raises(NetworkError, match=r"node .*\(ConstantOfShape\) makes a constant as long") as told:
        load(shared_data / "vnncomp" / "vit_cifar10" / "onnx" / f"{name}.onnx")
    assert str(told.value).count("(MatMul) multiplies two activations") == 2 * layers


def test_written_batches_agree_with_single_samples(shared_data):
    network = parse_onnx((shared_data / NETWORKS[0]).read_bytes(), "acas")
    session, x = open_session(write_onnx(network)), points(network, 8)
    one_by_one = np.concatenate([run(session, x[i : i + 1]) for i in range(8)])
    assert np.max(np.abs(run(session, x) - one_by_one)) < 1e-6
