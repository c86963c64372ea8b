"""Rates of the matrix products that scoring consists of, against the highest rate of the device.

    python benchmarks/rates.py --device cuda --width 3584 --vocab 152064 --time 512

The polar iteration of the nuclear norm and the preparation of a frozen head, in TFLOP/s, beside large products in
bfloat16 and float32. The polar iteration and the factor are computed in float32: half floats lose the small singular
values.
"""

import argparse
import json
from collections.abc import Callable
from typing import Any

import measure
import torch
from torch.utils.flop_counter import FlopCounterMode

import uds_core as uds


def parse() -> argparse.Namespace:
    """The shape, from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--time", type=int, default=512)
    parser.add_argument("--width", type=int, default=896)
    parser.add_argument("--vocab", type=int, default=151_936)
    parser.add_argument("--product", type=int, default=4096, help="size of the large products")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    return parser.parse_args()


def product_rate(size: int, dtype: torch.dtype, options: argparse.Namespace) -> float:
    """FLOP/s of a large matrix product."""
    x = torch.randn(size, size, device=options.device).to(dtype)
    return 2 * size**3 / measure.seconds(lambda: x @ x, repeat=options.repeat)


def rate(run: Callable[[], Any], options: argparse.Namespace, *, flops: float = 0.0) -> dict[str, float]:
    """Seconds, operations of matrix products (counted, and `flops` more) and their rate."""
    with FlopCounterMode(display=False) as counter:
        run()
    seconds = measure.seconds(run, repeat=options.repeat)
    total = counter.get_total_flops() + flops
    return {"seconds": seconds, "flops": total, "rate": total / seconds}


def main() -> None:
    """Measure, and print a table and a JSON line."""
    options = parse()
    torch.set_grad_enabled(False)
    weight = (torch.randn(options.vocab, options.width, device=options.device) / options.width**0.5).bfloat16()
    hidden = torch.randn(options.batch, options.time, options.width, device=options.device).bfloat16()
    head = uds.Head(weight)
    rows = {
        "product, bfloat16": {"rate": product_rate(options.product, torch.bfloat16, options)},
        "product, float32": {"rate": product_rate(options.product, torch.float32, options)},
        "preparation of a frozen head": rate(
            lambda: uds.Head(weight).factor, options, flops=2.0 * options.vocab * options.width**2
        ),
        "nuclear norm, polar": rate(lambda: uds.nuclear_norm(head(hidden), method="polar"), options),
    }
    best = rows["product, bfloat16"]["rate"]
    for name, row in rows.items():
        row["x_of_bfloat16"] = row["rate"] / best
        print(f"{name:32}{row['rate'] / 1e12:10.3f} TFLOP/s{100 * row['x_of_bfloat16']:8.1f} %")
    names = ("batch", "time", "width", "vocab", "product", "repeat", "device")
    settings = {name: getattr(options, name) for name in names}
    print("\n" + json.dumps({"benchmark": "rates", "settings": settings, "rows": rows}))


if __name__ == "__main__":
    main()
