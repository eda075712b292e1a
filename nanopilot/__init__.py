"""Policies steered by words: what scripts and bench/ share, and what a user imports: from nanopilot import Policy."""

from data.threads import wait_briefly

wait_briefly()  # before torch is loaded


def __getattr__(name):
    if name == 'Policy':  # when it is asked for: prepare.py needs no torch
        from nanopilot.policy import Policy

        return Policy
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
