"""Muon: the batched steps are torch's own."""

import pytest
import torch

from nanopilot.optim import Muon, orthogonal


@pytest.mark.parametrize('shape', [(8, 8), (24, 8), (8, 32)])
def test_orthogonal_matrices_have_singular_values_around_one(shape):
    x = torch.randn(5, *shape, generator=torch.Generator().manual_seed(0))
    u, s, vh = torch.linalg.svd(x, full_matrices=False)
    y = orthogonal(x, (3.4445, -4.775, 2.0315), 5, 1e-7)
    assert y.shape == x.shape
    turned = u.mT @ y @ vh.mT  # the same directions, other lengths
    assert torch.allclose(turned, torch.diag_embed(turned.diagonal(dim1=1, dim2=2)), atol=1e-3)
    assert turned.diagonal(dim1=1, dim2=2).min() > 0.3 and turned.diagonal(dim1=1, dim2=2).max() < 1.3
    assert torch.allclose(orthogonal(1e3 * x, (3.4445, -4.775, 2.0315), 5, 1e-7), y, atol=1e-4)


def test_steps_are_those_of_torch():
    """to what bfloat16, in which torch computes them, tells apart"""
    g = torch.Generator().manual_seed(1)
    shapes = [(8, 8), (24, 8), (8, 8), (8, 32)]
    ours, theirs = ([torch.nn.Parameter(torch.ones(shape)) for shape in shapes] for _ in range(2))
    one, other = (
        Muon(ours, 0.01, 0.1),
        torch.optim.Muon(theirs, lr=0.01, weight_decay=0.1, adjust_lr_fn='match_rms_adamw'),
    )
    for _ in range(4):
        for p, q in zip(ours, theirs):
            p.grad = torch.randn(p.shape, generator=g)
            q.grad = p.grad.clone()
        one.step()
        other.step()
    for p, q in zip(ours, theirs):
        assert torch.allclose(p, q, atol=2e-3) and (p - 1).abs().max() > 0.01
        assert torch.allclose(one.state[p]['momentum_buffer'], other.state[q]['momentum_buffer'])


def test_a_matrix_without_gradient_stays():
    a, b = (torch.nn.Parameter(torch.ones(4, 4)) for _ in range(2))
    a.grad = torch.eye(4)
    Muon([a, b], 0.1, 0.1).step()
    assert torch.equal(b, torch.ones(4, 4)) and not torch.equal(a, torch.ones(4, 4))
