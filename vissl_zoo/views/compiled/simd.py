"""Sixteen float32 numbers as one value in code that numba compiles, so that its speed is not the vectoriser's whim.

LLVM cuts the sixteen to what the CPU has: one AVX-512 register, two of AVX, four of NEON. (Tried: plain loops over
arrays. Before each LLVM must check that its arrays do not overlap, which takes longer than sixteen pixels do, and
sums go through memory at every tap.)
"""

import operator

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.typing.templates import ConcreteTemplate, infer_global, signature
from numba.extending import intrinsic, lower_builtin, models, register_model

LANES = 16
_FLOATS = ir.VectorType(ir.FloatType(), LANES)
_BYTES = ir.VectorType(ir.IntType(8), LANES)
_INT = ir.IntType(32)
_FAST = ("fast",)  # products may be fused with sums, and sums reordered: nothing here is infinite or NaN


class Vector(types.Type):
    """numba's type of sixteen float32 numbers."""

    def __init__(self) -> None:
        super().__init__("float32x16")


vector = Vector()


@register_model(Vector)
class VectorModel(models.PrimitiveModel):
    """A vector is an LLVM vector: it lives in registers."""

    def __init__(self, manager, numba_type) -> None:
        super().__init__(manager, numba_type, _FLOATS)


def _arithmetic(symbol, instruction: str) -> None:
    """Give vectors an operator, lane by lane."""

    class Typing(ConcreteTemplate):
        cases = [signature(vector, vector, vector)]

    infer_global(symbol)(Typing)

    @lower_builtin(symbol, Vector, Vector)
    def lower(context, builder, sig, args):
        return getattr(builder, instruction)(*args, flags=_FAST)


for _symbol, _instruction in (
    (operator.add, "fadd"),
    (operator.sub, "fsub"),
    (operator.mul, "fmul"),
    (operator.truediv, "fdiv"),
):
    _arithmetic(_symbol, _instruction)


@intrinsic
def pointer(typing, array):
    """Where the numbers of a C-contiguous array begin: `pointer(a)[i]` is a.flat[i], and no reference is counted.

    An array that is handed on counts its references, atomically: sixteen pixels at a time that took three quarters of
    all. The array must outlive the pointer, as an argument of the outermost function does.
    """

    def lower(context, builder, sig, args):
        return context.make_array(sig.args[0])(context, builder, value=args[0]).data

    return types.CPointer(array.dtype)(array), lower


@intrinsic
def advance(typing, start, count):
    """The pointer `count` numbers on."""

    def lower(context, builder, sig, args):
        return builder.gep(args[0], [args[1]])

    return start(start, types.intp), lower


@intrinsic
def take_next(typing, counter):
    """The number at a pointer to int64, which is then one larger, whichever thread asks."""

    def lower(context, builder, sig, args):
        return builder.atomic_rmw("add", args[0], ir.Constant(ir.IntType(64), 1), "monotonic")

    return types.int64(counter), lower


def _lanes_at(builder, start, index, lanes=_FLOATS):
    """The address of `lanes` that begin at start[index]."""
    return builder.bitcast(builder.gep(start, [index]), lanes.as_pointer())


def _shuffle(builder, a, b, lanes: list[int]):
    """Sixteen lanes chosen of a's, 0 to 15, and b's, 16 to 31."""
    return builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(_INT, LANES), lanes))


@intrinsic
def load(typing, start, index):
    """The vector at start[index], ...: float32 or uint8 numbers."""

    def lower(context, builder, sig, args):
        if sig.args[0].dtype == types.float32:
            return builder.load(_lanes_at(builder, *args), align=4)
        levels = builder.load(_lanes_at(builder, *args, _BYTES), align=1)
        return builder.sitofp(builder.zext(levels, ir.VectorType(_INT, LANES)), _FLOATS)

    return vector(start, types.intp), lower


@intrinsic
def store(typing, start, index, value):
    """Write a vector to start[index], ...: float32 numbers."""

    def lower(context, builder, sig, args):
        builder.store(args[2], _lanes_at(builder, *args[:2]), align=4)
        return context.get_dummy_value()

    return types.void(start, types.intp, value), lower


@intrinsic
def store_interleaved(typing, start, index, red, green, blue):
    """Write r0, g0, b0, r1, ... to start[index], ...: 48 numbers."""

    def lower(context, builder, sig, args):
        # Each store takes two shuffles of two vectors. (Tried: one shuffle to 48 lanes, which LLVM does lane by lane.)
        for part in range(3):
            sources = [divmod(part * LANES + i, 3) for i in range(LANES)]  # (pixel, channel) of each lane
            pair = _shuffle(builder, args[2], args[3], [c % 2 * LANES + pixel for pixel, c in sources])
            last = [i if c < 2 else LANES + pixel for i, (pixel, c) in enumerate(sources)]
            mixed = _shuffle(builder, pair, args[4], last)
            place = builder.add(args[1], ir.Constant(args[1].type, part * LANES))
            builder.store(mixed, _lanes_at(builder, args[0], place), align=4)
        return context.get_dummy_value()

    return types.void(start, types.intp, red, green, blue), lower


@intrinsic
def splat(typing, number):
    """A vector of one number, sixteen times."""

    def lower(context, builder, sig, args):
        undefined = ir.Constant(_FLOATS, ir.Undefined)
        one = builder.insert_element(undefined, args[0], ir.Constant(_INT, 0))
        return _shuffle(builder, one, undefined, [0] * LANES)

    return vector(types.float32), lower


def _choice(name: str, comparison: str):
    """An intrinsic that takes of each two lanes the one for which the comparison holds."""

    def smaller_or_larger(typing, a, b):
        def lower(context, builder, sig, args):
            return builder.select(builder.fcmp_ordered(comparison, *args, flags=_FAST), *args)

        return vector(vector, vector), lower

    smaller_or_larger.__name__ = name
    return intrinsic(smaller_or_larger)


minimum, maximum = _choice("minimum", "<"), _choice("maximum", ">")


@intrinsic
def signed_by(typing, size, a, b):
    """`size` where a > b, and -size elsewhere."""

    def lower(context, builder, sig, args):
        return builder.select(
            builder.fcmp_ordered(">", *args[1:], flags=_FAST), args[0], builder.fneg(args[0], flags=_FAST)
        )

    return vector(vector, vector, vector), lower


def _unary(name: str):
    """An intrinsic of LLVM on each lane."""

    def each(typing, a):
        def lower(context, builder, sig, args):
            function = cgutils.get_or_insert_function(
                builder.module, ir.FunctionType(_FLOATS, [_FLOATS]), f"llvm.{name}.v{LANES}f32"
            )
            return builder.call(function, args, fastmath=_FAST)

        return vector(vector), lower

    each.__name__ = name
    return intrinsic(each)


floor, absolute = _unary("floor"), _unary("fabs")


@intrinsic
def total(typing, a):
    """The sum of the sixteen numbers."""

    def lower(context, builder, sig, args):
        function = cgutils.get_or_insert_function(
            builder.module,
            ir.FunctionType(ir.FloatType(), [ir.FloatType(), _FLOATS]),
            f"llvm.vector.reduce.fadd.v{LANES}f32",
        )
        return builder.call(function, [ir.Constant(ir.FloatType(), 0.0), args[0]], fastmath=_FAST)

    return types.float32(vector), lower
