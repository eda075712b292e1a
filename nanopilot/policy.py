"""
A trained policy for any loop: prompts in, observations in, actions out.

    policy = Policy.load('out-toy-nav-cpu')
    env = make_vec(8)                                # any gymnasium.vector.VectorEnv with the observations of training
    obs, _ = env.reset(seed=0)
    policy.reset(['go north of the fridge'] * 8)
    done = np.zeros(8, bool)
    for _ in range(400):
        act = policy.act(obs, skip=done)             # a row that is done takes no step, and the environment ignores
        obs, _, terminated, truncated, _ = env.step(act) # its action: Gymnasium's NEXT_STEP
        policy.reset_rows(done)                      # now that row has begun a new episode
        done = terminated | truncated

Other loops, of one environment, of other modes of autoreset, and of returns, which rewards count down: episodes.py.
"""

import torch

from data.encoders import load_tokenizer
from data.text import pad_prompts
from nanopilot.checkpoint import find_checkpoint, read_file
from nanopilot.episodes import Episodes
from nanopilot.kv_cache import KVCache, by_columns
from nanopilot.saying import likeliest, probability, say


class Policy(Episodes):
    """
    n episodes in lockstep or each at its own step, acted in by one checkpoint; reset, act and the rest: episodes.py.

    Keys and values are kept (kv_cache.py), so an environment step costs the same however long the episode is; the
    prompt of an episode is read once.
    """

    def __init__(self, model, info, tokenizer=None, device='cpu'):
        """info: a checkpoint's JSON, or of it dataset, data and obs_columns"""
        norm, n_obs = model.steps.obs_norm, model.config.n_obs
        mean, std = norm.mean[:n_obs].cpu().numpy(), norm.std[:n_obs].cpu().numpy()
        super().__init__(model.config, info, tokenizer, mean, std, model.head.discrete)
        self.model = model
        self.device = device

    def __reduce__(self):
        """pickled, as other processes get it: what rebuilds it, without the episodes it is in"""
        return type(self), (self.model, self.info, self.tokenizer, self.device)

    @classmethod
    def load(cls, out_dir, which='best', device='cpu', bert_model=''):
        """
        A directory that train.py wrote; which: 'best', of the lowest validation loss, 'latest', or a directory in it.
        bert_model: where the frozen encoder is, if it has one; '': where it was when the prompts were prepared
        """
        from model import GPT  # here alone: model.py imports from this package

        folder = find_checkpoint(out_dir, which)
        model, info = GPT.from_checkpoint(folder, device)
        tokenizer = None
        if model.config.text_len:
            encoder = info['data'].get('text_encoder', 'learned')
            file = read_file(folder, 'tokenizer.model', info)
            tokenizer = load_tokenizer(encoder, file, info['data']['words'], bert_model)
        return cls(by_columns(model), info, tokenizer, device)

    def new_cache(self, n):
        return KVCache(self.model, n, self.tokenizer.pad_prompts if self.tokenizer else pad_prompts)

    def say(self, prompts):
        return say(self.model, prompts)

    def how_sure(self, prompt):
        """-> what the policy says of a prompt, as understood(), and its probability: about how often that is right"""
        (ids,) = self.asked([prompt])
        return self.tokenizer.decode(ids), probability(self.model, self.tokens(prompt), ids)

    def readings(self, prompt, n=3):
        """the likeliest things that the policy might say of a prompt -> [(text, probability), ..]"""
        candidates = likeliest(self.model, self.tokens(prompt), n)
        return [(self.tokenizer.decode(ids), p) for ids, p in candidates]

    def inputs(self, array):
        return torch.from_numpy(array).to(self.device)

    def sample(self, out, temperature, top_p, generator):
        return self.model.head.sample(out, temperature, top_p, generator).cpu().numpy()
