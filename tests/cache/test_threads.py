"""Work done in the background, a bounded amount of it."""

import threading

import pytest

from sur.cache import WriteBehind
from sur.cache.threads import map_parallel


def test_the_caller_goes_on_while_jobs_run_and_may_wait_for_all():
    gate, seen = threading.Event(), []

    def job(name: str) -> None:
        gate.wait()
        seen.append(name)

    with WriteBehind(depth=2) as behind:
        behind.submit(lambda: job("first"))
        behind.submit(lambda: job("second"))
        assert seen == []
        gate.set()
        behind.drain()
        assert sorted(seen) == ["first", "second"]


def test_no_more_than_depth_jobs_are_unfinished_after_a_submit():
    free, behind = threading.Semaphore(0), WriteBehind(depth=1)
    done = []

    def job() -> None:
        free.acquire()
        done.append(1)

    with behind:
        behind.submit(job)
        caller = threading.Thread(target=behind.submit, args=(job,))
        caller.start()
        caller.join(0.2)
        assert caller.is_alive()  # waits for the first job
        free.release()
        caller.join()
        assert len(done) == 1
        free.release()


def test_the_next_call_raises_what_a_job_raised_and_later_jobs_still_run():
    gate, done = threading.Event(), []

    def fails() -> None:
        gate.wait()
        raise OSError("disk full")

    with WriteBehind(depth=1) as behind:
        behind.submit(fails)
        gate.set()
        with pytest.raises(OSError, match="disk full"):
            behind.submit(lambda: done.append(1))
    assert done == [1]


def test_leaving_by_an_error_waits_for_what_was_handed_over(caplog):
    done = []

    def fails() -> None:
        raise OSError("disk full")

    with pytest.raises(KeyboardInterrupt), WriteBehind(depth=3) as behind:
        behind.submit(lambda: done.append(1))
        behind.drain()
        behind._jobs.append(behind._pool.submit(fails))
        behind._jobs.append(behind._pool.submit(lambda: done.append(2)))
        raise KeyboardInterrupt
    assert sorted(done) == [1, 2]
    assert "background work failed too: disk full" in caplog.text


def test_what_waits_is_done_side_by_side_and_given_in_order():
    together = threading.Barrier(4, timeout=10)

    def waits(number: int) -> int:
        together.wait()
        return -number

    assert map_parallel(waits, range(4)) == [0, -1, -2, -3]
