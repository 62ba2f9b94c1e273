import pytest
import torch

from vissl_zoo.distributions.precision import result_dtype, scalars, wide


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


def test_scalars_are_float64_everywhere_and_vectors_where_it_exists(without_float64):
    x = torch.ones(3, dtype=torch.bfloat16)
    assert scalars(x).dtype == torch.float64
    assert wide(x).dtype == torch.float32
    without_float64.undo()
    assert wide(x).dtype == torch.float64
