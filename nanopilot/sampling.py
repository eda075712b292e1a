"""The best option, or one drawn: temperature and top-p, for clusters of actions, discrete actions and tokens."""

import torch


def sample_logits(logits, temperature=0.0, top_p=1.0, generator=None):
    """logits (..., n) -> (...) int64: the best, or drawn from the fewest options that hold top_p of the probability."""
    if temperature == 0:
        return logits.argmax(-1)
    p, order = torch.softmax(logits / temperature, dim=-1).sort(dim=-1, descending=True)
    p = torch.where(p.cumsum(-1) - p < top_p, p, 0.0)  # the first one always stays
    i = torch.multinomial(p.flatten(0, -2), 1, generator=generator).view(*p.shape[:-1], 1)
    return order.gather(-1, i).squeeze(-1)
