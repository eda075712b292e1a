"""
Episodes of exported policies, driven where torch cannot be imported: test_onnx.py compares them with Policy's.

$ python tests/without_torch.py FOLDER   # of a folder for each policy, with policy.onnx and how it is driven: how.npz
"""

import sys
from pathlib import Path

import numpy as np

PROMPTS = ['go to the bed, then stop', None, 'pass the stove']


def drive(policy, how):
    """
    Three episodes, each at its own step: their rows wait at random, one begins anew, two are asked for something else,
    and at last what to reach changes at every step -> the actions (T, 3, ..), 0 where a row waits
    """
    obs, bd, skip = how['obs'], list(how['bd']), how['skip']
    has_words, has_bd = policy.config.text_len > 0, policy.config.n_bd > 0
    if has_words:
        bd[1] = None
    prompts = PROMPTS if has_words else [None] * 3
    policy.reset(prompts, bd if has_bd else None)
    actions = []
    for t, (now, waits) in enumerate(zip(obs, skip)):
        to_go = None
        if has_bd and t > len(obs) * 2 // 3:
            to_go = how['bd'] * t / len(obs)
        act = policy.act(now, to_go, skip=waits)
        actions.append(np.where(waits.reshape(3, *[1] * (act.ndim - 1)), 0, act))
        if t == len(obs) // 3:
            policy.reset_rows([False, True, False], ['go north of the sofa'] if has_words else None)
        if t == len(obs) // 2 and has_words:
            policy.change_prompts([True, False, True], ['stop', PROMPTS[0]])
    return np.array(actions)


def main():
    sys.modules['torch'] = None  # importing it is an error now
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    from nanopilot.onnx_policy import OnnxPolicy

    for folder in sorted(Path(sys.argv[1]).iterdir()):
        policy = OnnxPolicy.load(folder / 'policy.onnx')
        np.save(folder / 'acts.npy', drive(policy, np.load(folder / 'how.npz')))
    imported = {name.partition('.')[0] for name in sys.modules}
    ours = {'data', 'nanopilot', 'sentencepiece', 'numpy', 'onnxruntime'}
    print(*sorted(imported - set(sys.stdlib_module_names) - ours))


if __name__ == '__main__':
    main()
