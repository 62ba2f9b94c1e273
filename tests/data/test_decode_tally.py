import logging

import pytest

from vissl_zoo.data.decode import BadImage, BadImageTally
from vissl_zoo.errors import UserError


def tally_of(*rows: int, max_fraction: float = 0.01) -> BadImageTally:
    tally = BadImageTally("photos", max_fraction)
    for row in rows:
        tally.add(BadImage(row, f"{row}.jpg", "truncated"))
    return tally


def test_each_row_counts_once():
    assert [image.row for image in tally_of(3, 1, 3).images] == [3, 1]


@pytest.mark.parametrize(
    "bad, total, at_least, raises",
    [(0, 100, 1, False), (1, 100, 1, False), (2, 100, 1, True), (1, 99, 1, True), (1, 99, 100, False)],
)
def test_the_fraction_is_inclusive(bad, total, at_least, raises):
    tally = tally_of(*range(bad))
    if not raises:
        assert tally.check(total, at_least=at_least) is None
        return
    with pytest.raises(UserError) as caught:
        tally.check(total, at_least=at_least)
    assert str(caught.value) == (
        f"photos: {bad} of {total} images cannot be read (at most 1.00% may be corrupt); "
        "the first is 0.jpg: truncated"
    )


def test_no_good_image_is_an_error_whatever_is_tolerated():
    with pytest.raises(UserError, match="2 of 2 images"):
        tally_of(0, 1, max_fraction=1.0).check(2)


def test_the_warning_names_five_and_comes_once(caplog):
    tally = tally_of(*range(7))
    with caplog.at_level(logging.WARNING):
        tally.report(900)
        tally.report(900)
    (message,) = caplog.messages
    assert message.startswith("photos: left out 7 of 900 images that cannot be read: 0.jpg: truncated; 1.jpg")
    assert "4.jpg" in message
    assert "5.jpg" not in message
    assert message.endswith("…")
    tally.add(BadImage(8, "8.jpg", "empty"))
    with caplog.at_level(logging.WARNING):
        tally.report(900)
    assert caplog.messages[1:] == ["photos: left out 8 of 900 images that cannot be read: 8.jpg: empty"]
