# The original, partially observed world: 3 lasers and 2 bumpers, no pose. Where it is, the policy works out from what it did and saw
# (belief.py), so the rest is as in config/toy_nav.py.
# $ python train.py config/toy_nav_lasers.py
# 53 minutes on one CPU core, about half of it on two; carries out 67% of unseen prompts: data/toy_nav/readme.md.
out_dir = 'out-toy-nav-lasers'
obs_names = 'laser_left,laser_ahead,laser_right,bumper_left,bumper_right'
privileged_obs = 'x,y,cos,sin'
source_weights = 'demonstrations=0.75,elites=0.25'
n_layer = 6
n_head = 4
n_embd = 128
chunk = 8
fuse = 'sum'
past_actions = False
obs_stack = 1
text_len = 64
block_size = 64 + 50  # 50 steps of 8: the whole episode
batch_size = 16
optimizer = 'muon'
learning_rate = 2e-3
max_iters = 16000
eval_interval = 2000
rollouts = 100
log_interval = 100
drop_text = 0.05
drop_bd = 'demonstrations=0.8,elites=0.3'
