"""What is written of a window is all that its row holds."""

from greend.store.records import WINDOW_NEWS, WINDOW_START
from greend.store.schema import WindowRow


def test_every_column_of_a_window_is_written_once() -> None:
    written = [*WINDOW_START, *WINDOW_NEWS]
    assert sorted(written) == sorted(column.name for column in WindowRow.__table__.c)
