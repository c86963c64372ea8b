"""Differences between array libraries. No other file depends on which library computes."""

import functools
from collections.abc import Callable
from typing import Any, TypeAlias, TypeVar

import array_api_compat
import numpy as np

Array: TypeAlias = Any  # array libraries share no static type
Namespace: TypeAlias = Any

Function = TypeVar("Function", bound=Callable[..., Any])

_HALF = ("bfloat16", "float16")
_LOG2_E = 1.4426950408889634


def array_namespace(*arrays: Array) -> Namespace:
    """Return the one array-API namespace that all `arrays` belong to; a TypeError where there is none."""
    return array_api_compat.array_namespace(*arrays)


def device(x: Array, /) -> Any:
    """Return the device of `x`; None while JAX traces, when it is not known yet."""
    return array_api_compat.device(x)  # pyright: ignore[reportUnknownMemberType]


def wide_dtype(x: Array, /, *, name: str = "") -> Any:
    """Return the dtype `x` is computed in: float32 for half floats, else its own. Errors call `x` by its `name`.

    Half floats are not in the standard, and no library decomposes them (pytorch#98308).
    """
    xp = array_namespace(x)
    if _dtype_name(x.dtype) in _HALF:
        return xp.float32
    if x.dtype not in (xp.float32, xp.float64):
        what = f"`{name}` must hold" if name else "expected"
        msg = f"{what} floating-point numbers (float64, float32, bfloat16 or float16), got an array of {x.dtype}"
        raise TypeError(msg)
    return x.dtype


def widen(x: Array, /) -> Array:
    """Return `x` in `wide_dtype(x)`; no copy where it has that dtype already."""
    return array_namespace(x).astype(x, wide_dtype(x), copy=False)


def accumulation_dtype(x: Array, /) -> Any:
    """Return float64 where the device of `x` has it, else float32 (MPS, JAX without x64)."""
    xp = array_namespace(x)
    return xp.float64 if has_float64(x) else xp.float32


def has_float64(x: Array, /) -> bool:
    """Return whether the device of `x` computes in float64."""
    if array_api_compat.is_cupy_array(x):  # its devices cannot be keys of a cache, and all have it
        return True
    return _has_float64(array_namespace(x), device(x))


def is_accelerator(x: Array, /) -> bool:
    """Return whether `x` lies on a device that is much better at matrix products than at decompositions (GPU, TPU)."""
    if array_api_compat.is_jax_array(x):  # a traced array does not say where it will lie: there, JAX's own choice
        places = [device(x), *array_namespace(x).__array_namespace_info__().devices()]
        return next(place.platform for place in places if hasattr(place, "platform")) != "cpu"
    if array_api_compat.is_torch_array(x):
        return x.device.type != "cpu"
    return array_api_compat.is_cupy_array(x)


def constant(values: np.ndarray[Any, Any], /, *, like: Array, dtype: Any = None) -> Array:
    """Return NumPy `values` on the device of `like`, in `dtype` (default: that of `values`), never sharing memory.

    Convert before the move: the device may lack the dtype of `values`.
    """
    xp = array_namespace(like)
    if dtype is not None:
        values = np.asarray(values).astype(_dtype_name(dtype))  # what a compiled graph stores comes as a tensor
    if not array_api_compat.is_torch_namespace(xp):
        return xp.asarray(values, device=device(like), copy=True)
    made, place = xp.asarray(values, device="cpu", copy=True), like.device
    # CUDA takes what is not pinned into a buffer of its own at once, so that nobody need wait; MPS reads it later
    return made.to(place, non_blocking=place.type != "mps")


def constant_in_graphs(function: Function, /) -> Function:
    """Mark a function of numbers alone, such as of a seed: PyTorch's compiler calls it and stores what it returns.

    The compiler cannot follow NumPy's random generators. Where a cache is wanted, it goes around the mark.
    """
    vars(function)["_dynamo_marked_constant"] = True  # as `torch.compiler.assume_constant_result`, without PyTorch
    return function


def to_numpy(x: Array, /) -> np.ndarray[Any, Any]:
    """Return `x` on the host. A synchronisation: only at the edge (indices, saved state), never on a hot array."""
    xp = array_namespace(x)
    if array_api_compat.is_array_api_strict_namespace(xp):
        # its test devices refuse NumPy, and know no "cpu"
        x = x.to_device(type(x.device)("CPU_DEVICE"))
    elif not array_api_compat.is_jax_array(x):  # NumPy reads JAX arrays wherever they are
        if array_api_compat.is_torch_array(x):
            x = x.detach()  # NumPy refuses what requires a gradient
        x = array_api_compat.to_device(x, "cpu")
    return np.asarray(x)


