"""A run goes on with what it was begun with, or says what is no longer exact."""

import pytest

from vissl_zoo.errors import UserError
from vissl_zoo.training.continuation import check_continuation

BEGUN = {"seed": 0, "images": "a", "processes": 1, "device": "cpu", "torch_threads": 2, "environment": {}}
BEGUN |= {"data": {"path": "a", "workers": 1}}


def test_the_same_again():
    other_workers = {**BEGUN, "data": {"path": "a", "workers": 2}}
    assert check_continuation(BEGUN, other_workers, force=False) == []


def test_threads_are_told_and_not_refused():
    told = check_continuation(BEGUN, {**BEGUN, "torch_threads": 1}, force=False)
    assert told == ["threads (2, now 1): equal to rounding, and not bit for bit"]


def test_the_threads_of_an_accelerators_host_are_nobodys_business():
    begun = {**BEGUN, "device": "cuda"}
    assert check_continuation(begun, {**begun, "torch_threads": 1}, force=False) == []


def test_images_that_moved():
    moved = {**BEGUN, "data": {"path": "b", "workers": 1}}
    with pytest.raises(UserError, match=r"values of --data.path \(a, now b\); --resume-force accepts that"):
        check_continuation(BEGUN, moved, force=False)
    assert check_continuation(BEGUN, moved, force=True) == ["--data.path (a, now b): the images are the same"]
    with pytest.raises(UserError, match=r"values of --data.path \(a, now b\), the images$"):
        check_continuation(BEGUN, {**moved, "images": "b"}, force=True)


def test_a_variable_that_is_gone():
    begun = {**BEGUN, "environment": {"ACCELERATE_USE_FSDP": "true"}}
    with pytest.raises(UserError, match=r"ACCELERATE_USE_FSDP \(true, now None\)"):
        check_continuation(begun, BEGUN, force=False)
