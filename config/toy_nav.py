# The real one: the room with lasers, bumpers and pose.
# $ python train.py config/toy_nav.py
# $ torchrun --standalone --nproc_per_node=8 train.py config/toy_nav.py
# 69 minutes on one CPU core, about half of it on two; carries out 83% of unseen prompts: data/toy_nav/readme.md.
out_dir = 'out-toy-nav'
source_weights = 'demonstrations=0.75,elites=0.25'
n_layer = 6
n_head = 4
n_embd = 128
chunk = 8
fuse = 'sum'  # this and what follows as in config/toy_nav_cpu.py, where it was measured
past_actions = False
obs_stack = 1
text_len = 64
block_size = 64 + 50  # 50 steps of 8: the whole episode is in view
batch_size = 16
optimizer = 'muon'
learning_rate = 2e-3
max_iters = 22000
eval_interval = 2000
rollouts = 100
log_interval = 100
drop_text = 0.05
drop_bd = 'demonstrations=0.8,elites=0.3'  # elites are asked for by where they end, demonstrations by words
