"""
Demonstrations by minigrid's own bot, level by level: what is seen and done until the mission is carried out.
"""

import json
from functools import partial

from data.babyai.env import BabyAIVec
from data.workers import ranges_in_order

EPISODES = 10_000  # of each level, by default
BLOCK = 100  # episodes on one process
SEEDS = 10_000_000  # of minigrid, from one seed of collect() to the next


def demonstrations(level, number_of, size, seed, kwargs):
    """
    yields the episodes of a level, number_of among those of kwargs; says how many the bot could not carry out, which
    are left out
    """
    total, kept = max(3, round(EPISODES * size)), 0
    work = partial(shown, number_of=number_of, seed=seed, kwargs=kwargs)
    for _, episodes in ranges_in_order(work, total, BLOCK, level):
        kept += len(episodes)
        yield from ({**episode, 'source': level} for episode in episodes)
    print(f'{level}: the bot carried out {kept} of {total} missions, {total - kept} dropped')


def shown(numbers, number_of, seed, kwargs):
    """the episodes of these numbers that the bot carries out, a list"""
    env = BabyAIVec(1, **kwargs)
    seeds = [(seed * SEEDS + number) * len(env.names) + number_of for number in numbers]
    return [episode for s in seeds if (episode := show(env, s))]


def show(env, seed):
    """an episode of the bot, None where it does not carry out the mission; env: a BabyAIVec of one level"""
    from minigrid.utils.baby_ai_bot import BabyAIBot

    from data.babyai.parts import Parts

    obs, info = env.reset(seed=[seed])
    bot, action, over = BabyAIBot(env.levels[0]), None, False
    parts = Parts(env.levels[0])
    obs_log, act_log = [], []
    while not over:
        try:
            action = int(bot.replan(action))
        except Exception:  # of any kind: it asserts, and does not say what
            return None
        obs_log.append(obs[0])
        act_log.append([action])
        obs, _, terminated, truncated, info = env.step([action])
        over = terminated[0] or truncated[0]
        parts.see(len(act_log), info['success'][0])
    if not info['success'][0]:
        return None
    asked = {'asked': env.missions[0], 'parts': json.dumps(parts.of(len(act_log)))}
    return {'obs': obs_log, 'act': act_log, 'bd': [], 'seed': seed, **asked}
