# The real one: the room with lasers, bumpers and pose. The policy that comes with nanoPilot was made with less data, in
# fewer steps: see its card in data/toy_nav/policy.
# $ python prepare.py --size=2 && python train.py config/toy_nav.py
# $ torchrun --standalone --nproc_per_node=8 train.py config/toy_nav.py
out_dir = 'out-toy-nav'
n_layer = 5
n_head = 7
n_embd = 224
batch_size = 128
max_iters = 15000
