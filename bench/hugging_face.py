"""Hugging Face's Decision Transformer at its published size, driven and trained as its documentation does."""

import torch
from torch.nn import functional as F

K = 20  # steps in view


def hopper(bench):
    """-> their model at the size of sizes.HOPPER, or None where transformers is not installed"""
    try:
        from transformers import DecisionTransformerConfig, DecisionTransformerModel
    except ImportError:
        return None
    torch.manual_seed(bench.seed)
    config = DecisionTransformerConfig(
        state_dim=11,
        act_dim=3,
        hidden_size=bench.size(128, 16),
        n_layer=bench.size(3, 1),
        n_head=1,
        max_ep_len=4096,
        bos_token_id=None,
        eos_token_id=None,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
    )
    return DecisionTransformerModel(config).eval()


@torch.inference_mode()
def act(model, n):
    """n actions in one environment: the last K steps are computed anew for each"""
    mask = torch.ones(1, K, dtype=torch.long)
    history = dict(
        states=torch.randn(1, K, 11),
        actions=torch.randn(1, K, 3),
        returns_to_go=torch.randn(1, K, 1),
        timesteps=torch.arange(K)[None],
    )
    for _ in range(n):
        model(**history, rewards=None, attention_mask=mask).action_preds[0, -1]


def training_loop(model, batches):
    """-> a function that takes n training steps"""
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)

    def steps(n):
        for i in range(n):
            batch = batches.batch(i)
            obs, act, bd = (torch.from_numpy(batch[name]) for name in ('obs', 'act', 'bd'))
            B, S = obs.shape[:2]
            out = model(
                states=obs[:, :, 0],
                actions=act[:, :, 0],
                returns_to_go=bd.nan_to_num().expand(-1, S, -1),
                rewards=None,
                timesteps=torch.arange(S).expand(B, -1),
                attention_mask=torch.ones(B, S, dtype=torch.long),
            )
            F.mse_loss(out.action_preds, act[:, :, 0]).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 0.25)
            optimizer.step()
            optimizer.zero_grad()

    return steps
