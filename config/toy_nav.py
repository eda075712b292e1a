# The real one: the room with lasers, bumpers and pose, one GPU or an hour of patience.
# $ python train.py config/toy_nav.py
# $ torchrun --standalone --nproc_per_node=8 train.py config/toy_nav.py
# A few minutes on a large GPU; its scores have not been measured yet (config/toy_nav_cpu.py's have, see the README).
out_dir = 'out-toy-nav'
n_layer = 6
n_head = 8
n_embd = 256
chunk = 4
see_act = False # as in config/toy_nav_cpu.py, where it was measured
n_seen = 1
block_size = 64 + 2 * 100 # 100 steps of 4, bd and obs: the whole episode is in view
text_len = 64
batch_size = 64
optimizer = 'muon' # as there
learning_rate = 1e-3
max_iters = 12000
eval_interval = 1000
