"""Commands in forked processes, which need not import torch.

The fork server of multiprocessing has imported it. Limits, pipes and signals are separate.
"""

import contextlib
import multiprocessing
import os
import signal
import sys
from concurrent.futures import ThreadPoolExecutor
from subprocess import CompletedProcess

PATIENCE = 100  # seconds until a process is killed
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(
    [
        *("gadgets.commands", "gadgets.score_recon", "gadgets.service.pipe"),
        *("scoremri_core.recon.volume", "scoremri_core.simulation.simulation"),
    ]
)


def run_forked(*command, data=b"", limit=None):
    """Run a command line as `subprocess.run` with pipes.

    Parameters
    ----------
    command : str
        Arguments of `scoremri`.
    data : bytes, optional
        Standard input.
    limit : int, optional
        Maximal size of written files in bytes.

    Returns
    -------
    CompletedProcess
    """
    inputs, *outputs = [FORKS.Pipe(duplex=False) for _ in range(3)]
    theirs = [inputs[0], *(sink for _, sink in outputs)]
    ours = [inputs[1], *(source for source, _ in outputs)]
    process = FORKS.Process(target=_command, args=([*map(str, command)], theirs, limit))
    process.start()
    for end in theirs:
        end.close()
    with contextlib.ExitStack() as stack:
        stdin, *streams = (
            stack.enter_context(os.fdopen(os.dup(end.fileno()), mode))
            for end, mode in zip(ours, ("wb", "rb", "rb"), strict=True)
        )
        for end in ours:
            end.close()
        pool = stack.enter_context(ThreadPoolExecutor())
        read = [pool.submit(stream.read) for stream in streams]
        with contextlib.suppress(BrokenPipeError):
            stdin.write(data)
            stdin.flush()
        with contextlib.suppress(BrokenPipeError):
            stdin.close()
        process.join(PATIENCE)
        late = process.is_alive()
        process.kill()
        out, err = (future.result() for future in read)
    assert not late, err
    return CompletedProcess(command, process.exitcode, out, err)


def _command(arguments, streams, limit):
    for descriptor, stream in enumerate(streams):
        os.dup2(stream.fileno(), descriptor)
        stream.close()
    sys.stdin, sys.stdout = os.fdopen(0), os.fdopen(1, "w")
    sys.stderr = os.fdopen(2, "w", buffering=1)
    os.environ["COLUMNS"] = "200"
    signal.signal(signal.SIGINT, signal.default_int_handler)  # whatever the tests inherited
    if limit is not None:
        import resource

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # writing raises instead
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    from gadgets.commands import main

    sys.argv = ["scoremri", *arguments]
    main()
