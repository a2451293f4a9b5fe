"""Compares two files of losses and gradients, |a - b| / |b| per tensor (b: the oracle):

    python -m oracle.compare OUT.safetensors EXPECTED.safetensors [TOLERANCE]

prints the worst tensors; exit code 1 if a name is missing on either side or a tensor is further off
than the tolerance (1e-4).
"""
import sys

from safetensors.torch import load_file


def compare(actual, expected):
    """{name: relative error}; inf for a missing name or another shape. What is zero by theory
    (CLIP's k_proj.bias) is measured against the size of the largest gradient."""
    scale = max((tensor.double().norm().item() for name, tensor in expected.items()
                 if not name.startswith("loss_")), default=0.0)
    errors = {}
    for name in sorted(set(actual) | set(expected)):
        if (name not in actual or name not in expected
                or actual[name].numel() != expected[name].numel()):
            errors[name] = float("inf")
            continue
        a, b = actual[name].double().flatten(), expected[name].double().flatten()
        norm = b.norm().item()
        error = (a - b).norm().item() / (norm if norm > 1e-9 * scale else scale or 1.0)
        errors[name] = error if error == error else float("inf")
    return errors


def main():
    errors = compare(load_file(sys.argv[1]), load_file(sys.argv[2]))
    tolerance = float(sys.argv[3]) if len(sys.argv) > 3 else 1e-4
    worst = sorted(errors.items(), key=lambda item: -item[1])
    for name, error in worst[:10]:
        print(f"{error:9.2e}  {name}")
    far = sum(error > tolerance for error in errors.values())
    print(f"{len(errors)} tensors, {far} further off than {tolerance:g}")
    return 1 if far or not errors else 0


if __name__ == "__main__":
    sys.exit(main())
