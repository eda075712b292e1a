"""
Muon, all matrices of one shape at once.

torch.optim.Muon takes one matrix after another, in bfloat16, which most CPUs are slow at. The same steps are batched
here, and on CPUs in float32 unless the step is taken under autocast (`python -m bench.speed --only=training`).
"""

from collections import defaultdict

import torch


class Muon(torch.optim.Muon):
    """
    Momentum, made orthogonal by Newton and Schulz's iteration (Jordan, 2024), steps as long as AdamW's would be
    (Liu et al., arXiv 2502.16982). State and other defaults are torch.optim.Muon's.
    """

    def __init__(self, params, lr, weight_decay):
        super().__init__(params, lr=lr, weight_decay=weight_decay, adjust_lr_fn='match_rms_adamw')

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            alike = defaultdict(list)
            for p in group['params']:
                if p.grad is not None:
                    alike[p.shape].append(p)
            for shape, params in alike.items():
                gradients = [p.grad for p in params]
                for p in params:
                    self.state[p].setdefault('momentum_buffer', torch.zeros_like(p))
                momentum = [self.state[p]['momentum_buffer'] for p in params]
                torch._foreach_lerp_(momentum, gradients, 1 - group['momentum'])
                ahead = torch._foreach_lerp(gradients, momentum, group['momentum']) if group['nesterov'] else momentum
                update = orthogonal(torch.stack(ahead), group['ns_coefficients'], group['ns_steps'], group['eps'])
                torch._foreach_mul_(params, 1 - group['lr'] * group['weight_decay'])
                torch._foreach_add_(
                    params, list(update.to(params[0].dtype)), alpha=-group['lr'] * 0.2 * max(shape) ** 0.5
                )


def configure_optimizers(model, name, weight_decay, learning_rate, betas):
    """
    'adamw', or 'muon' for the matrices of a GPT's blocks and AdamW for the rest -> list of optimizers. Matrices decay,
    vectors do not. AdamW is fused: one kernel, also on CPUs. Both step equally far: one learning rate serves.
    """
    hidden = [p for p in model.h.parameters() if p.dim() == 2 and name == 'muon']
    rest = [p for p in model.parameters() if not any(p is h for h in hidden)]
    groups = [
        {'params': [p for p in rest if p.dim() >= 2], 'weight_decay': weight_decay},
        {'params': [p for p in rest if p.dim() < 2], 'weight_decay': 0.0},
    ]
    optimizers = [torch.optim.AdamW(groups, lr=learning_rate, betas=betas, fused=True)]
    if hidden:
        optimizers.append(Muon(hidden, learning_rate, weight_decay))
    return optimizers


def orthogonal(x, coefficients, steps, eps):
    """matrices x (n, rows, columns) -> nearly U V of each one's U S V; only products, the quintic of Jordan's Muon"""
    if x.shape[1] > x.shape[2]:
        return orthogonal(x.mT, coefficients, steps, eps).mT
    a, b, c = coefficients
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=eps)
    in_bfloat16 = x.is_cuda or torch.is_autocast_enabled('cpu')
    x = x.to(torch.bfloat16 if in_bfloat16 else torch.float32)
    for _ in range(steps):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x
