"""Who sees whom, and the places of the steps that are kept while acting; numbers alone, so that it needs no torch."""

import numpy as np


def sees(q_step, q_index, k_step, k_index, K):
    """The mask, wherever it is needed: a query sees a key before it, of the last K steps or a word (step < 0)."""
    return (k_index <= q_index) & ((q_step - k_step < K) | (k_step < 0))


def places(K, first_slot):
    """
    How many steps are kept: step t is in place t modulo this. A token of the action before (first_slot: 1) belongs to
    the step before, and sees that one's whole window: then there is one more.
    """
    return K + first_slot


def seen_steps(K, n_slots, first_slot):
    """
    What each token of the steps t = 0 .. 2 * ring - 1 sees of the kept tokens, bool (2 * ring, n_slots, ring * n_slots)
    for a ring of places(K, first_slot); from t = ring on, the steps t and t + ring see the same.
    """
    ring = places(K, first_slot)
    t = np.arange(2 * ring)[:, None, None]
    slot, column = np.arange(n_slots)[:, None], np.arange(ring * n_slots)
    holds = t - (t - column // n_slots) % ring  # the step that each column holds, negative: none yet
    k_slot = column % n_slots
    q_step = t - (slot < first_slot)  # the action before belongs to the step before
    k_step = holds - (k_slot < first_slot)
    seen = sees(q_step, t * n_slots + slot, k_step, holds * n_slots + k_slot, K) & (k_step >= 0)
    return seen | (q_step < 0) & (holds == t)  # the very first step has no action before: its token is seen by nobody


def pattern(t, ring):
    """steps t (n,) -> their number in seen_steps"""
    return np.where(t < ring, t, t % ring + ring)


def check_length(latest, max_steps):
    """refuse a step that a policy has no embedding of"""
    if latest >= max_steps:
        raise ValueError(f'an episode has reached step {latest}, but the policy knows {max_steps} only. Reset it')