def is_traced(x: Array, /) -> bool:
    """Return whether `x` has no values yet, so that it must not be stored: in a JAX trace, or in a compiled graph."""
    if array_api_compat.is_torch_array(x):
        return bool(array_namespace(x).compiler.is_compiling())
    return array_api_compat.is_jax_array(x) and device(x) is None


def qr_triangle(x: Array, /) -> Array:
    """Return R of the QR decomposition of `x` (rows, columns). The standard's `qr` also computes Q, unused here."""
    xp = array_namespace(x)
    if array_api_compat.is_torch_namespace(xp):
        return xp.linalg.qr(x, mode="r").R
    if array_api_compat.is_numpy_namespace(xp):
        return np.linalg.qr(x, mode="r")  # the compatible namespace knows the standard's modes only
    return xp.linalg.qr(x, mode="reduced")[1]


def is_finite(x: Array, /) -> Array:
    """Return where the floats `x` are finite; in two kernels, of which `isfinite` of PyTorch starts four."""
    return array_namespace(x).abs(x) < float("inf")


def at_least_one(count: Array, /) -> Array:
    """Return counts with 1 in place of 0, to divide by."""
    xp = array_namespace(count)
    if array_api_compat.is_torch_namespace(xp):
        return count.clamp(min=1)
    return xp.where(count > 0, count, xp.ones_like(count))


def take(x: Array, index: Array, /, *, axis: int = 0) -> Array:
    """Return the entries of `x` at `index` (n,), none negative, along an axis.

    The compatible namespace of PyTorch starts three more kernels for negative ones.
    """
    xp = array_namespace(x, index)
    if array_api_compat.is_torch_namespace(xp):
        return xp.index_select(x, axis, index)
    return xp.take(x, index, axis=axis)


def take_along_rows(x: Array, index: Array, /) -> Array:
    """Return the entries of `x` (..., n) at `index` (..., k), none negative, along the last axis."""
    xp = array_namespace(x, index)
    if array_api_compat.is_torch_namespace(xp):
        return x.gather(-1, index.long())
    return xp.take_along_axis(x, index, axis=-1)


def multiply_add(base: Array, left: Array, right: Array, /, *, scale: float, factor: float) -> Array:
    """Return scale base + factor (left @ right) of stacks of matrices; one kernel of PyTorch."""
    xp = array_namespace(base, left, right)
    if array_api_compat.is_torch_namespace(xp):
        return xp.baddbmm(base, left, right, beta=scale, alpha=factor)
    return scale * base + factor * (left @ right)


def occurs(values: Array, ordered: Array, /) -> Array:
    """Return whether each of `values` (rows, n) is in its row of `ordered` (rows, m), which is sorted; m is at least 1.

    The standard's `searchsorted` takes one row at a time.
    """
    xp = array_namespace(values, ordered)
    if array_api_compat.is_torch_namespace(xp):
        place = xp.searchsorted(ordered, values.contiguous()).clamp(max=ordered.shape[1] - 1)
        return xp.take_along_dim(ordered, place, dim=1) == values
    rows: list[Array] = []
    for i in range(values.shape[0]):
        place = xp.searchsorted(ordered[i, :], values[i, :])
        last = xp.full_like(place, ordered.shape[1] - 1)
        rows.append(xp.take(ordered[i, :], xp.where(place < last, place, last), axis=0) == values[i, :])
    return xp.stack(rows, axis=0)


def smallest(x: Array, number: int, /) -> Array:
    """Return the `number` smallest in each row of `x` (rows, columns), in any order; NaN counts as the largest.

    The standard offers only a sort, which takes PyTorch longer than computing distances.
    """
    xp = array_namespace(x)
    if array_api_compat.is_torch_namespace(xp):
        return xp.topk(x, number, dim=1, largest=False, sorted=False).values
    if array_api_compat.is_numpy_namespace(xp):
        return np.partition(x, number - 1, axis=1)[:, :number]
    return xp.sort(x, axis=1)[:, :number]


def exponential_sums(block: Array, shift: Array | None, /, *, moments: bool, overwrite: bool) -> tuple[Array, Any]:
    """Return the sums over the last axis (...,) of e = exp(block - shift) and of e (block - shift).

    In `wide_dtype(block)`, but for exponentials of half floats where neither `shift` nor `moments` are wanted: PyTorch
    rounds those, and the sum of each block, to half. `shift`: (...,); None: 0. Without `moments` the second is 0.0.
    `overwrite`: whether `block` may be, which spares copies in PyTorch.
    """
    xp = array_namespace(block)
    if array_api_compat.is_torch_namespace(xp) and not block.requires_grad:
        return _torch_exponential_sums(block, shift, moments=moments, overwrite=overwrite)
    below = widen(block) if shift is None else widen(block) - shift[..., None]
    weights = xp.exp(below)
    total = xp.sum(weights, axis=-1)
    return total, xp.sum(weights * below, axis=-1) if moments else 0.0


