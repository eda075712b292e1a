"""
What a trained policy does, put right: it begins an episode, and the data set's driver ends it from where it has come to
(DAgger: Ross, Gordon and Bagnell, AISTATS 2011).
"""

import torch

from data import contract
from data.blocks import blocks_of
from nanopilot.policy import Policy
from nanopilot.rollout import dataset_of, rollout


def load_policy(folder, data, kwargs):
    """the policy of a training run; ValueError where it is of another data set than data, or of another environment"""
    torch.set_num_threads(1)  # as the workers have: numbers of threads may round differently
    contract.part(data, 'relabel', cure='Leave out --relabel, or write it: see data/README.md')
    policy = Policy.load(folder)
    of, name = policy.info['dataset'], contract.name_of(data)
    if of != name:
        raise ValueError(f'{folder} was trained on {of}, not on {name}. Set --relabel to a run of this data set')
    if policy.data_spec['env_kwargs'] != kwargs:
        raise ValueError(f'{folder} was trained in another environment than this run. Set its --env_kwargs')
    return policy


def training_prompts(policy, archives, reader):
    """
    yields (text, request, seed of the environment) of the training episodes of archives, as far as they ask; reader:
    the Reader of blocks.py that says which these are
    """
    data = dataset_of(policy)
    for block in blocks_of(a for a in archives if {'asked', 'path'} <= set(a.names)):
        for number, episode in enumerate(block.episodes(), block.number):
            notes = reader.notes(data, episode, number, block.meta.get('split'), block.file)
            fitting = [text for text in notes['text'] if policy.fits(text)]
            if notes['split'] == 'train' and notes['asked'] and fitting:
                yield fitting[number % len(fitting)], notes['asked'], episode['seed']


def begun_and_ended(policy, prompts, seed, desc):
    """
    prompts: a list of what training_prompts yields -> what the data set's relabel makes of the policy's rollouts for
    them: episodes, without those that it cannot end well
    """
    texts, requests, seeds = zip(*prompts)
    rollouts = rollout(policy, texts, [None] * len(texts), seeds, seed=seed, desc=desc)
    episodes = [{**episode, 'asked': request} for episode, request in zip(rollouts, requests)]
    return dataset_of(policy).relabel(episodes, seed, policy.data_spec['env_kwargs'])
