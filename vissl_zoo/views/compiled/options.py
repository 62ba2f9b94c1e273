"""How functions are compiled."""

from numba import njit

# No result is infinite or NaN, and a division by zero is nobody's: `fastmath` and numpy's error model are safe.
ARITHMETIC = {"fastmath": True, "error_model": "numpy"}
_INSIDE = {
    **ARITHMETIC,
    "no_cpython_wrapper": True,
    "no_cfunc_wrapper": True,
}  # called by compiled code alone

inlined = njit(forceinline=True, **_INSIDE)
"""For steps of sixteen pixels."""
apart = njit(**_INSIDE)
"""For loops: in one large function LLVM keeps their addresses on the stack, for want of registers."""
