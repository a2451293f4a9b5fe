"""The peer of tests/bench/machine_bench_program.c: matrix products as PyTorch makes them on a processor, which is
oneDNN in bf16 (and MKL or oneDNN in f32).

    peer_products.py ROUNDS M,N,K ...

Each is x [M,K] times a weight [N,K], turned, as a linear layer has it: with the weight as it lies, and, where
this PyTorch can, with a weight that oneDNN has packed before. Prints a JSON object: `library`, and `products`, a
list of {precision, m, n, k, plain, packed}: the best GFLOP/s of all rounds by the clock; packed may be null."""
import json
import re
import sys
import time

import torch

FLOPS_A_ROUND = 4e10             # as there


def packed_product(x, w):
    """A function that multiplies with a packed copy of w; None where there is no such thing."""
    try:
        packed = torch.ops.mkldnn._reorder_linear_weight(w, x.shape[0])
        torch.ops.mkldnn._linear_pointwise(x, packed, None, "none", [], "")
    except (AttributeError, RuntimeError):
        return None
    return lambda: torch.ops.mkldnn._linear_pointwise(x, packed, None, "none", [], "")


def rate(product, flops, rounds):
    if product is None:
        return None
    product()
    best, turns = 0, 1 + int(FLOPS_A_ROUND / flops)
    for _ in range(rounds):
        start = time.perf_counter()
        for _ in range(turns):
            product()
        best = max(best, turns * flops / (time.perf_counter() - start))
    return round(best * 1e-9, 1)


rounds = int(sys.argv[1])
products = []
with torch.inference_mode():
    for shape in sys.argv[2:]:
        m, n, k = map(int, shape.split(","))
        for precision, dtype in (("f32", torch.float32), ("bf16", torch.bfloat16)):
            x, w = torch.zeros(m, k, dtype=dtype), torch.zeros(n, k, dtype=dtype)
            products.append({"precision": precision, "m": m, "n": n, "k": k,
                             "plain": rate(lambda: torch.nn.functional.linear(x, w), 2 * m * n * k, rounds),
                             "packed": rate(packed_product(x, w), 2 * m * n * k, rounds)})
onednn = re.search(r"(?:MKL-DNN|oneDNN) v([0-9.]+)", torch.__config__.show())
print(json.dumps({"library": f"PyTorch {torch.__version__.split('+')[0]}" + (f", oneDNN {onednn[1]}" if onednn else ""),
                  "products": products}))
