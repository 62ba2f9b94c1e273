import pytest
import torch

from vissl_zoo.distributions.precision import (
    outside_autocast,
    result_dtype,
    widen,
    with_value,
    working_dtype,
)


@pytest.mark.parametrize(
    "dtypes, expected",
    [
        ([torch.bfloat16], torch.float32),
        ([torch.float16, torch.bfloat16], torch.float32),
        ([torch.float32], torch.float32),
        ([torch.bfloat16, torch.float64], torch.float64),
    ],
)
def test_result_dtype(dtypes, expected):
    assert result_dtype(*dtypes) == expected


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.complex64])
def test_result_dtype_refuses_what_is_not_real_floating_point(dtype):
    with pytest.raises(TypeError, match="floating-point"):
        result_dtype(torch.float32, dtype)


def test_working_dtype_is_float64_except_where_it_is_missing():
    assert working_dtype(torch.device("cpu")) == torch.float64
    assert working_dtype(torch.device("cuda")) == torch.float64
    assert working_dtype(torch.device("mps")) == torch.float32


def test_half_gradients_saturate_and_others_pass_through():
    for dtype, expected in [(torch.float16, 65504.0), (torch.float32, 1e6)]:
        x = torch.ones(3, dtype=dtype, requires_grad=True)
        (widen(x, torch.float64) * torch.tensor([1e6, -1e6, 2.0])).sum().backward()
        assert x.grad.tolist() == [expected, -expected, 2.0]


def test_with_value_joins_a_value_to_another_gradient():
    x = torch.tensor(0.1, requires_grad=True)
    joined = with_value(x.detach() * 3, x**2)
    joined.backward()
    assert joined.item() == (x.detach() * 3).item()
    assert x.grad.item() == pytest.approx(0.2)


def test_outside_autocast_turns_autocast_off():
    x = torch.ones(2, 2)
    with torch.autocast("cpu", torch.bfloat16):
        assert (x @ x).dtype == torch.bfloat16
        with outside_autocast(x.device):
            assert (x @ x).dtype == torch.float32
    with outside_autocast(torch.device("meta")):
        pass
