# The real one: the room with lasers, bumpers and pose. The defaults of train.py are its settings.
# $ python train.py config/toy_nav.py
# $ torchrun --standalone --nproc_per_node=8 train.py config/toy_nav.py
# 69 minutes on one CPU core, about half of it on two; carries out 83% of unseen prompts: data/toy_nav/readme.md.
out_dir = 'out-toy-nav'
