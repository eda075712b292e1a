"""How torch's threads wait for each other. It is read when torch is loaded: call this before."""

import os
import sys

# GNU's OpenMP, in torch's wheels, by default spins 300,000 times before a thread sleeps: nothing lost on an idle
# machine, but with a busy neighbour each product waits for a thread that is not running. 2,000 times cost 3% idle and
# take half as long beside a neighbour (python -m bench.speed --only=busy); PASSIVE, which never spins, cost 20% idle
BRIEFLY = {
    'GOMP_SPINCOUNT': '2000',
    'OMP_WAIT_POLICY': 'PASSIVE',
}  # the latter for other OpenMPs: GNU's takes the count
BY_USER = (*BRIEFLY, 'KMP_BLOCKTIME')


def wait_briefly():
    """Let threads sleep soon while they wait, unless the user has said how they wait, or torch is already loaded."""
    if 'torch' not in sys.modules and not any(name in os.environ for name in BY_USER):
        os.environ.update(BRIEFLY)
