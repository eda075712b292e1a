# The original, partially observed world: 3 lasers and 2 bumpers, no pose. The robot must remember the way it came, so the
# window covers the whole episode.
# $ python train.py config/toy_nav_lasers.py
# A few minutes on a large GPU; its scores have not been measured yet.
out_dir = 'out-toy-nav-lasers'
obs_names = 'laser_left,laser_ahead,laser_right,bumper_left,bumper_right'
n_layer = 6
n_head = 8
n_embd = 256
chunk = 4
block_size = 64 + 3 * 100
text_len = 64
batch_size = 64
learning_rate = 1e-3
max_iters = 12000
eval_interval = 1000
