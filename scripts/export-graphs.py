#!/usr/bin/env python3
"""Exports the benchmark models and keeps their graphs only: no weights, but every name, dtype and dimension.

    python3 scripts/export-graphs.py --models PATH/models.py --out DIR [--cases DIR] [NAME ...]

Runs on a machine with a GPU, torch, torchvision, transformers and onnx. PATH/models.py has `MODELS`: name -> function
that returns (module, arguments, input names), with seeded weights; each is exported in fp16 with one output, "output".

Writes to --out:
  graphs.tar.xz      NAME.onnx of each model, initializers above 64 bytes turned into external data of a file
                     NAME.weights that is not kept; graphs.json says with which versions and exporter each was made
  NAME.golden.npz    for the models of GOLDEN: c0_in{k}, the seeded inputs; c0_out0, the output in the model's dtype;
                     c0_out0_fp32, the same before rounding. Evaluated in fp32 without TF32, on the fp16-rounded weights
Writes to --cases, if given: NAME/{model.onnx,golden.npz,manifest.json} of the models of GOLDEN, weights and all, which
`lapidary verify` takes. They are large: use them there.

Each model is exported in a process of its own, four at a time, so that one failure leaves the others. Exit: 0 all
exported, 1 at least one failed (the others are written), 2 usage.
"""
import argparse
import concurrent.futures
import importlib.util
import io
import json
import pathlib
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import warnings

GOLDEN = ("resnet50_b1", "bert_base_s128_b1", "vit_b_16_b1")
OPSET = 20
INLINE_BYTES = 64
JOBS = 4
SECONDS_A_MODEL = 170


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="models to export (default: all)")
    parser.add_argument("--models", required=True, type=pathlib.Path, help="the script that builds the models")
    parser.add_argument("--out", required=True, type=pathlib.Path, help="where graphs.tar.xz and the goldens go")
    parser.add_argument("--cases", type=pathlib.Path, help="where whole models with goldens go, to verify with there")
    parser.add_argument("--one", type=pathlib.Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    warnings.filterwarnings("ignore")
    if not args.models.is_file():
        parser.error(f"{args.models} is not a file")
    if args.one:
        return export_one(args.names[0], args.models, args.one)

    known = list(load_models(args.models).MODELS)
    unknown = [n for n in args.names if n not in known]
    if unknown:
        parser.error(f"no model called {', '.join(unknown)}; there are: {', '.join(known)}")
    args.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        return export_all(args.names or known, args, pathlib.Path(scratch))


def export_all(names, args, scratch):
    facts, failed = {}, []
    with concurrent.futures.ThreadPoolExecutor(JOBS) as pool:
        running = {pool.submit(run_one, name, args.models, scratch / name): name for name in names}
        for future in concurrent.futures.as_completed(running):
            name = running[future]
            error, seconds = future.result()
            if error:
                failed.append(name)
                print(f"{name:24} FAILED after {seconds:.0f} s\n{error}", flush=True)
                continue
            facts[name] = json.loads((scratch / name / "facts.json").read_text())
            if (scratch / name / "golden.npz").is_file():
                (args.out / f"{name}.golden.npz").write_bytes((scratch / name / "golden.npz").read_bytes())
            if args.cases and name in GOLDEN:
                keep_case(scratch / name, args.cases / name)
            print(f"{name:24} {facts[name]['nodes']:5} nodes, {facts[name]['graph_bytes'] >> 10:5} KiB of graph, "
                  f"{facts[name]['weight_bytes'] >> 20:5} MiB of weights, {seconds:.0f} s", flush=True)
    archive = args.out / "graphs.tar.xz"
    write_archive(archive, facts, scratch)
    print(f"{archive}: {archive.stat().st_size >> 10} KiB, {len(facts)} graphs")
    if failed:
        print(f"export-graphs: {len(failed)} of {len(names)} failed: {', '.join(sorted(failed))}", file=sys.stderr)
    return 1 if failed else 0


def run_one(name, models, folder):
    """Exports one model in a new process; returns (error text or None, seconds)."""
    folder.mkdir(parents=True)
    start = time.monotonic()
    command = [sys.executable, str(pathlib.Path(__file__).resolve()), "--models", str(models.resolve()), "--out",
               str(folder), "--one", str(folder), name]
    try:
        run = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
                             timeout=SECONDS_A_MODEL)
        error = None if run.returncode == 0 else "\n".join(run.stdout.splitlines()[-25:])
    except subprocess.TimeoutExpired:
        error = f"took longer than {SECONDS_A_MODEL} s"
    return error, time.monotonic() - start


def keep_case(source, case):
    case.mkdir(parents=True, exist_ok=True)
    for file in ("model.onnx", "golden.npz", "manifest.json"):
        shutil.copyfile(source / file, case / file)


def write_archive(path, facts, scratch):
    """A tar.xz whose bytes depend on its contents only."""
    with tarfile.open(path, "w:xz", preset=9) as tar:
        members = [(f"{name}.onnx", (scratch / name / "graph.onnx").read_bytes()) for name in sorted(facts)]
        members.append(("graphs.json", (json.dumps(facts, indent=1, sort_keys=True) + "\n").encode()))
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


# ---- One model, in its own process ----


