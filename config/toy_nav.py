# The real one, which comes with nanoPilot (data/toy_nav/policy): the room with lasers, bumpers and pose.
# $ python prepare.py --size=2 && python train.py config/toy_nav.py
# $ torchrun --standalone --nproc_per_node=8 train.py config/toy_nav.py
out_dir = 'out-toy-nav'
n_layer = 5
n_head = 7
n_embd = 224
batch_size = 128
max_iters = 15000
