# Actions that are numbers, from somebody's file: a Decision Transformer where it has rewards, else imitation.
# $ python prepare.py --dataset=gym --env=Hopper-v5 --archive=hopper.hdf5 && python train.py config/gym.py
# $ python sample_policy.py --out_dir=out-gym --bd=3000
out_dir = 'out-gym'
dataset = 'gym'
source_weights = ''
drop_bd = 0.1
text_len = 0  # with texts, as prepare.py makes them: --text_len=64 --block_size=124
fuse = 'interleave'
block_size = 3 * 20  # 20 steps
chunk = 1
segment_len = 40
n_layer = 3
n_embd = 128
n_future = 0
batch_size = 32
learning_rate = 1e-3
max_iters = 3000
eval_interval = 500
rollouts = 0
