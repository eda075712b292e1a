# A return-conditioned Decision Transformer on CartPole-v1.
# $ python prepare.py --dataset=cartpole && python train.py config/cartpole.py
# $ python sample_policy.py --out_dir=out-cartpole --bd=200
# 2 minutes on one core; it balances for as many steps as its prompt says: 500 for 500, 51 for 50, see
# data/cartpole/readme.md
out_dir = 'out-cartpole'
dataset = 'cartpole'
source_weights = ''
drop_bd = 0.0
text_len = 0
fuse = 'interleave'
past_actions = True
block_size = 3 * 20  # 20 steps of up to 500
chunk = 1
segment_len = 40
head = 'ce'
n_layer = 3
n_embd = 64
n_future = 0
batch_size = 32
optimizer = 'adamw'
learning_rate = 1e-3
max_iters = 1500
eval_interval = 500
rollouts = 0
