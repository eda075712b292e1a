"""A GPU: training in bfloat16, compiled, as a share of what a large matrix product reaches; steps of many policies."""

import torch

from bench.acting import in_flight
from bench.pairs import seconds, skipped, value_row
from bench.sizes import ACTING, INTERLEAVE, config_of, make, noise
from model import GPT

GOALS = {128: 10, 256: 20, 384: 30, 512: 35, 768: 40}  # width: % of the matmul ceiling
TOKENS = 256  # of a sequence


def gpu(bench, device='cuda'):
    n_rows = bench.size(1024, 4)
    if device == 'cuda' and not torch.cuda.is_available():
        return [
            skipped('training, as a share of the matmul ceiling', 'no GPU'),
            skipped(f'policy steps, batch {n_rows}', 'no GPU'),
        ]
    rows = []
    for width in bench.size(list(GOALS), [128]):
        rows += training(bench, device, width)
    model = make(bench, 200, **ACTING).to(device)
    steps = in_flight(bench, model, n_rows, 16, bench.size(50, 2))
    speeds = [per_second(device, lambda: steps(1), n_rows * model.config.chunk) for _ in range(bench.pairs)]
    return rows + [value_row(f'policy steps, batch {n_rows}', speeds, '/s', 500_000)]


def wait(device):
    if device == 'cuda':
        torch.cuda.synchronize()


def per_second(device, f, amount, n=10):
    """f() does `amount` of something: how much a second?"""

    def repeat():
        for _ in range(n):
            f()
        wait(device)

    for _ in range(3):  # warm up
        f()
    wait(device)
    return n * amount / seconds(repeat)


def training_step(bench, device, config, B):
    """-> a function that takes one training step in bfloat16, compiled on a GPU, and the model"""
    torch.manual_seed(bench.seed)
    torch.compiler.reset()  # else it soon gives up on ever new widths
    model = GPT(config).to(device).train()
    compiled = torch.compile(model) if device == 'cuda' else model
    (optimizer,) = model.configure_optimizers('adamw', 0.01, 1e-3, (0.9, 0.95))
    batch = [x.to(device) for x in noise(bench, config, B, 64, 64)]
    mask = torch.ones(B, 64, 1, dtype=torch.bool, device=device)

    def step():
        with torch.autocast(device, torch.bfloat16):
            loss = compiled(*batch, loss_mask=mask)[1]
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss

    return step, model


def training(bench, device, width):
    B = bench.size(65536, 512) // TOKENS
    fields = INTERLEAVE | dict(text_len=64, max_steps=64, n_layer=6, n_head=width // 64, n_embd=width, n_future=0)
    step, model = training_step(bench, device, config_of(bench, 64, **fields), B)
    size = bench.size(8192, 256)
    a, b = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    # a token: nanoGPT's estimate, without embeddings
    weights = sum(p.numel() for p in model.h.parameters())
    flops = 6 * weights + 12 * model.config.n_layer * model.config.n_embd * TOKENS

    def plain():
        step()
        wait(device)

    def deterministic():
        torch.use_deterministic_algorithms(True)
        plain()
        torch.use_deterministic_algorithms(False)

    share = []
    for _ in range(bench.pairs):
        reached = per_second(device, step, flops * B * TOKENS)
        share.append(100 * reached / per_second(device, lambda: a @ b, 2 * size**3))
    name = f'a training step with --deterministic, against one without, width {width}: its cost'
    of = f'training in bfloat16, compiled, width {width}: share of the matmul ceiling'
    return [bench.compare(name, deterministic, plain, None), value_row(of, share, ' %', GOALS[width])]
