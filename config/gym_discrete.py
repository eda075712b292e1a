# The same as config/gym.py for discrete actions.
# $ python prepare.py --dataset=gym --env=CartPole-v1 --archive=mine.npz && python train.py config/gym_discrete.py
# $ python sample_policy.py --out_dir=out-gym --bd=200
out_dir = 'out-gym'
dataset = 'gym'
source_weights = ''
drop_bd = 0.1
text_len = 0  # with texts, as prepare.py makes them: --text_len=64 --block_size=124
fuse = 'interleave'
past_actions = True
block_size = 3 * 20  # 20 steps
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
