# The small one, for two CPU cores: what `make demo` trains. Less of everything than config/toy_nav.py.
# $ python train.py config/toy_nav_cpu.py
# About 9 minutes on 2 cores; carries out 62% of unseen prompts: see the README's table.
out_dir = 'out-toy-nav-cpu'
source_weights = 'demonstrations=0.85,elites=0.15'
n_layer = 4
max_iters = 7000
eval_interval = 1000
