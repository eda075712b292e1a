# The small one, for two CPU cores: what `make demo` trains. Less of everything than config/toy_nav.py.
# $ python train.py config/toy_nav_cpu.py
# 10 minutes on 2 cores; carries out 32% of unseen prompts, 45% of the sentences that people typed: README.md
out_dir = 'out-toy-nav-cpu'
source_weights = 'demonstrations=0.85,elites=0.15'
n_layer = 4
say_len = 64
more_texts = 24
subgoal_layers = 2
freq_decay = 0.5
max_iters = 2800
eval_interval = 1400
