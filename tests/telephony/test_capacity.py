from telephony.capacity import Capacity


def test_the_limit_follows_what_the_engine_measures():
    carries = None
    capacity = Capacity(None, 0.5, lambda: carries)
    assert capacity.limit() == 8
    for carries, limit in ((3.0, 6), (3.3, 6), (0.2, 1), (0.0, 1)):
        assert capacity.limit() == limit
        assert capacity.carries == carries


def test_a_limit_that_is_set_by_hand_is_not_touched():
    assert Capacity(3, 0.5, lambda: 100.0).limit() == 3
