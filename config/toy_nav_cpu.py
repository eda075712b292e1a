# The small one, for two CPU cores: what `make demo` trains.
# $ python train.py config/toy_nav_cpu.py
# About 9 minutes on 2 cores; carries out 62% of unseen prompts: see the README's table.
out_dir = 'out-toy-nav-cpu'
source_weights = 'demonstrations=0.85,elites=0.15'
n_layer = 4
n_head = 4
n_embd = 128
chunk = 8
fuse = 'sum'  # one token a step
past_actions = False  # who sees how it moved goes on so, and who sees that it stood still goes on standing
obs_stack = 1
text_len = 64
block_size = 64 + 50  # 50 steps of 8: the whole episode is in view
batch_size = 16  # at equal minutes, many small steps beat few large ones
optimizer = 'muon'  # lower loss after 1500 steps than adamw at any of three learning rates: data/toy_nav/readme.md
learning_rate = 2e-3
max_iters = 7000
eval_interval = 1000
rollouts = 100
log_interval = 100
drop_text = 0.05
drop_bd = 'demonstrations=0.8,elites=0.3'  # elites are asked for by where they end, demonstrations by words
