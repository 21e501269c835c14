#!/usr/bin/env python3
"""Trains the quickstart's digit classifier and writes it as ONNX.

Data: scikit-learn's handwritten digits, 1,797 images of 8x8 pixels (UCI "Optical Recognition of Handwritten Digits",
CC BY 4.0). A fifth is held out, by class. The network and its training are plain numpy: forward and backward passes are
below, in the order in which they run.

    image [batch,1,8,8], 0..1
      -> Conv 3x3x8  -> BatchNormalization -> Relu -> MaxPool 2x2
      -> Conv 3x3x16 -> BatchNormalization -> Relu -> Flatten -> Gemm
      -> logits [batch,10]

Writes beside itself: model.onnx; samples.npy (float32 [10,1,8,8], one held-out image of each digit) and labels.npy
(int64 [10]); test_data_set_0/ (those samples and their logits, computed here, in the layout of ONNX's own test suite).
Fails if the held-out accuracy is below 97%, or if ONNX's reference evaluator disagrees with this script about the
exported model. A few seconds:

    pip install -r requirements.txt && python3 train.py
"""
import pathlib
import sys

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from sklearn.datasets import load_digits

SEED, EPOCHS, BATCH, RATE, DECAY = 7, 40, 64, 4e-3, 1e-4
EPSILON, MOMENTUM = 1e-5, 0.9
HERE = pathlib.Path(__file__).resolve().parent


def main():
    rng = np.random.default_rng(SEED)
    train_x, train_y, test_x, test_y = split(rng)
    net = Net(rng)
    train(net, rng, train_x, train_y)
    predicted = net.infer(test_x).argmax(1)
    accuracy = float((predicted == test_y).mean())
    print(f"held-out accuracy: {(predicted == test_y).sum()} of {len(test_y)} = {accuracy:.4f}")
    if accuracy < 0.97:
        sys.exit("train.py: below 97%; nothing written")

    model = export(net)
    onnx.checker.check_model(model, full_check=True)
    judged = ReferenceEvaluator(model).run(None, {"image": test_x})[0]
    np.testing.assert_allclose(judged, net.infer(test_x), rtol=1e-4, atol=1e-4)
    onnx.save(model, HERE / "model.onnx")
    # One of each digit, the first in held-out order, right or wrong: no choosing of easy ones.
    picks = [int(np.flatnonzero(test_y == digit)[0]) for digit in range(10)]
    samples, labels = test_x[picks], test_y[picks].astype(np.int64)
    np.save(HERE / "samples.npy", samples)
    np.save(HERE / "labels.npy", labels)
    save_case(HERE / "test_data_set_0", samples, net.infer(samples))


def split(rng):
    """Training and held-out images, float32 [n,1,8,8] in 0..1, and their labels; a fifth of each class is held out."""
    digits = load_digits()
    x = (digits.images / 16.0).astype(np.float32)[:, None]
    y = digits.target
    held_out = np.zeros(len(y), bool)
    for digit in range(10):
        members = rng.permutation(np.flatnonzero(y == digit))
        held_out[members[: len(members) // 5]] = True
    return x[~held_out], y[~held_out], x[held_out], y[held_out]


# ---- Layers. A forward returns its output and what the backward needs; a backward returns the gradients. ----


def patches(x):
    """[n,c,h,w] -> [n,h,w,c*9]: the 3x3 neighbourhood of each pixel, zero outside (im2col)."""
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))
    n, c, h, w = x.shape
    return windows.transpose(0, 2, 3, 1, 4, 5).reshape(n, h, w, c * 9)


def conv(x, weight):
    """3x3 convolution, padding 1, no bias (the normalization after it has one). weight: [out,in,3,3]."""
    cols = patches(x)
    y = cols @ weight.reshape(len(weight), -1).T
    return y.transpose(0, 3, 1, 2), cols


def conv_back(dy, weight, cols):
    dy_last = dy.transpose(0, 2, 3, 1)
    dweight = np.tensordot(dy_last, cols, axes=((0, 1, 2), (0, 1, 2))).reshape(weight.shape)
    # The gradient of the input is the convolution of dy with the weight turned by 180 degrees, channels swapped.
    dx, _ = conv(dy, weight[:, :, ::-1, ::-1].transpose(1, 0, 2, 3))
    return dx, dweight


