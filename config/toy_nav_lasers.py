# The original, partially observed world: 3 lasers and 2 bumpers, no pose. The robot must remember the way it came: the window
# covers the whole episode, and it sees what it did.
# $ python train.py config/toy_nav_lasers.py
# 25 minutes on one CPU core, less on two; its scores stand in data/toy_nav/readme.md.
out_dir = 'out-toy-nav-lasers'
obs_names = 'laser_left,laser_ahead,laser_right,bumper_left,bumper_right'
mix = 'demonstrations=0.75,elites=0.25'
n_layer = 4
n_head = 4
n_embd = 128
chunk = 8
fuse = 'sum'
text_len = 64
block_size = 64 + 50 # 50 steps of 8: the whole episode
batch_size = 16
optimizer = 'muon'
learning_rate = 2e-3
max_iters = 9000
eval_interval = 3000
rollouts = 100
log_interval = 100
drop_text = 0.05
drop_bd = 0.7
