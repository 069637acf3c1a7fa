"""Work in forked processes: what multiprocessing does by default on Linux, and DataLoaders do."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch

from codec.bottlenecks import FSQ
from codec.locks import computed_once
from tests.conftest import tones, wav

SCRIPT = """
import os, signal
import torch
from codec.bottlenecks import VQ

torch.set_num_threads(2)
if os.fork() == 0:  # where nothing was computed, nothing is changed
    os._exit(0 if torch.get_num_threads() == 2 else 1)
assert os.wait()[1] == 0
vq = VQ(64, (1024,)).eval()
z = torch.randn(1, 64, 4096)
indices = vq.encode(z)
child = os.fork()
if child == 0:
    signal.alarm(20)  # a child that waits for threads that are not there is ended by it
    same = torch.equal(vq.encode(z), indices)
    os._exit(0 if same and torch.get_num_threads() == 1 else 1)
_, status = os.waitpid(child, 0)
assert status == 0, status
assert torch.get_num_threads() == 2
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no forks here")
def test_a_forked_process_does_not_wait_for_threads_that_stayed_behind() -> None:
    environment = os.environ | {"OMP_NUM_THREADS": "2"}
    subprocess.run([sys.executable, "-c", SCRIPT], env=environment, check=True)


def test_a_compiled_bottleneck_is_traced_without_a_warning() -> None:
    """What prepares for forks is on the way of every forward pass."""
    torch.manual_seed(0)
    method = FSQ().eval()
    z = torch.randn(1, method.in_dim, 20)
    compiled = torch.compile(method, backend="eager")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.equal(compiled(z, 256).z_q, method(z, 256).z_q)
    torch._dynamo.reset()


# A thread loads and compresses all the time; meanwhile the main thread forks.
BESIDE = """
import os, signal, sys, threading, time
import codec

source = sys.argv[1]
running = True
def compress():
    while running:
        codec.compress(source, 256)
thread = threading.Thread(target=compress)
codec.compress(source, 256)
thread.start()
children = []
for _ in range(12):
    child = os.fork()
    if child == 0:
        signal.alarm(60)
        codec.compress(source, 256)
        os._exit(0)
    children.append(child)
    time.sleep(0.05)
statuses = [os.waitpid(child, 0)[1] for child in children]
running = False
thread.join()
assert not any(statuses), statuses
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no forks here")
def test_a_forked_process_does_not_wait_for_locks_of_other_threads(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(wav(tones(4000)))
    words = [sys.executable, "-W", "ignore", "-c", BESIDE, str(tmp_path / "a.wav")]
    subprocess.run(words, env=os.environ | {"OMP_NUM_THREADS": "1"}, check=True)


def test_a_value_is_computed_once_for_each_instance() -> None:
    class Counted:
        def __init__(self) -> None:
            self.calls = 0

        @computed_once
        def value(self) -> int:
            """What it is."""
            self.calls += 1
            return self.calls

    one, other = Counted(), Counted()
    assert (one.value, one.value, other.value) == (1, 1, 1)
    assert Counted.value.__doc__ == "What it is."