def norm(x, scale, bias, mean, var):
    """BatchNormalization with given statistics, one scale and bias a channel."""
    inv = 1 / np.sqrt(var + EPSILON)
    unit = (x - channel(mean)) * channel(inv)
    return unit * channel(scale) + channel(bias), (unit, inv)


def norm_back(dy, scale, saved):
    """Backward of `norm` where the statistics are those of the batch itself (Ioffe and Szegedy 2015, section 3)."""
    unit, inv = saved
    dscale, dbias = (dy * unit).sum((0, 2, 3)), dy.sum((0, 2, 3))
    count = dy.size / dy.shape[1]
    dx = channel(scale * inv) * (dy - channel(dbias) / count - unit * channel(dscale) / count)
    return dx, dscale, dbias


def pool(x):
    """2x2 max pooling, stride 2."""
    n, c, h, w = x.shape
    tiles = x.reshape(n, c, h // 2, 2, w // 2, 2).transpose(0, 1, 2, 4, 3, 5).reshape(n, c, h // 2, w // 2, 4)
    return tiles.max(-1), tiles.argmax(-1)


def pool_back(dy, winners):
    n, c, h, w = dy.shape
    tiles = np.zeros((n, c, h, w, 4), dy.dtype)
    np.put_along_axis(tiles, winners[..., None], dy[..., None], -1)
    return tiles.reshape(n, c, h, w, 2, 2).transpose(0, 1, 2, 4, 3, 5).reshape(n, c, 2 * h, 2 * w)


def channel(v):
    return v[None, :, None, None]


# ---- The network ----


class Net:
    """Parameters `p` (trained) and `stats` (running mean and variance of the two normalizations), all float32."""

    def __init__(self, rng):
        def he(*shape):
            fan_in = int(np.prod(shape[1:]))
            return (rng.standard_normal(shape) * np.sqrt(2 / fan_in)).astype(np.float32)

        self.p = {"conv1.weight": he(8, 1, 3, 3), "conv2.weight": he(16, 8, 3, 3),
                  "fc.weight": he(10, 256), "fc.bias": np.zeros(10, np.float32)}
        self.stats = {}
        for name, width in (("bn1", 8), ("bn2", 16)):
            self.p[f"{name}.scale"] = np.ones(width, np.float32)
            self.p[f"{name}.bias"] = np.zeros(width, np.float32)
            self.stats[f"{name}.mean"] = np.zeros(width, np.float32)
            self.stats[f"{name}.var"] = np.ones(width, np.float32)

    def infer(self, x):
        """Logits [n,10] of images [n,1,8,8], with the running statistics: what the exported model computes."""
        p, s = self.p, self.stats
        for i in "12":
            x, _ = conv(x, p[f"conv{i}.weight"])
            x, _ = norm(x, p[f"bn{i}.scale"], p[f"bn{i}.bias"], s[f"bn{i}.mean"], s[f"bn{i}.var"])
            x = np.maximum(x, 0)
            if i == "1":
                x, _ = pool(x)
        return x.reshape(len(x), -1) @ p["fc.weight"].T + p["fc.bias"]

    def gradients(self, x, y):
        """Mean cross-entropy of a batch and its gradient for every parameter; moves the running statistics."""
        p, g = self.p, {}
        c1, cols1 = conv(x, p["conv1.weight"])
        n1, saved1 = self.batch_norm(c1, "bn1")
        a1, winners = pool(np.maximum(n1, 0))
        c2, cols2 = conv(a1, p["conv2.weight"])
        n2, saved2 = self.batch_norm(c2, "bn2")
        flat = np.maximum(n2, 0).reshape(len(x), -1)
        logits = flat @ p["fc.weight"].T + p["fc.bias"]

        logits -= logits.max(1, keepdims=True)
        prob = np.exp(logits)
        prob /= prob.sum(1, keepdims=True)
        loss = -np.log(prob[np.arange(len(y)), y] + 1e-12).mean()

        dlogits = prob
        dlogits[np.arange(len(y)), y] -= 1
        dlogits /= len(y)
        g["fc.weight"], g["fc.bias"] = dlogits.T @ flat, dlogits.sum(0)
        dn2 = (dlogits @ p["fc.weight"]).reshape(n2.shape) * (n2 > 0)
        dc2, g["bn2.scale"], g["bn2.bias"] = norm_back(dn2, p["bn2.scale"], saved2)
        da1, g["conv2.weight"] = conv_back(dc2, p["conv2.weight"], cols2)
        dn1 = pool_back(da1, winners) * (n1 > 0)
        dc1, g["bn1.scale"], g["bn1.bias"] = norm_back(dn1, p["bn1.scale"], saved1)
        _, g["conv1.weight"] = conv_back(dc1, p["conv1.weight"], cols1)
        return loss, g

    def batch_norm(self, x, name):
        mean, var = x.mean((0, 2, 3)), x.var((0, 2, 3))
        for key, value in ((f"{name}.mean", mean), (f"{name}.var", var)):
            self.stats[key] = MOMENTUM * self.stats[key] + (1 - MOMENTUM) * value
        return norm(x, self.p[f"{name}.scale"], self.p[f"{name}.bias"], mean, var)


def train(net, rng, x, y):
    """AdamW (Loshchilov and Hutter 2019) with a cosine learning rate; each image is shifted by up to a pixel."""
    first = {k: np.zeros_like(v) for k, v in net.p.items()}
    second = {k: np.zeros_like(v) for k, v in net.p.items()}
    steps, step = EPOCHS * (len(x) // BATCH), 0
    for epoch in range(EPOCHS):
        order, total = rng.permutation(len(x)), 0.0
        for start in range(0, len(x) - BATCH + 1, BATCH):
            batch = order[start : start + BATCH]
            loss, grads = net.gradients(shifted(x[batch], rng), y[batch])
            total += loss
            step += 1
            rate = RATE * 0.5 * (1 + np.cos(np.pi * step / steps))
            for key, grad in grads.items():
                first[key] = 0.9 * first[key] + 0.1 * grad
                second[key] = 0.999 * second[key] + 0.001 * grad * grad
                move = (first[key] / (1 - 0.9**step)) / (np.sqrt(second[key] / (1 - 0.999**step)) + 1e-8)
                net.p[key] = (net.p[key] - rate * (move + DECAY * net.p[key])).astype(np.float32)
        print(f"epoch {epoch + 1:2} of {EPOCHS}: loss {total / (len(x) // BATCH):.4f}", flush=True)
    net.stats = {k: v.astype(np.float32) for k, v in net.stats.items()}


def shifted(x, rng):
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    out = np.empty_like(x)
    for i, (dy, dx) in enumerate(rng.choice(3, (len(x), 2), p=(0.15, 0.7, 0.15))):
        out[i] = padded[i, :, dy : dy + 8, dx : dx + 8]
    return out


# ---- Export ----


def export(net):
    """The network as an ONNX model, opset 17, with a symbolic batch; folding is left to the compiler."""
    weights = [numpy_helper.from_array(v, k) for k, v in {**net.p, **net.stats}.items()]

    def block(i, source):
        return [
            helper.make_node("Conv", [source, f"conv{i}.weight"], [f"conv{i}"], f"conv{i}", kernel_shape=[3, 3],
                             pads=[1, 1, 1, 1]),
            helper.make_node("BatchNormalization",
                             [f"conv{i}", f"bn{i}.scale", f"bn{i}.bias", f"bn{i}.mean", f"bn{i}.var"],
                             [f"bn{i}"], f"bn{i}", epsilon=EPSILON),
            helper.make_node("Relu", [f"bn{i}"], [f"relu{i}"], f"relu{i}"),
        ]

    nodes = block(1, "image")
    nodes.append(helper.make_node("MaxPool", ["relu1"], ["pool"], "pool", kernel_shape=[2, 2], strides=[2, 2]))
    nodes += block(2, "pool")
    nodes.append(helper.make_node("Flatten", ["relu2"], ["flat"], "flatten", axis=1))
    nodes.append(helper.make_node("Gemm", ["flat", "fc.weight", "fc.bias"], ["logits"], "fc", transB=1))
    graph = helper.make_graph(
        nodes, "digits",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 1, 8, 8])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 10])],
        weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8,
                             producer_name="lapidary-quickstart")


def save_case(folder, image, logits):
    folder.mkdir(exist_ok=True)
    for file, name, value in (("input_0.pb", "image", image), ("output_0.pb", "logits", logits)):
        (folder / file).write_bytes(numpy_helper.from_array(value, name).SerializeToString())


if __name__ == "__main__":
    main()