def _torch_exponential_sums(block: Array, shift: Array | None, *, moments: bool, overwrite: bool) -> tuple[Array, Any]:
    wide = wide_dtype(block)
    if block.dtype != wide and shift is None and not moments:
        # summed in float32 inside; `dtype=` would copy the block first
        return (block.exp_() if overwrite else block.exp()).sum(dim=-1).to(wide), 0.0
    below = widen(block)
    overwrite = overwrite or below is not block
    if shift is not None:
        below = below.sub_(shift[..., None]) if overwrite else below - shift[..., None]
        overwrite = True
    # powers of 2: `exp` is that of MKL, which takes three times as long on some processors
    weights = below.mul_(_LOG2_E) if overwrite and not moments else below * _LOG2_E
    total = weights.exp2_().sum(dim=-1)
    return total, weights.mul_(below).sum(dim=-1) if moments else 0.0


def add_turned(total: Array | None, run: Array, signs: Array, turn: int, length: int, /) -> Array:
    """Return `total` (..., length) plus `run` (..., n) times `signs` (n,), cyclically shifted by `turn` places.

    `total`: that of an earlier call, which PyTorch overwrites; None: zeros. n is at most `length`.
    """
    xp = array_namespace(run)
    number = run.shape[-1]
    if array_api_compat.is_torch_namespace(xp):
        return _torch_add_turned(total, run, signs, turn, length)
    run = run * signs
    if number < length:
        missing = (*run.shape[:-1], length - number)
        run = xp.concat([run, xp.zeros(missing, dtype=run.dtype, device=device(run))], axis=-1)
    run = xp.roll(run, turn, axis=-1)
    return run if total is None else total + run


def _torch_add_turned(total: Any, run: Any, signs: Any, turn: int, length: int) -> Array:
    if total is None:
        *outer, rows, _ = run.shape
        along = run.stride(-1) == 1  # in memory as `run`: that of a head is transposed
        total = run.new_zeros(*outer, rows, length) if along else run.new_zeros(*outer, length, rows).mT
    ahead = min(run.shape[-1], length - turn)  # one pass over `run` in place of four
    total[..., turn : turn + ahead].addcmul_(run[..., :ahead], signs[:ahead])
    total[..., : run.shape[-1] - ahead].addcmul_(run[..., ahead:], signs[ahead:])
    return total


def multiplies_half(x: Array, /) -> bool:
    """Return whether the device of `x` multiplies matrices in its dtype, a half float, and does not emulate it."""
    if is_accelerator(x):
        return True
    if not array_api_compat.is_torch_array(x):
        return False
    xp = array_namespace(x)
    known = xp.ops.mkldnn
    return bool(known._is_mkldnn_bf16_supported() if x.dtype == xp.bfloat16 else known._is_mkldnn_fp16_supported())


def solve(matrix: Array, right: Array, /) -> Array:
    """Return X with `matrix` X = `right`, of a matrix that is known to be regular: the host waits for no check."""
    xp = array_namespace(matrix, right)
    if array_api_compat.is_torch_namespace(xp):
        return xp.linalg.solve_ex(matrix, right).result
    return xp.linalg.solve(matrix, right)


def has_direct_distances(x: Array, /) -> bool:
    """Return whether one fast kernel computes distances on the device of `x` without a matrix product."""
    return array_api_compat.is_torch_array(x) and is_accelerator(x)


def direct_distance_matrix(points: Array, rows: Array, /) -> Array:
    """Return the Euclidean distances (n, m) by that kernel; exact zero between equals."""
    return array_namespace(points).cdist(points, rows, compute_mode="donot_use_mm_for_euclid_dist")


def check_device(name: str, x: Array, /, *, like: Array, like_name: str) -> None:
    """Raise where `x` and `like` lie on different devices; nothing is moved silently."""
    here, there = device(x), device(like)
    if None not in (here, there) and here != there:
        msg = f"`{name}` is on {here} but `{like_name}` on {there}: move one of them"
        raise ValueError(msg)


def _dtype_name(dtype: Any) -> str:
    # "torch.bfloat16", "array_api_strict.float32", "float32", <class 'jax.numpy.float32'>
    name = getattr(dtype, "name", None) or getattr(dtype, "__name__", None) or str(dtype)
    return name.rsplit(".", 1)[-1]


@functools.lru_cache(maxsize=64)
def _has_float64(xp: Namespace, place: Any) -> bool:
    if array_api_compat.is_jax_namespace(xp):  # its devices are unhashable arguments to some versions' `dtypes`
        return "float64" in xp.__array_namespace_info__().dtypes()
    return "float64" in xp.__array_namespace_info__().dtypes(device=place)
