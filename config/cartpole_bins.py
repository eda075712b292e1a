# A language model of CartPole: every number is a token. It balances, and it makes up episodes.
# $ python prepare.py --dataset=cartpole_bins && python train.py config/cartpole_bins.py
# $ python sample_policy.py --out_dir=out-cartpole-bins --eval=test
# $ python sample_policy.py --out_dir=out-cartpole-bins --dream=100
# 6 to 7 minutes on one core; mean return 500 of 500 in each of 5 seeds, see data/cartpole_bins/readme.md
out_dir = 'out-cartpole-bins'
dataset = 'cartpole_bins'
source_weights = 'expert=1,random=0'  # expert=0,random=1: from random actions alone
drop_bd = 0.5
text_len = 0
fuse = 'bins'
head = 'tokens'
past_actions = True
block_size = 5 * 20  # 20 steps, each of the action before and 4 numbers
chunk = 1
segment_len = 40
n_layer = 3
n_embd = 64
n_future = 0
batch_size = 32
optimizer = 'adamw'
learning_rate = 1e-3
max_iters = 1500
eval_interval = 500
rollouts = 50
