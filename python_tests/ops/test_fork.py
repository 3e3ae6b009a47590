"""A child that is forked from a process whose operators ran on several threads."""

import subprocess
import sys

CHILD = """
import os, signal, torch
from memofast.ops import bias_gelu
torch.set_num_threads(2)
x, bias, weight = torch.randn(40000, 64), torch.randn(64), torch.randn(64, 96)
before = bias_gelu(x, bias), x @ weight
child = os.fork()
if not child:
    signal.alarm(20)
    same = [torch.equal(one, other) for one, other in zip((bias_gelu(x, bias), x @ weight), before)]
    os._exit(10 * (torch.get_num_threads() - 1) + same.count(False))
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), torch.get_num_threads())
"""


def test_it_computes_the_same_on_one_thread():
    ended = subprocess.run([sys.executable, "-c", CHILD], check=True, capture_output=True, text=True)
    assert ended.stdout.split() == ["0", "2"]
