# The real one: the room with lasers, bumpers and pose, and a policy that says its prompts in plain words. So, with more
# episodes and on one H100 in 9 minutes, the one that comes with nanoPilot was made: data/toy_nav/policy/README.md.
# $ python prepare.py --size=2 --words_only=150000 && python train.py config/toy_nav.py --compile
# $ torchrun --standalone --nproc_per_node=8 train.py config/toy_nav.py
out_dir = 'out-toy-nav'
n_layer = 5
n_head = 7
n_embd = 224
say_len = 64
more_texts = 192
batch_size = 128
max_iters = 22000
