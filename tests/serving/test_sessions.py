from agent.serving.sessions import SessionTable


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_session_that_is_used_outlives_its_time():
    clock = Clock()
    table = SessionTable(10.0, clock)
    first = table.obtain("a", object)
    for clock.now in (8.0, 16.0, 24.0):
        assert table.obtain("a", object) is first


def test_a_session_dies_after_its_time():
    clock = Clock()
    table = SessionTable(10.0, clock)
    first = table.obtain("a", object)
    table.obtain("b", object)
    clock.now = 5.0
    table.obtain("b", object)
    clock.now = 11.0
    assert len(table) == 1
    assert table.obtain("a", object) is not first


def test_a_dropped_session_starts_anew():
    table = SessionTable(10.0, Clock())
    first = table.obtain("a", object)
    table.drop("a")
    table.drop("a")
    assert len(table) == 0
    assert table.obtain("a", object) is not first
