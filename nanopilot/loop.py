"""
SIGTERM and Ctrl-C ask a run to stop: what it is doing is finished, or broken off where that is harmless, and all of it is saved.
"""

import signal

import torch
import torch.distributed as dist


class Interrupted(BaseException):
    """Raised by a signal, but only within `unless_asked`; no Exception, lest libraries deal with it."""


class Interrupt:
    """
    What was asked since `install()`. `asked`: the signal's number, 0: none; a second signal changes nothing. `by_any()` is the same for
    all ranks, who have to call it at the same places.
    """

    def __init__(self):
        self.asked, self.breakable = 0, False

    def install(self):
        self.group = dist.new_group(backend='gloo') if dist.is_initialized() else None  # not worth waiting for a GPU
        for s in signal.SIGTERM, signal.SIGINT:
            signal.signal(s, self.handle)

    def handle(self, signum, frame):
        self.asked = self.asked or signum
        if self.breakable:
            self.breakable = False
            raise Interrupted

    def by_any(self):
        if self.group is None:
            return self.asked
        asked = torch.tensor(self.asked)
        dist.all_reduce(asked, dist.ReduceOp.MAX, group=self.group)
        return asked.item()

    def unless_asked(self, f, *args):
        """f(*args), which has no effect but its result: None, at once, if a signal has come or comes"""
        try:
            try:
                self.breakable = True
                return None if self.asked else f(*args)
            finally:
                self.breakable = False
        except Interrupted:  # maybe just before it could not be raised any more
            return None
