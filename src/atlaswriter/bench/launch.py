"""Starts one process and says what it cost: ``python -I -S launch.py RESULT.json COMMAND...``.

Linux counts what the parent held when it forked to the peak memory of its child. So whoever measures does it from a
process that holds nothing: this one, of 10 MiB. Run by its path; it imports nothing of ours.
"""

import json
import os
import signal
import sys
import time


def main() -> None:
    """Run the command, wait, write the result; SIGTERM is passed on."""
    result, command = sys.argv[1], sys.argv[2:]
    awaited = {signal.SIGCHLD, signal.SIGTERM}
    signal.signal(signal.SIGCHLD, lambda *_: None)  # what is ignored, as by default, may never be awaited
    signal.pthread_sigmask(signal.SIG_BLOCK, awaited)  # so that none is lost, whenever it comes
    begin = time.perf_counter()
    child = os.posix_spawnp(command[0], command, os.environ, setsigmask=[], setsigdef=[signal.SIGTERM])
    ended = status = 0
    while not ended:
        if signal.sigwait(awaited) == signal.SIGTERM:
            os.kill(child, signal.SIGTERM)
        ended, status, used = os.wait4(child, os.WNOHANG)
    seconds = time.perf_counter() - begin
    cost = {
        "exit_code": os.waitstatus_to_exitcode(status),
        "seconds": seconds,
        "cpu_seconds": used.ru_utime + used.ru_stime,
        "peak_bytes": used.ru_maxrss * (1 if sys.platform == "darwin" else 1024),
        "disk_read_bytes": used.ru_inblock * 512,
        "disk_written_bytes": used.ru_oublock * 512,
    }
    with open(result, "w", encoding="utf-8") as file:  # noqa: PTH123 - pathlib takes longer to load than all the rest
        json.dump(cost, file)


if __name__ == "__main__":
    main()