def seed_zeros(torch, module):
    """Fills matrices of zeros: an untrained head of zeros (torchvision's ViT) gives zeros whatever comes before it."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for _, parameter in sorted(module.named_parameters()):
            if parameter.ndim > 1 and not parameter.any():
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * parameter.shape[-1] ** -0.5)


def export_one(name, models, folder):
    import onnx
    import torch

    # The golden is fp32 in earnest: neither products nor convolutions may round their inputs to TF32.
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    module, args, input_names = load_models(models).MODELS[name]()
    seed_zeros(torch, module)
    module = module.cuda().half().eval()
    args = tuple(a.cuda().half() if a.is_floating_point() else a.cuda() for a in args)
    whole = folder / "model.onnx"
    with torch.no_grad():
        exporter = export(torch, module, args, whole, input_names)
        if name in GOLDEN:
            write_golden(torch, module, args, input_names, name, folder)
    model = onnx.load(str(whole), load_external_data=True)
    if any(folder.glob("model.onnx.data")):
        # The exporter split the model all the same; a case folder holds one file.
        onnx.save_model(model, str(whole), save_as_external_data=False)
    before = signature(model)
    weight_bytes = strip(model, f"{name}.weights")
    if signature(model) != before:
        sys.exit("stripping changed the graph's names, types or dimensions")
    data = model.SerializeToString(deterministic=True)
    (folder / "graph.onnx").write_bytes(data)
    facts = {"exporter": exporter, "opset": {o.domain or "ai.onnx": o.version for o in model.opset_import},
             "nodes": len(model.graph.node), "graph_bytes": len(data), "weight_bytes": weight_bytes,
             "versions": versions("torch", "torchvision", "transformers", "onnx", "onnxscript")}
    (folder / "facts.json").write_text(json.dumps(facts))
    return 0


def export(torch, module, args, path, input_names):
    """Writes the whole model; returns which exporter made it."""
    try:
        torch.onnx.export(module, args, str(path), input_names=input_names, output_names=["output"],
                          opset_version=OPSET, dynamo=True, external_data=False, verbose=False)
        return "dynamo"
    except Exception as error:  # any failure of that exporter leaves the older one to try
        print(f"the dynamo exporter failed: {error!r}", file=sys.stderr)
        torch.onnx.export(module, args, str(path), input_names=input_names, output_names=["output"], opset_version=17,
                          dynamo=False)
        return "torchscript"


def write_golden(torch, module, args, input_names, name, folder):
    import numpy

    wide = tuple(a.float() if a.is_floating_point() else a for a in args)
    output = module.float()(*wide)
    if not torch.isfinite(output).all():
        sys.exit("the fp32 output is not finite")
    exact = output.cpu().numpy()
    arrays = {f"c0_in{k}": a.cpu().numpy() for k, a in enumerate(args)}
    arrays["c0_out0"] = exact.astype(numpy.float16)
    numpy.savez_compressed(folder / "golden.npz", **arrays, c0_out0_fp32=exact)

    def entry(key, label):
        return {"name": label, "key": key, "dtype": str(arrays[key].dtype), "shape": list(arrays[key].shape)}

    manifest = {"name": name,
                "golden": {"file": "golden.npz", "producer": "PyTorch, fp32 without TF32, on fp16-rounded weights"},
                "tolerance": {"rel_l2": 1e-2, "cosine": 0.9995},
                "cases": [{"description": "seeded input",
                           "inputs": [entry(f"c0_in{k}", label) for k, label in enumerate(input_names)],
                           "outputs": [entry("c0_out0", "output")]}]}
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n")


def strip(model, location):
    """Turns large initializers into external data, and drops what names the exporting machine; returns their bytes."""
    import onnx

    offset = 0
    for tensor in tensors(model):
        count = 1
        for dim in tensor.dims:
            count *= dim
        # No export has a type narrower than a byte; one that had would be refused by numpy's type table here.
        size = count * onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
        if tensor.data_type == onnx.TensorProto.STRING or size <= INLINE_BYTES:
            continue
        for field in ("raw_data", "float_data", "int32_data", "int64_data", "double_data", "uint64_data"):
            tensor.ClearField(field)
        del tensor.external_data[:]
        tensor.data_location = onnx.TensorProto.EXTERNAL
        for key, value in (("location", location), ("offset", offset), ("length", size)):
            tensor.external_data.add(key=key, value=str(value))
        # External data starts at multiples of a page, as ONNX's own writer does it, so that it can be mapped.
        offset += -(-size // 4096) * 4096
    for message in everything(model):
        for field in ("doc_string", "metadata_props"):
            if field in message.DESCRIPTOR.fields_by_name:
                message.ClearField(field)
    return offset


def graphs(graph):
    """The graph and, below it, every region of its nodes."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for inner in ([attribute.g] if attribute.HasField("g") else []) + list(attribute.graphs):
                yield from graphs(inner)


def tensors(model):
    """Every initializer and every tensor attribute."""
    for graph in graphs(model.graph):
        yield from graph.initializer
        for node in graph.node:
            for attribute in node.attribute:
                if attribute.HasField("t"):
                    yield attribute.t
                yield from attribute.tensors


def everything(model):
    """Every message that can carry a doc string or metadata."""
    yield model
    yield from model.functions
    yield from (node for function in model.functions for node in function.node)
    yield from tensors(model)
    for graph in graphs(model.graph):
        yield graph
        yield from graph.node
        yield from (attribute for node in graph.node for attribute in node.attribute)
        for values in (graph.input, graph.output, graph.value_info):
            yield from values


def signature(model):
    """What must survive: nodes, and the name, type and dimensions of every tensor and typed value."""
    nodes = [(n.domain, n.op_type, n.name, list(n.input), list(n.output)) for g in graphs(model.graph) for n in g.node]
    held = [(t.name, t.data_type, list(t.dims)) for t in tensors(model)]
    typed = [(v.name, v.type.SerializeToString(deterministic=True)) for g in graphs(model.graph)
             for values in (g.input, g.output, g.value_info) for v in values]
    return nodes, held, typed


def load_models(path):
    spec = importlib.util.spec_from_file_location("benchmark_models", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def versions(*names):
    from importlib import metadata

    found = {}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "none"
    return found


if __name__ == "__main__":
    sys.exit(main())
