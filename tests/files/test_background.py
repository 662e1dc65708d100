import threading
import time

import pytest

from emulator.files.background import BackgroundWriter


def test_tasks_run_in_order_beside_the_caller():
    done, caller = [], threading.get_ident()
    with BackgroundWriter() as writer:
        for number in range(20):
            writer.submit(lambda n=number: done.append((n, threading.get_ident())))
    assert [n for n, _ in done] == list(range(20))
    assert all(thread != caller for _, thread in done)


def test_an_error_stops_the_caller_and_no_later_task_is_run():
    done = []

    def fail():
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        with BackgroundWriter() as writer:
            writer.submit(fail)
            for number in range(1000):
                time.sleep(0.001)
                writer.submit(done.append, number)
    assert not done


def test_an_error_of_the_last_task_is_raised_at_the_end():
    with pytest.raises(ValueError, match="late"):
        with BackgroundWriter() as writer:
            writer.submit(lambda: (_ for _ in ()).throw(ValueError("late")))


def test_an_error_of_the_caller_abandons_what_waits():
    done, started = [], threading.Event()

    def slow():
        started.set()
        time.sleep(0.05)
        done.append("slow")

    with pytest.raises(KeyError):
        with BackgroundWriter(waiting=5) as writer:
            writer.submit(slow)
            started.wait(5)
            writer.submit(done.append, "never")
            raise KeyError("caller")
    assert done == ["slow"]


def test_memory_is_bounded_by_the_queue():
    release = threading.Event()
    with BackgroundWriter(waiting=1) as writer:
        writer.submit(release.wait, 5)
        writer.submit(int)
        blocked = threading.Thread(target=writer.submit, args=(int,))
        blocked.start()
        time.sleep(0.05)
        assert blocked.is_alive()
        release.set()
        blocked.join(5)
        assert not blocked.is_alive()
